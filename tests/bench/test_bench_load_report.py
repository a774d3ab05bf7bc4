"""What a report says of an open loop, and of a service level."""

from __future__ import annotations

import csv
import io

import pytest

from deployments.bench.metrics import ServiceLevel
from deployments.bench.perplexity import Written
from deployments.bench.report import SAME_PROCESSES
from deployments.bench.shape import Shape
from deployments.models import BenchmarkRun
from deployments.web.bench_answer import answer_of
from deployments.web.bench_document import read_document
from deployments.web.bench_exports import as_csv, as_markdown
from deployments.web.bench_report import Report, report_of
from deployments.web.bench_words import figure_text
from tests.bench.documents import BASE, Document, document_at_rates, document_of

LEVEL = Shape(service_level=ServiceLevel(124.0, 100.0))
COARSE = (
    Written((1, 2, 3), (-1.0, -1.0, -1.0)),
    Written((1, 2, 3), (-1.1, -1.05, -1.15)),
)
NEVER_KEPT = Shape(service_level=ServiceLevel(0.001))


def report(document: Document) -> Report:
    return report_of(
        BenchmarkRun(pk=7, scenario="chat", state="done", document=document)
    )


def markdown_of(document: Document) -> str:
    return as_markdown(document, state="done", number=7, scenario_name="chat")


# --- an open loop ---------------------------------------------------------------------------------
def test_each_rate_is_an_arm_that_says_whether_it_keeps_up() -> None:
    document = document_at_rates()
    arms = [
        (arm["deployment"], arm["rate"], arm["concurrency"], arm["saturation"]["state"])
        for arm in document["arms"]
    ]
    assert arms == [
        ("base", 0.1, None, "not_saturated"),
        ("spec", 0.1, None, "not_saturated"),
        ("base", 0.5, None, "overloaded"),
        ("spec", 0.5, None, "overloaded"),
    ]
    told = " ".join(document["notes"])
    assert "base at 0.1 requests/s: not saturated" in told
    assert "base at 0.5 requests/s: overloaded, the queue grows" in told

    found = report(document)
    rows = [(row.label.detail, row.keeps_up) for row in found.arms.rows]
    assert rows[0] == ("0.1 requests/s", "not saturated")
    assert rows[2] == ("0.5 requests/s", "overloaded")
    assert [row.is_overloaded for row in found.arms.rows] == [False, False, True, True]


def test_arms_are_compared_at_the_same_rate_and_not_by_what_was_asked_of_them() -> None:
    document = document_at_rates()
    assert {row["rate"] for row in document["comparisons"]} == {0.1, 0.5}
    assert "total_tps" not in {row["metric"] for row in document["comparisons"]}
    said = " ".join(answer_of(read_document(document)).sentences)
    assert "At 0.1 requests/s: spec is best" in said
    assert "At 0.5 requests/s: " in said
    assert "spec against base at 0.1 requests/s" in document["answer"]


def test_latency_against_throughput_leads_from_rate_to_rate() -> None:
    found = report(document_at_rates())
    assert {chart.loads for chart in found.planes} == {"requests a second"}
    for series in found.series:
        assert [point.load for point in series.points] == [0.1, 0.5]


def test_rates_stand_in_every_export() -> None:
    document = document_at_rates()
    rows = list(csv.DictReader(io.StringIO(as_csv(document))))
    assert {row["rate"] for row in rows} == {"0.1", "0.5"}
    assert {row["concurrency"] for row in rows} == {""}
    said = markdown_of(document)
    assert "0.5 requests/s" in said and "not saturated" in said


def test_users_who_wait_have_neither_rate_nor_state() -> None:
    document = document_of()
    assert {arm["rate"] for arm in document["arms"]} == {None}
    assert {arm["saturation"] for arm in document["arms"]} == {None}
    assert {row.keeps_up for row in report(document).arms.rows} == {""}


def test_users_who_think_say_how_long() -> None:
    found = report(document_of(shape=Shape(think_s=2.0)))
    assert ("Think time", "2 s") in found.facts
    assert "Think time" not in dict(report(document_of()).facts)


