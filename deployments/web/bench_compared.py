"""Two reports beside each other: what was changed between them, and what became of the figures.

They were not measured in turn, so the machine may have changed as well: there is no verdict here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.bench.metrics import Metric
from deployments.web.bench_tables import Label, label_of
from deployments.web.bench_values import (
    Arm,
    ArmKey,
    Measurements,
    Setup,
    metric_of,
)
from deployments.web.bench_words import (
    change_text,
    figure_text,
    flat,
    range_text,
    scalar_text,
    seen,
)
from omni.units import UNKNOWN

# Beside what every report has: only where either of the two knows it.
FIGURES = (
    "first_token_ms",
    "time_per_output_token_ms",
    "output_tps",
    "total_tps",
    "e2e_ms",
    "start_ms",
    "prefill_tps",
    "acceptance",
    "goodput",
    "joules_per_token",
    "link_gbps",
    "peak_memory_bytes",
)
MISSING = "not there"


@dataclass(frozen=True)
class ChangedFact:
    title: str
    before: str
    after: str


@dataclass(frozen=True)
class ChangedGroup:
    """What was changed at one deployment, or at the machine."""

    title: str
    facts: tuple[ChangedFact, ...]


@dataclass(frozen=True)
class ChangedFigure:
    metric: Metric
    before: str
    before_between: str
    after: str
    after_between: str
    change: str


@dataclass(frozen=True)
class ChangedArm:
    label: Label
    figures: tuple[ChangedFigure, ...]


@dataclass(frozen=True)
class Compared:
    """`only_before` and `only_after` are arms that one of the two has alone."""

    same_scenario: bool
    changed: tuple[ChangedGroup, ...]
    arms: tuple[ChangedArm, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    disturbed: tuple[str, ...]


def compared(before: Measurements, after: Measurements) -> Compared:
    """The first is what the second is measured by."""
    left = {arm.key: arm for arm in before.arms}
    right = {arm.key: arm for arm in after.arms}
    return Compared(
        same_scenario=before.scenario == after.scenario,
        changed=tuple(_changed(before, after)),
        arms=tuple(
            ChangedArm(label_of(key, before), _figures(left[key], right[key]))
            for key in left
            if key in right
        ),
        only_before=_names(key for key in left if key not in right),
        only_after=_names(key for key in right if key not in left),
        disturbed=tuple(
            title
            for title, found in (("A", before), ("B", after))
            if found.arms and not found.is_valid
        ),
    )


def _names(keys: Iterable[ArmKey]) -> tuple[str, ...]:
    return tuple(seen(key.words) for key in keys)


# --- figures --------------------------------------------------------------------------------------
def _figures(before: Arm, after: Arm) -> tuple[ChangedFigure, ...]:
    rows = [
        _figure(name, before, after)
        for name in FIGURES
        if before.value(name) is not None or after.value(name) is not None
    ]
    return tuple(rows)


def _figure(name: str, before: Arm, after: Arm) -> ChangedFigure:
    return ChangedFigure(
        metric=metric_of(name),
        before=figure_text(name, before.value(name)),
        before_between=_between(name, before),
        after=figure_text(name, after.value(name)),
        after_between=_between(name, after),
        change=change_text(change_percent(before.value(name), after.value(name))),
    )


def _between(name: str, arm: Arm) -> str:
    figure = arm.figure(name)
    return range_text(name, figure.low, figure.high)


def change_percent(before: float | None, after: float | None) -> float | None:
    if not before or after is None:
        return None
    return 100 * (after / before - 1)


# --- what was changed -----------------------------------------------------------------------------
def _changed(before: Measurements, after: Measurements) -> list[ChangedGroup]:
    left = {setup.name: setup for setup in before.setups}
    right = {setup.name: setup for setup in after.setups}
    groups = [ChangedGroup("", _differing(_machine(before), _machine(after)))]
    groups += [
        ChangedGroup(seen(name), _differing(_facts(left[name]), _facts(right[name])))
        for name in left
        if name in right
    ]
    groups.append(
        ChangedGroup(
            "While it ran", _differing(flat(before.conditions), flat(after.conditions))
        )
    )
    return [group for group in groups if group.facts]


def _machine(found: Measurements) -> list[tuple[str, str]]:
    up = "one at a time" if found.is_swapped else "together"
    return [("Host", found.host), ("CPU", found.cpu), ("Deployments up", up)]


def _facts(setup: Setup) -> list[tuple[str, str]]:
    generation = "" if setup.generation is None else str(setup.generation)
    facts = [
        ("Engine", setup.engine),
        ("Build", setup.build),
        ("Generation", generation),
        ("Devices", ", ".join(setup.devices)),
        ("Extra flags", " ".join(setup.extra_args)),
    ]
    for role, name, fingerprint in setup.models:
        facts.append((f"Model ({role})", name))
        facts.append((f"Fingerprint ({role})", fingerprint))
    facts += [
        (f"Setting {key}", scalar_text(value)) for key, value in setup.settings.items()
    ]
    return facts


def _differing(
    before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]
) -> tuple[ChangedFact, ...]:
    """Facts that are not the same in both, in their order; what one has alone is one of them."""
    left, right = dict(before), dict(after)
    rows = [
        ChangedFact(seen(title), _shown(left, title), _shown(right, title))
        for title in dict.fromkeys([*left, *right])
    ]
    return tuple(row for row in rows if row.before != row.after)


def _shown(facts: dict[str, str], title: str) -> str:
    if title not in facts:
        return MISSING
    return seen(facts[title]) or UNKNOWN
