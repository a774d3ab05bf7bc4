"""Which lane was ahead in a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

# (name, time to first token in ms, tokens per second); None where it is not known
Figures = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class Lead:
    """The best of at least two in one respect; `factor` says how far before the next."""

    kind: str  # "first_token" or "decode"
    name: str
    value: float
    factor: float

    @property
    def is_clear(self) -> bool:
        """Whether anybody would notice."""
        return self.factor >= 1.01


@dataclass(frozen=True)
class Shared:
    """Answers that were written on the same devices at the same time: each slowed the others
    down."""

    names: tuple[str, ...]
    devices: tuple[str, ...]


def shared(devices: Mapping[str, frozenset[str]]) -> Shared | None:
    """Of answers by the name of what gave them, with the devices that it ran on."""
    pairs = [
        (pair, devices[pair[0]] & devices[pair[1]]) for pair in combinations(devices, 2)
    ]
    meeting = [(pair, both) for pair, both in pairs if both]
    if not meeting:
        return None
    names = {name for pair, _ in meeting for name in pair}
    places = {place for _, both in meeting for place in both}
    return Shared(
        tuple(name for name in devices if name in names), tuple(sorted(places))
    )


def were_together(spans: Sequence[tuple[float, float] | None]) -> bool:
    """Whether any two were written at the same time; of one whose (start, end) is not known that is
    assumed."""
    if None in spans:
        return True
    known = sorted(span for span in spans if span)
    return any(later[0] < earlier[1] for earlier, later in pairwise(known))


def leads(answers: Sequence[Figures]) -> list[Lead]:
    """The quickest to begin and the quickest to write, where at least two can be compared."""
    first = _lead(
        "first_token", [(ttft, name) for name, ttft, _ in answers if ttft], lowest=True
    )
    decode = _lead(
        "decode", [(tps, name) for name, _, tps in answers if tps], lowest=False
    )
    return [lead for lead in (first, decode) if lead]


def _lead(kind: str, values: list[tuple[float, str]], *, lowest: bool) -> Lead | None:
    if len(values) < 2:
        return None
    (best, name), (second, _), *_ = sorted(values, reverse=not lowest)
    return Lead(kind, name, best, second / best if lowest else best / second)
