"""What would have been predicted of each run by those before it alone, and what that comes to."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deployments.planning.accuracy import (
    Checked,
    Coverage,
    MemoryReading,
    Trend,
    checked,
    checks_of,
    coverage_of,
    groups_of,
    median_error,
    running_median,
    trend_of,
)
from deployments.planning.correction_words import coverage_text, trend_text
from deployments.planning.corrections import PastRun, Rate, Rates, Subject

ALONE = Subject(("CUDA0",), "independent", "", "llama.cpp", "b1", "Q4_K", model=1)
SPLIT = replace(ALONE, devices=("CUDA0", "CUDA1"), strategy="layer_split")
OTHER_BUILD = replace(ALONE, build="b2")
NGRAMS = replace(ALONE, strategy="speculative", variant="ngram-simple")
START = datetime(2026, 11, 1, tzinfo=UTC)


def run(
    measured: float | None,
    *,
    subject: Subject = ALONE,
    computed: float | None = 10.0,
    said: float | None = None,
    benchmark: int | None = None,
    requests: int = 40,
    day: int = 0,
) -> PastRun:
    """What was computed as 10 tokens/s; unless told otherwise the median of a benchmark."""
    return PastRun(
        subject,
        measured=Rates(decode=measured),
        computed=Rates(decode=computed),
        predicted=Rates(decode=said),
        requests=requests,
        is_benchmark=requests > 1,
        at=START + timedelta(days=day),
        benchmark=benchmark,
    )


def predicted(runs: list[PastRun], reading: MemoryReading | None = None) -> list[float]:
    found = checks_of(checked(runs, reading), Rate.DECODE)
    return [round(check.predicted, 6) for check in found]


def check(error: float, in_range: bool | None = None) -> Checked:
    """Of 100 tokens/s, computed as 50 % too fast."""
    low, high = {None: (None, None), True: (90.0, 110.0), False: (1.0, 2.0)}[in_range]
    return Checked(100.0, 150.0, 100.0 * (1 + error), low, high)


# --- in time order --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], []),
        # Nothing is known before the first.
        ([run(5.0)], [10.0]),
        # Each knows those before it, never itself or a later one.
        ([run(5.0), run(20.0), run(20.0)], [10.0, 5.0, 12.5]),
        # Where what was measured is not enough it is what was said at the time.
        ([run(5.0, requests=1, said=7.0), run(5.0, requests=1, said=8.0)], [7.0, 8.0]),
        ([run(5.0, requests=1)] * 4, [10.0, 10.0, 10.0, 5.0]),
        # Of another build less certain, and of two devices not from one.
        ([run(5.0), run(5.0, subject=OTHER_BUILD)], [10.0, 5.0]),
        ([run(5.0), run(5.0, subject=SPLIT, said=9.0)], [10.0, 9.0]),
        # Runs of one benchmark know nothing of each other; the next one knows both.
        (
            [run(5.0, benchmark=1), run(5.0, benchmark=1), run(5.0, benchmark=2)],
            [10.0, 10.0, 5.0],
        ),
        # N-grams gain by the text: nothing corrects them.
        ([run(20.0, subject=NGRAMS, said=10.0)] * 2, [10.0, 10.0]),
        # What tells nothing is left out, and corrects nothing.
        ([run(None), run(5.0, computed=None), run(5.0)], [10.0]),
    ],
)
def test_a_run_is_predicted_by_those_before_it_alone(
    runs: list[PastRun], expected: list[float]
) -> None:
    assert predicted(runs) == expected


def test_all_runs_come_back_also_those_that_tell_nothing() -> None:
    runs = [run(None), run(5.0)]
    found = checked(runs)
    assert [each.run for each in found] == runs
    assert not found[0].checks


def test_what_was_computed_from_an_older_reading_of_the_memory_corrects_nothing() -> (
    None
):
    runs = [run(5.0, day=0), run(5.0, day=1), run(5.0, day=3), run(5.0, day=4)]
    reading = MemoryReading(frozenset({"CUDA0"}), START + timedelta(days=2))
    assert predicted(runs, reading) == [10.0, 5.0, 10.0, 5.0]
    elsewhere = replace(reading, devices=frozenset({"CPU"}))
    assert predicted(runs, elsewhere) == [10.0, 5.0, 5.0, 5.0]


def test_a_correction_gives_the_range_that_the_measured_speed_is_held_against() -> None:
    first, second, third = checks_of(
        checked([run(5.0), run(5.1), run(9.0)]), Rate.DECODE
    )
    assert first.is_in_range is None
    assert second.is_in_range and not third.is_in_range
    assert second.low and second.high and second.low < 5.0 < second.high


def test_corrected_errors_shrink_where_uncorrected_ones_stay() -> None:
    runs = [run(6.0 + 0.1 * (number % 3)) for number in range(20)]
    trend = trend_of(checks_of(checked(runs), Rate.DECODE))
    assert trend and trend.count == 20 and trend.compared == 10
    assert trend.last < 0.03 < trend.last_uncorrected
    assert trend.last_uncorrected == pytest.approx(0.64, abs=0.03)


# --- what they come to ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("errors", "expected"), [([], None), ([-0.2], 0.2), ([0.1, -0.3, 0.2], 0.2)]
)
def test_too_fast_and_too_slow_are_errors_alike(
    errors: list[float], expected: float | None
) -> None:
    assert median_error(errors) == expected


def test_a_running_median_looks_back_only() -> None:
    assert running_median([0.3, -0.1, 0.2, 0.0], 2) == pytest.approx(
        [0.3, 0.2, 0.15, 0.1]
    )


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ([], ""),
        ([0.12], "The one prediction of answers was 12 % too fast."),
        (
            [0.3, -0.1],
            "The last of 2 predictions of answers was 10 % off; the first was 30 % off."
            " Uncorrected, the last would have been 50 % off.",
        ),
        (
            [0.3] * 12 + [-0.05] * 13,
            "The last 10 of 25 predictions of answers were 5 % off in the median; the first 10"
            " were 30 % off. Uncorrected, the last 10 would have been 50 % off.",
        ),
    ],
)
def test_the_last_predictions_are_told_beside_the_first(
    errors: list[float], text: str
) -> None:
    checks = [check(error) for error in errors]
    told = [round(each.error, 9) for each in checks]
    assert trend_text("answers", told, trend_of(checks)) == text


@pytest.mark.parametrize(
    ("inside", "expected", "text"),
    [
        ([None, None], Coverage(0, 0), ""),
        ([True], Coverage(1, 1), "The one speed with a predicted range lay in it."),
        (
            [False, None],
            Coverage(0, 1),
            "The one speed with a predicted range did not lie in it.",
        ),
        (
            [True, True, True, False, None],
            Coverage(3, 4),
            "Of 4 speeds with a predicted range 3 lay in it: 75 %, and nine of ten should.",
        ),
    ],
)
def test_how_often_the_range_held_what_was_measured(
    inside: list[bool | None], expected: Coverage, text: str
) -> None:
    found = coverage_of(check(0.0, each) for each in inside)
    assert found == expected and coverage_text(found) == text


def test_a_trend_needs_two() -> None:
    assert trend_of([check(0.1)]) is None
    trend = trend_of([check(0.1), check(-0.2), check(0.3)])
    assert trend and trend == Trend(3, 1, trend.first, trend.last, 0.5)
    assert math.isclose(trend.first, 0.1) and math.isclose(trend.last, 0.3)


# --- groups ---------------------------------------------------------------------------------------
def test_groups_are_by_devices_build_and_format_with_all_their_models() -> None:
    other_model = replace(ALONE, model=2)
    runs = [run(5.0), run(6.0, subject=other_model), run(7.0, subject=OTHER_BUILD)]
    newest, oldest = groups_of(checked(runs))
    assert newest.subject == replace(OTHER_BUILD, model=None)
    assert [each.run.measured.decode for each in oldest.runs] == [5.0, 6.0]

    correction = oldest.corrections[Rate.DECODE]
    assert correction and correction.ratio == pytest.approx(0.55)
    assert oldest.corrections[Rate.PREFILL] is None


@pytest.mark.parametrize(
    "runs",
    [
        [run(5.0, requests=1)] * 2,
        [run(5.0, subject=NGRAMS)] * 5,
        # Computed from an older reading of the memory.
        [run(5.0, day=-1)] * 3,
    ],
)
def test_what_does_not_correct_gives_a_group_no_correction(runs: list[PastRun]) -> None:
    reading = MemoryReading(frozenset({"CUDA0"}), START)
    (group,) = groups_of(checked(runs, reading), reading)
    assert group.corrections[Rate.DECODE] is None
