from __future__ import annotations

import pytest

from gpus.links import SeenLink, link_gbps, link_shortfall, under_load
from gpus.rollup import Figures


@pytest.mark.parametrize(
    ("generation", "width", "gbps"),
    [
        (1, 16, 4.0),
        (3, 16, 15.75),
        (4, 8, 15.75),
        (4, 16, 31.5),
        (5, 16, 63.0),
        (5, 4, 15.75),
    ],
)
def test_a_link_carries_what_its_generation_and_lanes_give(
    generation: int, width: int, gbps: float
) -> None:
    assert link_gbps(generation, width) == pytest.approx(gbps, rel=0.002)


@pytest.mark.parametrize(
    ("generation", "width"), [(None, 16), (5, None), (5, 0), (9, 16), (None, None)]
)
def test_an_unknown_link_carries_an_unknown_amount(
    generation: int | None, width: int | None
) -> None:
    assert link_gbps(generation, width) is None


@pytest.mark.parametrize(
    ("now", "best", "busy", "said"),
    [
        ((5, 16), (5, 16), 90.0, ()),
        ((1, 16), (5, 16), 0.0, ()),  # idle: power saving
        ((1, 16), (5, 16), None, ()),
        ((1, 16), (5, 16), 90.0, ("generation 1 of 5 under load", "4.0 of 63.0 GB/s")),
        ((5, 8), (5, 16), 0.0, ()),  # lanes may be put to sleep as well
        ((5, 8), (5, 16), 90.0, ("8 of 16 lanes under load",)),
        ((3, 4), (5, 16), 50.0, ("4 of 16 lanes and at generation 3 of 5",)),
        ((None, 16), (5, 16), 90.0, ()),
        ((5, 16), (5, None), 90.0, ()),
    ],
)
def test_a_link_is_below_its_best_only_when_load_cannot_explain_it(
    now: tuple[int | None, int | None],
    best: tuple[int | None, int | None],
    busy: float | None,
    said: tuple[str, ...],
) -> None:
    text = link_shortfall(*now, *best, busy)
    assert all(part in text for part in said)
    assert bool(text) == bool(said)


def bucket(
    at_s: int, busy: tuple[float, float], generation: float | None, width: float = 16
) -> tuple[int, tuple[Figures | None, ...]]:
    low, high = busy
    link = Figures(20, 1, generation, generation) if generation else None
    return at_s, (
        Figures(20, low, (low + high) / 2, high),
        link,
        Figures(20, *[width] * 3),
    )


IDLE, STARTING, AT_WORK = (0, 3), (0, 98), (40, 98)


@pytest.mark.parametrize(
    ("newest_first", "seen"),
    [
        ([], None),
        ([bucket(90, IDLE, 1), bucket(80, STARTING, 1)], None),
        ([bucket(90, IDLE, 1), bucket(80, AT_WORK, 4)], SeenLink(80, 4, 16, 69)),
        # The newest counts: it was mended meanwhile.
        ([bucket(90, AT_WORK, 5), bucket(80, AT_WORK, 4)], SeenLink(90, 5, 16, 69)),
        (
            [bucket(90, AT_WORK, None), bucket(80, AT_WORK, 5, 8)],
            SeenLink(80, 5, 8, 69),
        ),
    ],
)
def test_a_link_is_as_it_was_when_the_card_last_worked(
    newest_first: list[tuple[int, tuple[Figures | None, ...]]], seen: SeenLink | None
) -> None:
    assert under_load(newest_first) == seen
