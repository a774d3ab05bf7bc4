"""What a host's agent is asked to do: each task loads, calls one function and is done."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init, worker_shutting_down

from deployments.models import Engine
from deployments.services.discovery import discover
from deployments.services.engines import probe
from deployments.supervision.agent import nudge, start_agent_loops, stop_agent_loops
from deployments.supervision.problems import recording_problems
from omni.celery import app


@app.task
def nudge_agent() -> None:
    """Makes the agent look at what is desired now and not at its next tick."""
    nudge()


@app.task
def scan_library() -> None:
    """Looks for engines and models again and registers what it finds."""
    with recording_problems("discovery"):
        discover()


@app.task
def probe_engine(engine_id: int) -> None:
    """Asks one engine again what it is."""
    engine = Engine.objects.filter(pk=engine_id).first()
    if engine:
        probe(engine)


@worker_init.connect
def start_agent(**kwargs: Any) -> None:
    """Begins to supervise before the broker answers: engines are looked after without it."""
    start_agent_loops()


@worker_shutting_down.connect
def stop_agent(**kwargs: Any) -> None:
    stop_agent_loops()
