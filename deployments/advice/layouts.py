"""Every way to lay a model out over devices: strategy × devices × draft.

A layout is what a deployment is made of. Which of them fit is for the planner; two whose commands
are the same are one layout, and the plainer one, which comes first here, gives it its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TypeVar

from deployments.planning.memory.placement import CPU
from deployments.states import StrategyName

T = TypeVar("T")

# Of more cards than this not every combination is looked at: pairs, the largest ones and all.
MOST_COMBINED = 4


@dataclass(frozen=True)
class Layout:
    """`devices` and `models` are by role; a role whose model is not named is the main one's."""

    strategy: str
    devices: Mapping[str, tuple[str, ...]]
    draft: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """Every device, each once, in the order of the roles."""
        return tuple(
            dict.fromkeys(name for names in self.devices.values() for name in names)
        )


def layouts(
    cards: Sequence[str],
    *,
    has_experts: bool,
    splits_graph: bool = False,
    drafts: Sequence[str] = (),
    largest_first: Sequence[str] = (),
) -> Iterator[Layout]:
    """The plainest first. `cards` are devices besides the CPU, `drafts` models that can draft;
    `largest_first` are the cards by their memory. `splits_graph`: the engine has graph split."""
    for name in (*cards, CPU):
        yield Layout(StrategyName.INDEPENDENT, {"model": (name,)})
    pairs_and_more = list(several(cards, largest_first))
    for names in pairs_and_more:
        yield Layout(StrategyName.LAYER_SPLIT, {"model": names})
    if has_experts:
        for names in (*((name,) for name in cards), *pairs_and_more):
            yield Layout(StrategyName.EXPERT_OFFLOAD, {"model": names})
    for names in pairs_and_more:
        yield Layout(StrategyName.TENSOR_SPLIT, {"model": names})
    if splits_graph:
        for names in pairs_and_more:
            yield Layout(StrategyName.GRAPH_SPLIT, {"model": names})
    yield from _drafting(cards, drafts)
    for prefill, decode in permutations(cards, 2):
        roles = {"prefill": (prefill,), "decode": (decode,)}
        yield Layout(StrategyName.PREFILL_DECODE, roles)


def several(
    cards: Sequence[T], largest_first: Sequence[T] = ()
) -> Iterator[tuple[T, ...]]:
    """Two or more cards that a model may be cut over; where there are many, pairs, the largest
    three, four … and all of them."""
    if len(cards) <= MOST_COMBINED:
        for size in range(2, len(cards) + 1):
            yield from combinations(cards, size)
        return
    yield from combinations(cards, 2)
    for size in range(3, len(largest_first)):
        largest = largest_first[:size]
        yield tuple(card for card in cards if card in largest)
    yield tuple(cards)


def _drafting(cards: Sequence[str], drafts: Sequence[str]) -> Iterator[Layout]:
    """By the model's own layers or its own text on the card it is on, and by each draft model on
    that card or another one."""
    strategy = StrategyName.SPECULATIVE
    for name in cards:
        yield Layout(strategy, {"target": (name,)})
    for draft in drafts:
        for target in cards:
            for place in (target, *(card for card in cards if card != target)):
                roles = {"target": (target,), "draft": (place,)}
                yield Layout(strategy, roles, draft)