# --- link traffic ---------------------------------------------------------------------------------
def test_link_traffic_is_a_cost_where_a_card_tells_it() -> None:
    watched, alone = document_of(watched=True), document_of()
    assert watched["arms"][0]["link_gbps"] == pytest.approx(1.25)
    assert {arm["link_gbps"] for arm in alone["arms"]} == {None}
    cell = report(watched).costs.rows[0].cells[-1]
    assert (cell.metric.name, cell.text) == ("link_gbps", "1.25 GB/s")
    assert report(alone).costs.rows[0].cells[-1].text == "N/A"
    assert figure_text("link_gbps", 0.0123) == "12.3 MB/s"


# --- a few per cent -------------------------------------------------------------------------------
def test_processes_that_were_never_started_again_may_differ_by_themselves() -> None:
    assert SAME_PROCESSES in document_of(same_processes=True)["notes"]
    assert SAME_PROCESSES not in document_of()["notes"]
    alone = document_of((BASE,), same_processes=True)
    assert SAME_PROCESSES not in alone["notes"]


# --- perplexity -----------------------------------------------------------------------------------
def test_perplexity_stands_beside_the_answers_with_its_change() -> None:
    made = document_of(written={"base": COARSE[0], "spec": COARSE[1]})
    base, spec = report(made).quality
    assert (base.perplexity, base.perplexity_note) == ("2.72", "")
    assert spec.perplexity == "3" and spec.perplexity_note.startswith("+10.5 % (")
    said = markdown_of(made)
    assert "Perplexity of a fixed text" in said and "+10.5 %" in said


def test_perplexity_that_is_not_known_says_why_and_one_not_asked_for_is_not_shown() -> (
    None
):
    drafts = Written(why="Its engine drafts.")
    _, spec = report(document_of(written={"base": COARSE[0], "spec": drafts})).quality
    assert (spec.perplexity, spec.perplexity_note) == ("N/A", "Its engine drafts.")
    (alone,) = report(document_of()).quality
    assert alone.perplexity == ""
    assert "Perplexity" not in markdown_of(document_of())


# --- a service level ------------------------------------------------------------------------------
def test_goodput_counts_what_kept_to_the_level_and_says_what_it_was() -> None:
    document = document_of(shape=LEVEL)
    base = document["arms"][0]
    kept = sum(
        row["kept_level"] for row in document["requests"] if row["deployment"] == "base"
    )
    assert 0 < base["kept_level"] == kept < base["requests"]
    assert 0 < base["goodput"] < 1
    limits = {"first_token_ms": 124.0, "time_per_output_token_ms": 100.0}
    assert document["service_level"] == limits

    found = report(document)
    (cell,) = [c for c in found.arms.rows[0].cells if c.metric.name == "goodput"]
    assert cell.note == f"{kept} of {base['requests']} kept to it"
    (explained,) = [e for e in found.explained if e.metric.name == "goodput"]
    level = "first token within 124 ms, each output token within 100 ms"
    assert explained.metric.explanation.endswith(f"Here: {level}.")
    assert ("Service level", level) in found.facts
    assert level in markdown_of(document)
    rows = list(csv.DictReader(io.StringIO(as_csv(document))))
    assert {row["kept_level"] for row in rows} == {"True", "False"}


def test_nothing_that_kept_to_the_level_is_nought_and_not_unknown() -> None:
    document = document_of(shape=NEVER_KEPT)
    assert [arm["goodput"] for arm in document["arms"]] == [0.0, 0.0]
    (cell,) = [
        c for c in report(document).arms.rows[0].cells if c.metric.name == "goodput"
    ]
    assert cell.text == "0"


def test_without_a_level_there_is_no_goodput() -> None:
    document = document_of()
    assert document["service_level"] is None
    assert {arm["goodput"] for arm in document["arms"]} == {None}
    columns = [metric.name for metric in report(document).arms.columns]
    assert "goodput" not in columns
