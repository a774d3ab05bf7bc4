"""All alerts of a host at one look: each rule for each card and deployment apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from deployments.alerts.machine import Event, Phase, State, step
from deployments.alerts.rules import Rule

Key = tuple[str, str]
SWITCHED_OFF = "The rule was switched off."
GONE = "It is not there any more."


@dataclass(frozen=True)
class Reading:
    """What a rule, by its code, sees of a subject now; a value of None is not known."""

    code: str
    subject: str
    name: str
    value: float | None
    text: str = ""


@dataclass(frozen=True)
class Facts:
    """`present` are the subjects there are, by code; what a rule's row does not say is not known
    to be gone."""

    readings: tuple[Reading, ...] = ()
    present: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """An alert that fired or cleared."""

    event: Event
    rule: Rule
    subject: str
    name: str = ""
    value: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Look:
    """`states` hold once the changes were kept."""

    states: Mapping[Key, State]
    changes: tuple[Change, ...]


def firing(keys: Iterable[Key]) -> dict[Key, State]:
    """The states after a restart: what fires by its row goes on firing."""
    return {key: State(Phase.FIRING) for key in keys}


def look(
    rules: Mapping[str, Rule], states: Mapping[Key, State], facts: Facts, now_s: float
) -> Look:
    found: dict[Key, State] = {}
    changes: list[Change] = []
    for key, state in states.items():
        if why := _ended(rules, facts, *key):
            if state.is_firing:
                changes.append(_cleared(rules, *key, why))
        else:
            found[key] = state
    for reading in facts.readings:
        rule = rules.get(reading.code)
        if rule is None or not rule.limits.is_on:
            continue
        key = (reading.code, reading.subject)
        state, event = step(rule, found.get(key, State()), reading.value, now_s)
        found[key] = state
        if event:
            about = (reading.subject, reading.name, reading.value, reading.text)
            changes.append(Change(event, rule, *about))
    return Look(found, tuple(changes))


def _ended(rules: Mapping[str, Rule], facts: Facts, code: str, subject: str) -> str:
    """Why nothing is watched there any more; empty where it is."""
    rule = rules.get(code)
    if rule is None or not rule.limits.is_on:
        return SWITCHED_OFF
    present = facts.present.get(code)
    return GONE if present is not None and subject not in present else ""


def _cleared(rules: Mapping[str, Rule], code: str, subject: str, why: str) -> Change:
    return Change(Event.CLEARED, rules[code], subject, text=why)
