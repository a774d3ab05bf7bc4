"""The report of a benchmark: what it says of documents of every kind."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.bench.comparisons import SpeedVerdict
from deployments.bench.metrics import METRICS
from deployments.models import BenchmarkRun
from deployments.web.bench_answer import answer_of
from deployments.web.bench_document import read_document
from deployments.web.bench_plots import error_text, foretold
from deployments.web.bench_report import Report, report_of, stage_of
from deployments.web.bench_values import (
    Measurements,
    metric_of,
)
from deployments.web.bench_words import (
    change_text,
    figure_text,
    flat,
    interval_text,
    listed,
    range_text,
    seen,
)
from tests.bench.documents import (
    BASE,
    SPEC,
    SPLIT,
    Document,
    Made,
    conditions,
    document_of,
    mixed_document,
)

TWINS = (BASE, replace(BASE, name="twin", jitter=0.004))


def report(document: Document | None, state: str = "done") -> Report:
    return report_of(
        BenchmarkRun(pk=7, scenario="chat", state=state, document=document)
    )


def answers(document: Document) -> str:
    return " ".join(answer_of(read_document(document)).sentences)


# --- the answer -----------------------------------------------------------------------------------
def test_the_best_is_named_with_its_gain_and_interval() -> None:
    document = document_of()
    (row,) = [r for r in document["comparisons"] if r["metric"] == "output_tps"]
    said = answers(document)
    assert said.startswith("spec is best: output speed of one answer +")
    assert change_text(row["change_percent"]) in said and "against base" in said
    assert interval_text(row["low_percent"], row["high_percent"]) in said
    assert report(document).answer.kind == "decided"


def test_each_number_of_users_has_its_own_answer() -> None:
    said = answer_of(read_document(document_of((BASE, SPEC), (1, 4)))).sentences
    assert [one.split(":")[0] for one in said] == [
        "With 1 user at once",
        "With 4 users at once",
    ]


def test_the_best_is_not_said_to_be_best_in_everything() -> None:
    slow_start = replace(SPEC, first_ms=400)
    assert "Slower on it: time to first token +" in answers(
        document_of((BASE, slow_start))
    )


def test_several_that_are_faster_were_not_compared_with_each_other() -> None:
    fast = [replace(SPEC, name=f"fast{n}", token_ms=20 + n) for n in range(3)]
    said = answers(document_of((BASE, *fast)))
    assert said.startswith("fast0 is best") and "fast1 and fast2 are faster" in said
    assert "nothing was compared" in said


def test_with_many_deployments_the_answer_stays_short() -> None:
    fast = [replace(SPEC, name=f"fast{n}", token_ms=20 + n) for n in range(11)]
    said = answers(document_of((BASE, *fast)))
    assert "10 others are faster" in said and "fast5" not in said
    slow = [replace(BASE, name=f"slow{n}", token_ms=60 + n) for n in range(11)]
    said = answers(document_of((BASE, *slow)))
    assert said.startswith("base is best") and "8 more" in said and len(said) < 300


def test_a_faster_one_that_says_something_else_is_seen_to() -> None:
    said = answers(document_of(quality=True))
    assert said.endswith("spec answers otherwise than the baseline in 2 of 32 prompts.")


def test_what_is_slower_is_not_told_as_undecided() -> None:
    crawling = replace(SPLIT, name="crawling", token_ms=60)
    document = document_of((BASE, SPLIT, crawling))
    for row in document["comparisons"]:
        is_split = row["deployment"] == SPLIT.name
        row["verdict"] = "undecided" if is_split else "slower"
    said = answers(document)
    decided, undecided = said.index("Not faster than base"), said.index("Undecided")
    assert decided < said.index("crawling") < undecided < said.index(f"{SPLIT.name} ")


@pytest.mark.parametrize(
    ("made", "rounds", "begins"),
    [
        ((BASE, SPLIT), 3, "Undecided against base: "),
        ((BASE, replace(SPLIT, token_ms=60)), 8, "base is best, nothing else"),
        (TWINS, 12, "No difference that anybody notices against base: "),
    ],
)
def test_no_gain_is_said_as_it_is(
    made: tuple[Made, ...], rounds: int, begins: str
) -> None:
    if made == TWINS:
        document = document_of(made, rounds=rounds)
        for row in document["comparisons"]:
            row |= {
                "low_percent": -1.0,
                "high_percent": 1.0,
                "verdict": "no_difference",
            }
    else:
        document = document_of(made, rounds=rounds)
    assert answers(document).startswith(begins)


def test_a_disturbed_run_gives_no_verdict() -> None:
    found = report(document_of(warnings=["CUDA0 was throttled."]))
    assert found.answer.kind == "disturbed"
    assert found.answer.sentences == ("No verdict is given: the run was disturbed.",)
    assert "CUDA0 was throttled." in found.warnings
    rows = [row for forest in found.forests for row in forest.rows]
    assert rows and {row.word for row in rows} == {"undecided"}


def test_one_deployment_is_compared_with_nothing() -> None:
    found = report(document_of((BASE,)))
    assert found.answer.sentences[0].startswith("One deployment was measured")
    assert "base writes" in found.answer.sentences[1]
    assert (found.forests, found.beside, found.planes) == ((), (), ())
    assert len(found.arms.rows) == 1 and found.spreads


def test_a_cold_start_is_answered_by_the_time_to_ready() -> None:
    document = document_of()
    (row,) = [r for r in document["comparisons"] if r["metric"] == "first_token_ms"]
    document["comparisons"].append(
        row | {"metric": "start_ms", "change_percent": -20.0, "low_percent": -25.0,
               "high_percent": -15.0, "verdict": "faster"}
    )  # fmt: skip
    for arm in document["arms"]:
        arm["start_ms"] = {"p50": 8200.0, "p95": 9000.0, "low": 8000.0, "high": 8400.0}
    for request in document["requests"]:
        request["start_ms"] = 8200.0
    found = report(document)
    assert "time to start −20.0 %" in found.answer.sentences[0]
    assert found.forests[0].metric.name == "start_ms"
    assert any(chart.metric.name == "start_ms" for chart in found.spreads)
    assert any(c.text == "8.2 s" for row in found.arms.rows for c in row.cells)


# --- states ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("document", [None, {}])
def test_a_run_without_figures_has_an_empty_report(document: Document | None) -> None:
    found = report(document, "running")
    assert found.is_empty and found.answer.sentences == ("Nothing is measured yet.",)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "In progress: 3 of at most 12 rounds in 1 min 21 s."),
        ("cancelled", "Cancelled: 3 of at most 12 rounds were measured in 1 min 21 s."),
        ("failed", "Failed: 3 of at most 12 rounds were measured in 1 min 21 s."),
        ("done", "3 rounds in 1 min 21 s: the budget is used up."),
    ],
)
def test_how_far_it_came_is_said(state: str, said: str) -> None:
    document = document_of(rounds=3)
    assert report(document, state).stage == said
    assert stage_of(state, read_document(document)) == said


def test_before_it_is_judged_nothing_is_compared() -> None:
    found = report(document_of(rounds=3, judged=False), "running")
    assert found.answer.sentences[0].startswith("Nothing is compared yet")
    assert found.forests == () and len(found.arms.rows) == 2 and found.spreads


def test_too_few_rounds_give_points_without_intervals() -> None:
    found = report(document_of(rounds=3), "running")
    (row,) = found.forests[0].rows
    assert row.interval.low is None and row.interval.at is not None
    assert (row.between, row.word, row.rounds) == ("", "undecided", 3)


# --- arms -----------------------------------------------------------------------------------------
def test_an_arm_shows_what_was_measured() -> None:
    document = document_of(watched=True)
    found = report(document)
    base, spec = found.arms.rows
    assert (base.label.letter, spec.label.letter) == ("A", "B")
    assert (base.strategy, spec.strategy) == ("Independent", "Speculative decoding")
    by_name = {cell.metric.name: cell for cell in spec.cells}
    figure = document["arms"][1]["first_token_ms"]
    assert by_name["first_token_ms"].text == figure_text(
        "first_token_ms", figure["p50"]
    )
    assert by_name["first_token_ms"].note.startswith("p95 ")
    assert by_name["acceptance"].text == "70 %"
    assert by_name["acceptance"].note.endswith("tokens a step")
    assert by_name["peak_memory_bytes"].text == "21 GiB"
    assert spec.tokens_out == f"{document['arms'][1]['tokens_out']:,}"


def test_what_nobody_measured_has_no_column_and_a_reason() -> None:
    found = report(document_of())
    names = [metric.name for metric in found.arms.columns]
    assert "joules_per_token" not in names and "acceptance" in names
    assert found.costs.is_unknown and "Nobody watched" in found.costs.why_unknown
    watched = report(document_of(watched=True))
    assert watched.costs.why_unknown == "" and not watched.costs.is_unknown


def test_errors_are_counted_with_their_reasons() -> None:
    document = document_of((replace(BASE, failing=0.4), SPEC))
    (row, _) = report(document).arms.rows
    assert row.errors == document["arms"][0]["errors"] > 0
    assert any("refused 503" in problem for problem in row.problems)
    assert any("context full" in problem for problem in row.problems)


def test_everything_unknown_reads_na() -> None:
    document = document_of()
    for arm in document["arms"]:
        for name, value in arm.items():
            if isinstance(value, dict) and "p50" in value:
                arm[name] = dict.fromkeys(value) | {"outliers": []}
            elif name in METRICS or name in ("tokens_out", "quality"):
                arm[name] = None
    for row in document["comparisons"]:
        row |= dict.fromkeys(("change_percent", "low_percent", "high_percent"))
    document["requests"] = []
    found = report(document)
    assert {cell.text for row in found.arms.rows for cell in row.cells} == {"N/A"}
    assert (found.spreads, found.figures, found.quality) == ((), (), ())
    assert all(row.interval.at is None for row in found.forests[0].rows)


# --- charts ---------------------------------------------------------------------------------------
def test_gains_are_ordered_by_what_answers() -> None:
    found = report(document_of((BASE, SPEC, SPLIT), (1, 4)))
    assert found.forests[0].metric.name == "output_tps"
    assert {forest.metric.name for forest in found.forests} == {
        "first_token_ms", "time_per_output_token_ms", "output_tps", "e2e_ms", "total_tps",
    }  # fmt: skip
    # Twenty rows: only the first chart is open.
    assert [forest.is_open for forest in found.forests] == [True, *4 * [False]]
    assert all(len(forest.rows) == 4 for forest in found.forests)


def test_the_better_side_is_the_right_one() -> None:
    found = report(document_of())
    for forest in found.forests:
        (row,) = forest.rows
        assert row.interval.at is not None
        if row.word == "faster":
            assert row.interval.at > forest.band + forest.band_width
    assert {forest.zero for forest in found.forests} == {found.forests[0].zero}


def test_outliers_are_named_by_their_request() -> None:
    document = document_of()
    figure = document["arms"][0]["first_token_ms"]
    request = document["requests"][0]
    figure["outliers"] = [
        {"block": 0, "request": 0, "value": request["first_token_ms"]}
    ]
    (chart, _) = report(document).spreads
    assert chart.metric.name == "first_token_ms"
    (named,) = chart.rows[0].named
    assert named.endswith(f"{request['prompt']} in round 1")
    assert [mark.words for mark in chart.rows[0].spread.outliers] == [named]


def test_latency_against_throughput_needs_several_numbers_of_users() -> None:
    assert report(document_of()).planes == ()
    found = report(document_of((BASE, SPEC), (1, 4, 16)))
    assert [chart.metric.name for chart in found.planes] == [
        "first_token_ms",
        "time_per_output_token_ms",
    ]
    for series in found.series:
        assert [point.load for point in series.points] == [1, 4, 16]
        assert series.points[0].x < series.points[-1].x
    assert "16 users" in found.series[0].points[-1].words


def test_twelve_deployments_with_three_numbers_of_users_stay_readable() -> None:
    made = [replace(SPEC, name=f"{'long-' * 9}{n}", token_ms=30 + n) for n in range(12)]
    found = report(document_of(made, (1, 4, 16), rounds=6))
    assert len(found.arms.rows) == 36 and found.arms.is_long
    assert sum(forest.is_open for forest in found.forests) == 1
    assert not any(chart.is_open for chart in found.spreads)
    assert len({(s.letter, s.colour) for s in found.series}) == 12


# --- predicted beside measured --------------------------------------------------------------------
def test_errors_of_predictions_are_in_per_cent_of_what_was_measured() -> None:
    document = document_of((BASE, SPEC), (4, 1))
    for arm in document["arms"]:
        arm["predicted"] = {"prefill_tps": None, "decode_tps": 60.0}
        arm["decode_tps"]["p50"] = 40.0 if arm["concurrency"] == 1 else 1.0
        arm["prefill_tps"]["p50"] = None
    pairs = foretold(read_document(document))
    # Of the fewest users: a prediction is of one request alone.
    assert [
        (p.key.deployment, p.key.users, p.metric, p.error_percent) for p in pairs
    ] == [
        ("base", 1, "decode_tps", 50.0),
        ("spec", 1, "decode_tps", 50.0),
    ]
    found = report(document).predictions
    assert found is not None and {row.error for row in found.rows} == {"50 % too high"}


@pytest.mark.parametrize(
    ("percent", "said"),
    [(None, "N/A"), (0.3, "as measured"), (12.4, "12 % too high"), (-8, "8 % too low")],
)
def test_an_error_is_said_in_words(percent: float | None, said: str) -> None:
    assert error_text(percent) == said


def test_an_engine_without_a_clock_is_measured_from_outside() -> None:
    document = document_of((BASE,))
    (arm,) = document["arms"]
    arm["decode_tps"] = None
    pairs = {pair.metric: pair for pair in foretold(read_document(document))}
    assert pairs["decode_tps"].measured == arm["output_tps"]["p50"]


def test_without_predictions_there_is_no_table_of_them() -> None:
    document = document_of((BASE, SPEC))
    for arm in document["arms"]:
        arm["predicted"] = {"prefill_tps": None, "decode_tps": None}
    assert report(document).predictions is None


# --- several at the same time ---------------------------------------------------------------------
def test_each_deployment_stands_alone_beside_together() -> None:
    document = mixed_document()
    found = report(document)
    assert [one.label.name for one in found.beside] == ["base", "spec"]
    rows = {row.metric.name: row for row in found.beside[0].rows}
    speed = rows["output_tps"]
    assert (speed.verdict, speed.word) == ("slower", "slower")
    alone, together = (float(text.split()[0]) for text in (speed.alone, speed.together))
    assert together < 0.8 * alone
    assert found.answer.sentences[0].startswith(
        "base is slower while the others are busy"
    )
    assert {row.label.detail for row in found.arms.rows} == {"alone", "together"}


# --- quality, environment, explanations -----------------------------------------------------------
def test_answers_that_are_not_the_same_are_shown() -> None:
    base, spec = report(document_of(quality=True)).quality
    assert (base.same_percent, base.right) == ("baseline", "32 of 32")
    assert (spec.same_percent, spec.same, spec.right) == (
        "94 %",
        "30 of 32",
        "30 of 32",
    )
    assert spec.where == "chat/007, word 1"


def test_without_known_answers_the_baseline_has_nothing_to_show() -> None:
    (spec,) = report(document_of()).quality
    assert (spec.same, spec.where, spec.right) == ("32 of 32", "none", "N/A")
    assert report(document_of((BASE,))).quality == ()


def test_the_environment_is_whole() -> None:
    found = report(document_of(watched=True))
    facts = dict(found.setups[0].facts)
    assert facts["Model (model)"] == "smollm2-135m, fingerprint 9f0c2d77aa"
    assert facts["Settings"] == "context 4096, threads 2"
    assert facts["Extra flags"] == "--no-warmup" and facts["Devices"] == "CUDA0"
    assert ("driver", "580.65") in found.conditions
    assert ("cards › RTX 5090 › temperature celsius", "54, 71") in found.conditions
    assert dict(found.facts)["Host"] == "testhost"


def test_every_figure_on_the_page_is_explained() -> None:
    for document in (document_of(watched=True), document_of((BASE, SPEC), (1, 4))):
        found = report(document)
        known = {one.metric.name for one in found.explained}
        shown = {metric.name for metric in (*found.arms.columns, *found.costs.columns)}
        shown |= {forest.metric.name for forest in found.forests}
        shown |= {table.metric.name for table in found.figures}
        shown |= {chart.metric.name for chart in (*found.planes, *found.spreads)}
        assert shown <= known
        assert all(one.metric.explanation.endswith(".") for one in found.explained)


def test_a_metric_that_nobody_knows_goes_by_its_name() -> None:
    assert metric_of("queue_depth").title == "queue depth"
    document = document_of()
    document["arms"][0]["queue_depth"] = {"p50": 3.0, "p95": 4.0}
    assert any(t.metric.title == "queue depth" for t in report(document).figures)


# --- whatever a document says ---------------------------------------------------------------------
WHOLE = document_of((BASE, SPEC), (1, 4), rounds=6, watched=True, quality=True)
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    math.nan,
    "",
    "<b>x",
    [],
    [1, "a"],
    {},
    {"p50": "x"},
]


def places_in(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands; of long lists only the first entries."""
    items: list[tuple[Any, Any]] = []
    if isinstance(found, dict):
        items = list(found.items())
    elif isinstance(found, list):
        items = list(enumerate(found[:2]))
    inner = [place for key, value in items for place in places_in(value, (*path, key))]
    return [*([path] if path else []), *inner]


