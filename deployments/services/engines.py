"""Asks an engine what it is, a binary on this host or an external server, and keeps
the answer."""

from __future__ import annotations

from typing import Any

from deployments.engines.probe.archs import learn_archs
from deployments.engines.probe.binary import examine_binary
from deployments.external import probe as servers
from deployments.external.keys import key_of
from deployments.external.report import with_report
from deployments.models import Engine
from omni.roles.rights import (
    MANAGE_ENGINES,
    MANAGE_PROGRAMS,
    require,
)


def probe(engine: Engine, *, user: Any = None) -> Engine:
    """Asks it and saves what it said; one that does not answer is marked with the cause."""
    require(user, MANAGE_ENGINES if engine.is_external else MANAGE_PROGRAMS)
    examine(engine).save()
    learn_archs()
    return engine


def examine(engine: Engine) -> Engine:
    """The row with what it said; not saved, for it may not exist yet."""
    if engine.is_external:
        return with_report(engine, servers.ask(engine.path, key_of(engine)))
    return examine_binary(engine)
