"""What an external server said of itself, kept in its row."""

from __future__ import annotations

from django.utils import timezone

from deployments.engines.external import ServerReport
from deployments.models import Engine


def with_report(engine: Engine, report: ServerReport) -> Engine:
    """The row with what the server said; what it offered before it went away is kept. Not saved."""
    if report.error:
        engine.state, engine.error = Engine.State.BROKEN, str(report.error)
    else:
        engine.state = Engine.State.OK
        engine.error = ""
        engine.offers = list(report.models)
        engine.build = report.owner
    engine.probed_at = timezone.now()
    return engine


def keep_report(engine: Engine, report: ServerReport) -> bool:
    """Saves what is news of it, and says whether anything was."""
    names = ("state", "error", "offers", "build")
    before = [getattr(engine, name) for name in names]
    with_report(engine, report)
    if before == [getattr(engine, name) for name in names]:
        return False
    # Its address may have been changed meanwhile: then this is about another server.
    return bool(
        Engine.objects.filter(pk=engine.pk, path=engine.path).update(
            **{name: getattr(engine, name) for name in (*names, "probed_at")}
        )
    )