PLACES = places_in(WHOLE)


@settings(max_examples=120)
@given(st.data())
def test_no_document_makes_a_report_fail(data: st.DataObject) -> None:
    document = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        *way, last = data.draw(st.sampled_from(PLACES))
        inside = document
        try:
            for key in way:
                inside = inside[key]
            inside[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        except (KeyError, IndexError, TypeError):
            continue
    found = report(json.loads(json.dumps(document)))
    assert found.answer.sentences
    assert all(forest.metric.name.isidentifier() for forest in found.forests)


def test_what_is_less_than_nought_was_not_measured() -> None:
    document = copy.deepcopy(WHOLE)
    figure = document["arms"][1]["first_token_ms"]
    figure["p50"] = -1
    figure["outliers"] = [{"block": 0, "index": 0, "value": -5.0}]
    found = report(document)
    arm = read_document(document).arms[1]
    assert arm.figure("first_token_ms").p50 is None
    assert arm.figure("first_token_ms").outliers == ()
    assert found.answer.sentences


def test_a_document_is_read_as_it_was_written() -> None:
    found: Measurements = read_document(WHOLE)
    assert found.names == ("base", "spec") and len(found.arms) == 4
    assert len(found.requests) == len(WHOLE["requests"])
    assert len(found.differences) == len(WHOLE["comparisons"])
    assert {row.verdict for row in found.differences} <= set(SpeedVerdict)
    assert found.conditions == conditions()


# --- words ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("first_token_ms", 121.4, "121 ms"),
        ("e2e_ms", 3600.0, "3.6 s"),
        ("output_tps", 24.56, "24.6 tokens/s"),
        ("acceptance", 0.698, "70 %"),
        ("joules_per_token", 14.2, "14.2 J"),
        ("mean_watts", 411.7, "412 W"),
        ("peak_memory_bytes", 21 << 30, "21 GiB"),
        ("output_tps", None, "N/A"),
    ],
)
def test_a_figure_has_its_unit(metric: str, value: float | None, said: str) -> None:
    assert figure_text(metric, value) == said


