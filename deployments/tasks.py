"""What a host's agent is asked to do: each task loads, calls one function and is done."""

from __future__ import annotations

from omni.celery import app


@app.task
def nudge_agent() -> None:
    """Makes the agent look at what is desired now and not at its next tick."""
    from deployments.supervision.agent import nudge

    nudge()


@app.task
def scan_library() -> None:
    """Looks for engines and models again and registers what it finds."""
    from deployments.services.discovery import discover
    from deployments.supervision.troubles import troubles_of

    with troubles_of("discovery"):
        discover()


@app.task
def probe_engine(engine_id: int) -> None:
    """Asks one engine again what it is."""
    from deployments.models import Engine
    from deployments.services.engines import probe

    if engine := Engine.objects.filter(pk=engine_id).first():
        probe(engine)
