"""Which cards a model may be cut over."""

from __future__ import annotations

from deployments.advice.layouts import Layout, layouts, several
from deployments.states import StrategyName


def test_of_few_cards_every_combination_of_many_pairs_the_largest_and_all() -> None:
    assert len(list(several("abcd"))) == 6 + 4 + 1
    found = ["".join(names) for names in several("abcdef", "fbdace")]
    assert len(found) == len(set(found)) == 15 + 3 + 1
    assert found[15:] == ["bdf", "abdf", "abcdf", "abcdef"]


def test_every_layout_is_there_once() -> None:
    cards = [f"CUDA{n}" for n in range(6)]
    every = list(layouts(cards, has_experts=True, largest_first=cards[::-1]))
    keys = [(each.strategy, tuple(each.devices.items())) for each in every]
    assert len(keys) == len(set(keys))
    over_three = [each for each in every if len(each.places) == 3]
    assert {each.places for each in over_three} == {("CUDA3", "CUDA4", "CUDA5")}


def test_graph_split_is_a_layout_where_the_engine_has_it() -> None:
    cards = ("CUDA0", "CUDA1")
    having = list(layouts(cards, has_experts=False, splits_graph=True))
    without = list(layouts(cards, has_experts=False))
    assert [each for each in having if each not in without] == [
        Layout(StrategyName.GRAPH_SPLIT, {"model": cards})
    ]
