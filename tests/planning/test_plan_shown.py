"""What stands beside plans: which is best and why, and bars of memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.planning.bars import EDGE_PERCENT, bar
from deployments.planning.plan import DeviceUse, Plan, Predicted, Verdict
from deployments.planning.ranking import rank, why_best

OK, CAUTION, NO = Verdict.VIABLE, Verdict.CAUTION, Verdict.NOT_VIABLE


def plan(verdict: Verdict, speed: float | None = None) -> Plan:
    return Plan("s", verdict, predicted=Predicted(decode_tps=speed))


def test_verdict_comes_before_speed_and_speed_before_nothing() -> None:
    best, slow, unknown = plan(OK, 50), plan(OK, 20), plan(OK)
    caution, no = plan(CAUTION, 90), plan(NO, 100)
    assert sorted([None, no, caution, unknown, slow, best], key=rank) == [
        best,
        slow,
        unknown,
        caution,
        no,
        None,
    ]


@pytest.mark.parametrize(
    ("plans", "says"),
    [
        ([], ""),
        ([("A", plan(OK, 50))], ""),
        ([("A", plan(NO, 50)), ("B", plan(NO))], ""),
        ([("A", plan(OK)), ("B", plan(NO))], "The only one that can run like this."),
        (
            [("A", plan(OK)), ("B", plan(CAUTION, 90))],
            "The only one without a caution.",
        ),
        (
            [("A", plan(OK, 90)), ("B", plan(OK, 60))],
            "The fastest answer: 90 tokens/s, 1.5 times B.",
        ),
        (
            [("A", plan(OK, 90)), ("B", plan(OK, 85))],
            "About as fast as B: 90 tokens/s and 85 tokens/s.",
        ),
        (
            [("A", plan(OK, 90)), ("B", plan(OK))],
            "The only one that fits and has a predicted speed: 90 tokens/s.",
        ),
        (
            [("A", plan(OK)), ("B", plan(OK))],
            "First in the list; no speed is predicted for any of those that fit.",
        ),
    ],
)
def test_why_the_first_is_the_best(plans: list[tuple[str, Plan]], says: str) -> None:
    assert why_best(plans) == says


# --- bars -----------------------------------------------------------------------------------------
def test_parts_stand_one_after_the_other_to_scale() -> None:
    use = DeviceUse("CUDA0", 100, 40, 20, 10, 5, held_bytes=15)
    drawn = bar(replace(use, projector_bytes=4))
    assert [(part.code, part.x, part.width) for part in drawn.parts] == [
        ("held", 0, 15),
        ("weights", 15, 40),
        ("projector", 55, 4),
        ("kv", 59, 20),
        ("compute", 79, 10),
        ("other", 89, 5),
    ]
    assert (drawn.edge, drawn.over_width, drawn.free_bytes) == (100, 0, 6)
    assert "projector" not in [part.code for part in bar(use).named]


def test_what_does_not_fit_stands_beyond_the_edge() -> None:
    drawn = bar(DeviceUse("CUDA0", 100, 90, 20))
    assert drawn.edge == EDGE_PERCENT and drawn.over_bytes == 10
    assert drawn.over_width == pytest.approx(EDGE_PERCENT / 10)
    assert sum(part.width for part in drawn.parts) == pytest.approx(EDGE_PERCENT)


@pytest.mark.parametrize("weights", [101, 150, 10**6])
@pytest.mark.parametrize("held", [0, 60, 300])
def test_a_bar_never_leaves_its_box(weights: int, held: int) -> None:
    drawn = bar(DeviceUse("CUDA0", 100, weights, 7, 3, held_bytes=held))
    assert drawn.edge + drawn.over_width <= 100
    assert all(
        part.x >= 0 and part.x + part.width <= drawn.edge + 0.02 for part in drawn.parts
    )


def test_without_a_known_size_nothing_is_drawn() -> None:
    drawn = bar(DeviceUse("Vulkan0", None, 40))
    assert (
        drawn.free_bytes is None
        and not any(part.width for part in drawn.parts)
        and drawn.needed_bytes == 40
    )