@pytest.mark.parametrize(
    ("percent", "said"),
    [
        (12.34, "+12.3 %"),
        (-8.0, "−8.0 %"),
        (312.4, "+312 %"),
        (-0.02, "0.0 %"),
        (None, "N/A"),
    ],
)
def test_a_change_has_its_sign(percent: float | None, said: str) -> None:
    assert change_text(percent) == said


def test_a_range_says_its_unit_once() -> None:
    assert range_text("first_token_ms", 118.0, 135.0) == "118 to 135 ms"
    assert range_text("first_token_ms", 980.0, 1200.0) == "980 ms to 1.2 s"
    assert range_text("output_tps", 22.8, 23.6) == "22.8 to 23.6"
    assert range_text("output_tps", None, 23.6) == ""


def test_words_are_listed_as_people_do() -> None:
    assert [listed(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_marks_that_turn_text_around_become_visible() -> None:
    assert seen("a\u202eb\nc\x00d") == "a[U+202E]b c d"
    assert seen("Grüße, 世界") == "Grüße, 世界"


def test_nested_facts_become_lines() -> None:
    found = {"cards": [{"name": "A", "clocks": [1, 2]}, 3], "idle": True, "none": None}
    assert flat(found) == [
        ("cards › A › name", "A"),
        ("cards › A › clocks", "1, 2"),
        ("cards › 2", "3"),
        ("idle", "yes"),
        ("none", "N/A"),
    ]
    deep: Any = "end"
    for _ in range(300):
        deep = {"in": deep}
    assert flat(deep)[0][1] == "…"
