"""What an external server said of itself, kept in its row."""

from __future__ import annotations

from django.utils import timezone

from deployments.engines.external import Standing
from deployments.models import Engine


def with_standing(engine: Engine, standing: Standing) -> Engine:
    """The row with what the server said; what it offered before it went away is kept. Not saved."""
    if standing.trouble:
        engine.state, engine.error = Engine.State.BROKEN, str(standing.trouble)
    else:
        engine.state = Engine.State.OK
        engine.error = ""
        engine.offers = list(standing.models)
        engine.build = standing.owner
    engine.probed_at = timezone.now()
    return engine


def keep_standing(engine: Engine, standing: Standing) -> bool:
    """Saves what is news of it, and says whether anything was."""
    names = ("state", "error", "offers", "build")
    before = [getattr(engine, name) for name in names]
    with_standing(engine, standing)
    if before == [getattr(engine, name) for name in names]:
        return False
    # Its address may have been changed meanwhile: then this is about another server.
    return bool(
        Engine.objects.filter(pk=engine.pk, path=engine.path).update(
            **{name: getattr(engine, name) for name in (*names, "probed_at")}
        )
    )
