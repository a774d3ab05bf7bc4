"""Counts how often deployments are planned, and what is touched while something is written."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from deployments.planning.plan import Plan, PlanRequest
from deployments.services import plans
from deployments.strategies.base import Strategy
from deployments.strategies.on_engine import plan_on_engine

# What Python says of itself before it opens a file, asks a program, or goes to the network.
SLOW = ("open", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen")


class Planner:
    """The real planner, which every plan of a deployment goes through, with a count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        monkeypatch.setattr(plans, "plan_on_engine", self._plan)

    def _plan(self, strategy: Strategy, request: PlanRequest) -> Plan:
        self.made.append(request.alias)
        _note(f"plan {request.alias}")
        return plan_on_engine(strategy, request)

    def since(self) -> list[str]:
        """Those planned since this was asked last."""
        made, self.made = self.made, []
        return made


_watched: list[tuple[threading.Thread, list[str]]] = []


def _note(what: str) -> None:
    for thread, touched in _watched:
        if thread is threading.current_thread() and connection.in_atomic_block:
            touched.append(what)


def _heard(event: str, args: tuple[object, ...]) -> None:
    if _watched and event in SLOW:
        _note(f"{event} {args[:1]}")


@contextmanager
def touched_in_transactions() -> Iterator[list[str]]:
    """All that this thread plans, reads and asks while it holds a transaction."""
    if not getattr(sys, "_omni_hears", False):
        sys.addaudithook(_heard)  # it cannot be taken away again
        sys._omni_hears = True  # type: ignore[attr-defined]
    watched: tuple[threading.Thread, list[str]] = (threading.current_thread(), [])
    _watched.append(watched)
    try:
        yield watched[1]
    finally:
        _watched.remove(watched)
