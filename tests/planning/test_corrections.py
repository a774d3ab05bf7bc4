"""Which runs correct a prediction, by how much, and how far it may then still be off: tables."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from deployments.planning.corrected import (
    BY_TEXT,
    corrected,
    subject_of,
    with_corrections,
)
from deployments.planning.correction_words import (
    COMPUTED,
    basis_text,
    errors_text,
    off_text,
    record_text,
    run_text,
    source_text,
)
from deployments.planning.corrections import (
    ENOUGH,
    MAX_RATIO,
    Alike,
    Correction,
    Errors,
    Past,
    PastRun,
    Rate,
    Rates,
    Subject,
    weight_of,
    weighted_median,
)
from deployments.planning.plan import (
    DeviceFacts,
    InstancePlan,
    Plan,
    Predicted,
    Verdict,
)

SPLIT = Subject(("RPC0", "RPC1"), "layer_split", "", "llama.cpp", "b1", "Q4_1", model=1)
ALONE = replace(SPLIT, devices=("RPC0",), strategy="independent")
OTHER_MODEL = replace(SPLIT, model=2)
OTHER_BUILD = replace(SPLIT, build="b0")
OTHER_FORMAT = replace(SPLIT, number_format="F16")
OTHER_ENGINE = replace(SPLIT, flavour="vllm")
BEFORE_0017 = replace(SPLIT, flavour="", build="", number_format="")


def run(
    subject: Subject, ratio: float, requests: int = 40, predicted: float | None = None
) -> PastRun:
    """What was computed as 10 tokens/s."""
    return PastRun(
        subject,
        measured=Rates(decode=10 * ratio),
        computed=Rates(decode=10.0),
        predicted=Rates(decode=predicted),
        requests=requests,
        is_benchmark=requests > 1,
    )


def ratio_of(past: Past, subject: Subject = SPLIT) -> tuple[float, Alike] | None:
    found = past.correction(subject, Rate.DECODE)
    return (found.ratio, found.alike) if found else None


# --- which runs -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([run(SPLIT, 2.0)], (2.0, Alike.MODEL)),
        # The nearest that are enough, however many others there are.
        ([run(SPLIT, 2.0), *[run(OTHER_MODEL, 3.0)] * 5], (2.0, Alike.MODEL)),
        ([run(OTHER_MODEL, 3.0), run(OTHER_BUILD, 4.0)], (3.0, Alike.FORMAT)),
        ([run(OTHER_BUILD, 4.0), run(OTHER_FORMAT, 5.0)], (4.0, Alike.OTHER_BUILD)),
        ([run(OTHER_FORMAT, 5.0), run(OTHER_ENGINE, 6.0)], (5.0, Alike.OTHER_FORMAT)),
        ([run(OTHER_ENGINE, 6.0)], (6.0, Alike.OTHER_ENGINE)),
        # Rows that say nothing of engine and format count only there.
        ([run(BEFORE_0017, 7.0)], (7.0, Alike.OTHER_ENGINE)),
        # Two answers are not enough; with those of another model they are.
        ([run(SPLIT, 2.0, requests=1)] * 2, None),
        ([run(SPLIT, 2.0, requests=1)] * 3, (2.0, Alike.MODEL)),
        (
            [run(SPLIT, 2.0, requests=1), *[run(OTHER_MODEL, 3.0, requests=1)] * 2],
            (3.0, Alike.FORMAT),
        ),
        # A benchmark of four requests is enough, one of three is not.
        ([run(SPLIT, 2.0, requests=4)], (2.0, Alike.MODEL)),
        ([run(SPLIT, 2.0, requests=3)], None),
    ],
)
def test_the_nearest_runs_that_are_enough_correct(
    runs: list[PastRun], expected: tuple[float, Alike] | None
) -> None:
    found = ratio_of(Past(runs))
    assert found == expected or (
        found and expected and found[0] == pytest.approx(expected[0])
    )
    assert (found and found[1]) == (expected and expected[1])


@pytest.mark.parametrize(
    "other",
    [
        ALONE,
        replace(SPLIT, devices=("RPC1", "RPC0")),
        replace(SPLIT, devices=("RPC0", "RPC1", "CPU")),
        replace(SPLIT, strategy="tensor_split"),
        replace(SPLIT, variant="draft-simple small"),
    ],
)
def test_other_devices_strategies_and_drafts_say_nothing(other: Subject) -> None:
    past = Past([run(other, 2.0)] * 5)
    assert ratio_of(past) is None and ratio_of(past, other) == (2.0, Alike.MODEL)


def test_what_n_grams_gain_is_no_matter_of_the_machine() -> None:
    by_ngrams = replace(ALONE, strategy="speculative", variant="ngram-simple")
    by_draft = replace(by_ngrams, variant="draft-simple small")
    past = Past([run(by_ngrams, 3.0), run(by_draft, 2.0)])
    assert ratio_of(past, by_ngrams) is None
    assert ratio_of(past, by_draft) == (2.0, Alike.MODEL)
    # How fast prompts are read is.
    prompts = PastRun(by_ngrams, Rates(300.0), Rates(100.0), requests=40)
    found = Past([prompts]).correction(by_ngrams, Rate.PREFILL)
    assert found and found.ratio == 3.0


def test_a_device_is_corrected_by_a_single_answer_on_it_alone() -> None:
    past = Past([run(ALONE, 1.5, requests=1)])
    found = past.device_correction("RPC0", SPLIT, Rate.DECODE)
    assert found and (found.ratio, found.answers) == (1.5, 1)
    assert past.device_correction("RPC1", SPLIT, Rate.DECODE) is None
    assert past.device_correction("RPC0", SPLIT, Rate.PREFILL) is None


def test_runs_of_a_split_correct_no_device() -> None:
    past = Past([run(SPLIT, 0.5)] * 3)
    devices = {name: DeviceFacts(name) for name in ("RPC0", "RPC1", "CPU")}
    assert with_corrections(devices, past, SPLIT) == devices


# --- by how much ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("requests", "weight"),
    [(0, 1.0), (1, 1.0), (4, 40 / 13), (40, 400 / 49), (10**6, 10.0)],
)
def test_a_median_of_many_weighs_more_and_never_more_than_ten(
    requests: int, weight: float
) -> None:
    assert weight_of(requests) == pytest.approx(weight, rel=1e-4)
    assert weight_of(4) > ENOUGH > weight_of(3)


@pytest.mark.parametrize(
    ("pairs", "median"),
    [
        ([(3.0, 1.0)], 3.0),
        ([(1.0, 1.0), (2.0, 1.0)], 1.5),
        ([(1.0, 1.0), (2.0, 1.0), (9.0, 1.0)], 2.0),
        # A benchmark and seven answers that say something else.
        ([(1.0, 8.2), *[(2.0, 1.0)] * 7], 1.0),
        ([(1.0, 8.2), *[(2.0, 1.0)] * 9], 2.0),
    ],
)
def test_the_median_goes_by_weight(
    pairs: list[tuple[float, float]], median: float
) -> None:
    assert weighted_median(pairs) == median
    assert weighted_median(pairs[::-1]) == median


def test_nothing_is_corrected_beyond_all_reason() -> None:
    assert ratio_of(Past([run(SPLIT, 1000.0)])) == (MAX_RATIO, Alike.MODEL)


def test_what_is_newer_pushes_out_what_is_old() -> None:
    newest_first = [run(SPLIT, 2.0)] * 10 + [run(SPLIT, 9.0)] * 30
    assert ratio_of(Past(newest_first)) == (2.0, Alike.MODEL)


# --- how far off it may be ------------------------------------------------------------------------
def half_width(*runs: PastRun) -> float:
    found = Past(runs).correction(SPLIT, Rate.DECODE)
    assert found and found.low < found.ratio < found.high
    assert found.high / found.ratio == pytest.approx(found.ratio / found.low)
    return found.high / found.ratio - 1


def test_the_spread_comes_from_how_runs_scatter() -> None:
    one = half_width(run(SPLIT, 2.0))
    # 15 % are usual, and a single run may be off itself.
    assert 0.15 < one < 0.18
    agreeing = half_width(*[run(SPLIT, 2.0)] * 10)
    assert 0.01 < agreeing < one / 3
    wide = half_width(*[run(SPLIT, ratio) for ratio in (1.0, 1.5, 2.0, 2.7, 4.0)])
    assert wide > 3 * one
    # Known exactly: ratios e^-0.1, 1, e^0.1 have a median deviation of 0.1.
    few = half_width(*[run(SPLIT, math.exp(away)) for away in (-0.1, 0.0, 0.1)])
    weight = 3 * weight_of(40)
    counts = weight * 2 / 3
    usual = math.log(1.15) / 1.645
    scatter = (3 * usual**2 + counts * (0.1 * 1.4826) ** 2) / (3 + counts)
    assert few == pytest.approx(
        math.exp(1.645 * math.sqrt(scatter * (1 + 1 / weight))) - 1
    )


def test_the_less_alike_runs_are_the_further_off_it_may_be() -> None:
    widths = []
    for other in (SPLIT, OTHER_MODEL, OTHER_BUILD, OTHER_FORMAT, OTHER_ENGINE):
        found = Past([run(other, 2.0)]).correction(SPLIT, Rate.DECODE)
        assert found
        widths.append(found.high / found.low)
    assert widths == sorted(widths) and len(set(widths)) == 5


def test_one_run_that_stalled_widens_little() -> None:
    calm = [run(SPLIT, 2.0 + 0.01 * number) for number in range(8)]
    assert half_width(*calm, run(SPLIT, 0.2)) < 1.5 * half_width(*calm)


# --- on a plan ------------------------------------------------------------------------------------
PREDICTED = Predicted(
    prefill_tps=90.0,
    decode_tps=12.0,
    prefill_range=(80.0, 100.0),
    decode_range=(9.0, 15.0),
    computed_prefill_tps=100.0,
    computed_decode_tps=10.0,
)
PLAN = Plan("layer_split", Verdict.VIABLE, predicted=PREDICTED)


def test_a_correction_goes_on_what_was_computed_and_not_on_what_was_corrected() -> None:
    """12 stood there because the devices were corrected; 12 × 2 would count them twice."""
    past = Past([run(SPLIT, 2.0)])
    once = corrected(PLAN, SPLIT, past)
    known = once.predicted
    assert known.decode_tps == 20.0 and known.computed_decode_tps == 10.0
    assert known.decode_range and known.decode_range[0] < 20.0 < known.decode_range[1]
    assert known.decode_correction and known.basis == "measured"
    # Nothing was measured of prompts.
    assert (known.prefill_tps, known.prefill_correction) == (90.0, None)
    assert corrected(once, SPLIT, past) == once


def test_without_enough_runs_a_plan_stays_as_its_devices_made_it() -> None:
    assert corrected(PLAN, SPLIT, Past([run(ALONE, 2.0)])) == PLAN
    nothing = replace(PLAN, predicted=Predicted())
    assert corrected(nothing, SPLIT, Past([run(SPLIT, 2.0)])) == nothing


def test_runs_by_n_grams_are_told_of_and_correct_nothing() -> None:
    by_ngrams = replace(SPLIT, strategy="speculative", variant="ngram-simple")
    known = corrected(
        PLAN, by_ngrams, Past([run(by_ngrams, 3.0, predicted=10.0)])
    ).predicted
    assert (known.decode_tps, known.assumes) == (12.0, (BY_TEXT,))
    assert known.decode_errors and known.decode_errors.median == pytest.approx(-2 / 3)


@pytest.mark.parametrize(
    ("devices", "settings", "draft", "expected"),
    [
        (["RPC0"], {"gpu_layers": "all"}, "", (("RPC0",), "")),
        # The host was ticked, and does nothing.
        (["RPC0", "CPU"], {"gpu_layers": "all"}, "", (("RPC0",), "")),
        (["CPU"], {}, "", (("CPU",), "")),
        # Layers or experts are left to it.
        (["RPC0"], {"gpu_layers": 12}, "", (("RPC0", "CPU"), "")),
        (
            ["CUDA0"],
            {"gpu_layers": "all", "n_cpu_moe": 3},
            "",
            (("CUDA0", "CPU"), ""),
        ),
        (
            ["RPC0", "RPC1"],
            {"draft_type": "draft-simple"},
            "tiny",
            (("RPC0", "RPC1"), "draft-simple tiny"),
        ),
    ],
)
def test_what_a_speed_depends_on_is_read_from_the_plan(
    devices: list[str],
    settings: dict[str, int | str],
    draft: str,
    expected: tuple[tuple[str, ...], str],
) -> None:
    instance = InstancePlan("model", ("llama-server",), devices=tuple(devices))
    plan = replace(PLAN, instances=(instance,), settings=settings)
    found = subject_of(
        plan,
        flavour="llama.cpp",
        build="b1",
        number_format="Q4_1",
        model=1,
        draft=draft,
    )
    assert (found.devices, found.variant) == expected
    assert (found.strategy, found.flavour) == ("layer_split", "llama.cpp")


# --- how right predictions were -------------------------------------------------------------------
def test_errors_are_of_the_nearest_runs_that_were_predicted() -> None:
    past = Past(
        [
            run(SPLIT, 1.0, predicted=12.0),
            run(SPLIT, 1.0, predicted=9.0),
            run(SPLIT, 1.0, predicted=11.0),
            run(SPLIT, 1.0),
            run(OTHER_MODEL, 1.0, predicted=40.0),
        ]
    )
    found = past.errors(SPLIT, Rate.DECODE)
    assert found and found.runs == 3
    assert (found.median, found.low, found.high) == pytest.approx((0.1, -0.1, 0.2))
    assert past.errors(SPLIT, Rate.PREFILL) is None
    assert past.errors(ALONE, Rate.DECODE) is None


BY = Correction(1.2, 1.1, 1.3, 2, 14, Alike.MODEL)


@pytest.mark.parametrize(
    ("by", "text"),
    [
        (None, COMPUTED),
        (
            BY,
            "predicted, corrected by 2 benchmarks and 14 answers with this model",
        ),
        (
            replace(BY, benchmarks=1, answers=0, alike=Alike.FORMAT),
            "predicted, corrected by 1 benchmark with models of this number format",
        ),
        (
            replace(
                BY,
                benchmarks=0,
                answers=1,
                alike=Alike.DEVICES,
                devices=("RPC0",),
            ),
            "predicted, corrected by 1 answer on RPC0 alone",
        ),
        (
            replace(BY, alike=Alike.DEVICES, devices=("RPC0", "RPC1", "CPU")),
            "predicted, corrected by 2 benchmarks and 14 answers on RPC0, RPC1 and CPU alone,"
            " each",
        ),
    ],
)
def test_what_a_prediction_rests_on_is_said(by: Correction | None, text: str) -> None:
    assert source_text(by) == text


def test_answers_and_prompts_may_rest_on_something_else() -> None:
    assert basis_text(Predicted()) == f"Speeds of one request alone, {COMPUTED}."
    both = Predicted(basis="measured", decode_correction=BY, prefill_correction=BY)
    assert basis_text(both).endswith("14 answers with this model.")
    one = basis_text(replace(both, prefill_correction=None))
    assert "the answer's: predicted" in one and f"the prompt's: {COMPUTED}." in one
    part = basis_text(replace(both, basis="computed"))
    assert part.endswith("What other devices do of it is computed only.")


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        (None, ""),
        (
            Errors(1, 0.12, 0.12, 0.12),
            "The one prediction of X before was 12 % too fast.",
        ),
        (
            Errors(9, -0.03, -0.2, 0.004),
            "9 predictions of X before were 3 % too slow in the median, between 20 % too slow and"
            " right.",
        ),
    ],
)
def test_how_right_predictions_were_is_said(errors: Errors | None, text: str) -> None:
    assert errors_text("X", errors) == text


def test_the_record_is_of_answers_and_prompts() -> None:
    errors = Errors(1, 0.5, 0.5, 0.5)
    told = record_text(Predicted(decode_errors=errors, prefill_errors=errors))
    assert "its answers before was 50 % too fast. The one" in told
    assert record_text(Predicted()) == ""
    assert (off_text(0.0), off_text(-0.5)) == ("right", "50 % too slow")
    assert run_text(run(SPLIT, 1.0)) == "Benchmark of 40 requests"
    assert run_text(run(SPLIT, 1.0, requests=1)) == "Answer"
