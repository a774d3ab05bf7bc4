"""What a start or a change is worked out from before it is written.

A write holds SQLite's only lock: plans are made, files and the broker are asked before it, and in
it nothing but rows is looked at. Where those have changed meanwhile, all is worked out again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deployments.models import Deployment
from deployments.services.plans import Setup, holds_memory, setup_of
from deployments.services.stored_plans import Planned, keep, kept_plan, make
from deployments.services.tenancy import Seen, check_room_of, holders_now, swaps
from deployments.states import InstanceState
from omni.errors import OmniError

T = TypeVar("T")
MOST_TRIES = 5


class Overtaken(OmniError):
    """Somebody else has changed what a write was worked out from."""

    def __init__(self, name: str) -> None:
        text = f"{name} could not be changed: others keep changing what it depends on."
        super().__init__("changed_meanwhile", text, "Try again.", retry=True)


def until_it_holds(attempt: Callable[[], T]) -> T:
    """Works a write out again where it was overtaken.

    Raises Overtaken when that happens again and again.
    """
    for _ in range(MOST_TRIES - 1):
        try:
            return attempt()
        except Overtaken:
            continue
    return attempt()


@dataclass(frozen=True)
class Ready:
    """`planned` is stored with the generation that is written; None where it has a plan already, or
    cannot be planned: then the agent tries, and says why.

    `generation` is that of the row it was worked out from, and `seen` are those who hold memory;
    None: whoever made this looks after that.
    """

    planned: Planned | None = None
    generation: int | None = None
    seen: Seen | None = None

    def check(self, row: Deployment) -> None:
        """Raises Overtaken where the rows have changed since; one that went away is in nobody's
        way."""
        if self.generation not in (None, row.generation):
            raise Overtaken(row.name)
        if self.seen is None:
            return
        others = {holder for holder in holders_now(row.host) if holder[0] != row.pk}
        if others - self.seen:
            raise Overtaken(row.name)

    def keep(self, row: Deployment) -> None:
        if self.planned:
            keep(row, self.planned)


# --- what a start does ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """`is_anew`: it gets a generation of its own; else it is only loaded again, or nothing
    changes."""

    is_anew: bool
    changes: bool


def step_of(row: Deployment, again: bool) -> Step:
    given_up = row.instances.filter(
        generation=row.generation, state=InstanceState.FAILED
    ).exists()
    is_anew = (
        row.desired != Deployment.Desired.RUNNING
        or bool(row.error)
        or given_up
        or again
    )
    return Step(is_anew, is_anew or row.is_unloaded)


def ready_to_start(row: Deployment, again: bool) -> Ready:
    """Raises OmniError (place_taken) when others are in its way that it may not unload."""
    step = step_of(row, again)
    if not step.changes or row.is_external:
        return Ready(generation=row.generation)
    seen = None if swaps(row) else holders_now(row.host)
    kept = None if step.is_anew else kept_plan(row)
    if kept:
        planned = None
    else:
        planned = planned_or_none(setup_of(row), holds=holds_memory(row))
    check_room_of(row, planned.plan if planned else kept)
    return Ready(planned, row.generation, seen)


def planned_or_none(setup: Setup, *, holds: bool = False) -> Planned | None:
    """None for what cannot be planned: the agent tries, too, and says why on its page."""
    try:
        return make(setup, holds=holds)
    except OmniError:
        return None


def ready_for_new(setup: Setup) -> Ready:
    """Of a deployment that does not exist yet. Raises OmniError (place_taken)."""
    if setup.engine.is_external:
        return Ready()
    row = Deployment(host=setup.host, name=setup.name, settings=dict(setup.settings))
    seen = None if swaps(row) else holders_now(setup.host)
    planned = planned_or_none(setup)
    check_room_of(row, planned.plan if planned else None)
    return Ready(planned, seen=seen)
