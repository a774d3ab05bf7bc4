"""When rounds are looked at, when they suffice, and what a look may spend."""

from __future__ import annotations

import pytest

from deployments.bench.comparisons import (
    Comparison,
    PairedBlocks,
    SpeedVerdict,
    compare,
)
from deployments.bench.statistics import ERROR_RATE, Block
from deployments.bench.stopping import (
    Budget,
    Ending,
    Progress,
    after_round,
    is_settled,
    plan_looks,
)

ROUND_S = 10.0


@pytest.mark.parametrize(
    ("most_rounds", "rounds"),
    [
        (1, [1]),
        (6, [6]),
        (8, [8]),
        (9, [6, 9]),
        (12, [6, 12]),
        (20, [6, 12, 20]),
        (40, [6, 12, 24, 40]),
        (200, [6, 12, 24, 48, 96, 200]),
    ],
)
def test_looks_double_and_spend_the_error_rate_by_their_rounds(
    most_rounds: int, rounds: list[int]
) -> None:
    looks = plan_looks(most_rounds)

    assert [look.rounds for look in looks] == rounds
    assert sum(look.error_rate for look in looks) == pytest.approx(ERROR_RATE)
    spent = 0.0
    for look in looks:
        spent += look.error_rate
        assert spent == pytest.approx(ERROR_RATE * look.rounds / most_rounds)


@pytest.mark.parametrize(
    ("budget", "rounds", "used_s", "in_all"),
    [
        (Budget(40), 2, 20.0, 40),
        (Budget(40, seconds=100), 2, 20.0, 10),
        (Budget(8, seconds=100), 2, 20.0, 8),
        (Budget(40, seconds=99), 2, 20.0, 9),
        (Budget(40, seconds=15), 2, 20.0, 2),
        (Budget(40, seconds=100), 2, 0.0, 40),
    ],
)
def test_rounds_of_a_budget_follow_the_pace(
    budget: Budget, rounds: int, used_s: float, in_all: int
) -> None:
    assert budget.rounds_in_all(rounds, used_s) == in_all


def blocks_of(ratio: float, rounds: int, jitter: float) -> list[Block]:
    return [
        [100 * ratio * (1 + jitter if number % 2 else 1 - jitter)]
        for number in range(rounds)
    ]


def pair(ratio: float, rounds: int, jitter: float = 0.002) -> PairedBlocks:
    return PairedBlocks(
        "e2e_ms", blocks_of(1, rounds, 0), blocks_of(ratio, rounds, jitter)
    )


def run(
    budget: Budget, ratio: float = 1.0, jitter: float = 0.002, round_s: float = ROUND_S
) -> list[Progress]:
    """Where a run stood after each of its rounds, until its end."""
    stood: list[Progress] = []
    progress = Progress()
    while progress.ending is None:
        rounds = len(stood) + 1
        progress = after_round(
            progress, budget, rounds * round_s, [pair(ratio, rounds, jitter)]
        )
        stood.append(progress)
    return stood


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.5, SpeedVerdict.SLOWER), (1.0, SpeedVerdict.NO_DIFFERENCE)],
)
def test_run_ends_at_the_first_look_that_settles_it(
    ratio: float, verdict: SpeedVerdict
) -> None:
    stood = run(Budget(40), ratio)

    assert len(stood) == 6
    assert stood[-1].ending is Ending.SETTLED
    assert [one.verdict for one in stood[-1].comparisons] == [verdict]


def test_nothing_is_said_between_looks() -> None:
    stood = run(Budget(40), jitter=0.5)

    said = [progress.comparisons for progress in stood]
    assert len(stood) == 40
    assert said[:5] == [()] * 5
    changed = [
        number for number in range(2, 41) if said[number - 1] != said[number - 2]
    ]
    assert changed == [6, 12, 24, 40]
    assert stood[-1].ending is Ending.BUDGET_USED


def test_difference_that_is_clear_but_not_known_well_goes_on() -> None:
    stood = run(Budget(40), ratio=2.0, jitter=0.15)

    first = stood[5]
    assert first.ending is None
    assert first.comparisons[0].verdict is SpeedVerdict.SLOWER
    assert first.comparisons[0].precision_percent > 5  # type: ignore[operator]
    assert len(stood) > 6


def test_all_comparisons_have_to_be_settled() -> None:
    progress = Progress(looks=plan_looks(40))
    clear, unclear = pair(1.5, 6), pair(1.0, 6, jitter=0.5)

    alone = after_round(progress, Budget(40), 60, [clear])
    together = after_round(progress, Budget(40), 60, [clear, unclear])

    assert alone.ending is Ending.SETTLED
    assert together.ending is None


def test_time_plans_the_looks_and_ends_the_run() -> None:
    stood = run(Budget(200, seconds=200), jitter=0.5)

    assert [look.rounds for look in stood[-1].looks] == [6, 12, 20]
    assert len(stood) == 20
    assert stood[-1].ending is Ending.BUDGET_USED


def test_plan_waits_for_the_pilot() -> None:
    first, second = run(Budget(40, seconds=200), jitter=0.5)[:2]

    assert first == Progress()
    assert second.looks and second.made == 0


def test_time_that_is_over_early_spends_what_is_left() -> None:
    budget = Budget(200, seconds=200)
    progress = Progress()
    for rounds in range(1, 15):
        # From the seventh round on the machine is slow: fourteen take all the time.
        used_s = rounds * ROUND_S + max(0, rounds - 6) * 7.5
        progress = after_round(progress, budget, used_s, [pair(1.0, rounds, 0.5)])

    left = ERROR_RATE - sum(look.error_rate for look in progress.looks[:2])
    assert [look.rounds for look in progress.looks] == [6, 12, 20]
    assert (progress.made, progress.ending) == (3, Ending.BUDGET_USED)
    assert progress.comparisons == compare([pair(1.0, 14, 0.5)], left)


@pytest.mark.parametrize("rounds", [1, 3, 5])
def test_budget_of_a_few_rounds_ends_undecided(rounds: int) -> None:
    stood = run(Budget(rounds), ratio=3.0)

    assert len(stood) == rounds
    assert stood[-1].ending is Ending.BUDGET_USED
    assert stood[-1].comparisons[0].verdict is SpeedVerdict.UNDECIDED


def test_time_of_less_than_a_round_ends_after_it() -> None:
    stood = run(Budget(40, seconds=5), ratio=3.0)
    assert len(stood) == 1 and stood[0].ending is Ending.BUDGET_USED


def comparison(low: float | None, high: float | None, verdict: str) -> Comparison:
    return Comparison("e2e_ms", 8, 0.0, low, high, SpeedVerdict(verdict))


@pytest.mark.parametrize(
    ("comparisons", "expected"),
    [
        ([], True),
        ([comparison(-1.0, 1.0, "no_difference")], True),
        ([comparison(9.0, 12.0, "slower")], True),
        ([comparison(9.0, 40.0, "slower")], False),
        ([comparison(-1.0, 4.0, "undecided")], False),
        ([comparison(None, None, "undecided")], False),
        (
            [
                comparison(9.0, 12.0, "slower"),
                comparison(-1.0, 4.0, "undecided"),
            ],
            False,
        ),
    ],
)
def test_settled_is_decided_and_known_well(
    comparisons: list[Comparison], expected: bool
) -> None:
    assert is_settled(comparisons, precise_percent=5) is expected
