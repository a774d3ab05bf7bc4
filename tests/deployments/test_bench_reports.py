"""A benchmark's report on its page, as files, and beside another: who sees what."""

from __future__ import annotations

import copy
import csv
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from deployments.bench.metrics import METRICS
from deployments.models import BenchmarkRun
from deployments.services.discovery import local_host
from tests.bench.documents import (
    BASE,
    SPEC,
    SPLIT,
    Document,
    document_of,
    mixed_document,
)
from tests.helpers import squeezed

HOSTILE = "\"'><img src=x onerror=boom()><script>boom()</script>{{7*7}}\u202egnp"
RAW = ("<img src=x", "<script>boom", "onerror=boom()>")
Make = Callable[..., BenchmarkRun]


@pytest.fixture
def make_run(db: None) -> Make:
    def make(document: Document | None, **changes: Any) -> BenchmarkRun:
        values: dict[str, Any] = {
            "scenario": "chat",
            "names": ["base", "spec"],
            "concurrency": [1],
            "most_rounds": 12,
            "gateway": "http://127.0.0.1:1",
            "state": BenchmarkRun.State.DONE,
            "document": document,
        }
        return BenchmarkRun.objects.create(host=local_host(), **(values | changes))

    return make


@pytest.fixture(scope="module")
def whole() -> Document:
    return document_of((BASE, SPEC), (1, 4), watched=True, quality=True)


def page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return squeezed(answer.content.decode())


def text_of(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", markup))


# --- who sees it ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "/benchmarks/{}/export.json",
        "/benchmarks/{}/export.csv",
        "/benchmarks/{}/export.md",
        "/benchmarks/compared/?a={}&b={}",
    ],
)
def test_whoever_is_logged_in_may_look_and_nobody_else(
    make_run: Make, whole: Document, viewer: Client, anonymous: Client, path: str
) -> None:
    number = make_run(whole).pk
    path = path.format(number, number)
    assert viewer.get(path).status_code == 200
    assert viewer.post(path).status_code == 405
    answer = anonymous.get(path)
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")


# --- the report -----------------------------------------------------------------------------------
def test_a_report_shows_its_answer_first(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    text = page(viewer, f"/benchmarks/{make_run(whole).pk}/")
    said = text_of(text)
    assert said.index("spec is best") < said.index("Gain against")
    for part in (
        "What was measured", "Answers", "Latency against throughput", "How answers spread",
        "Predicted beside measured", "Cost", "All figures", "Environment",
    ):  # fmt: skip
        assert f">{part}</" in text, part
    # Each figure is explained where it is named: what a button opens is there, once.
    wanted = set(re.findall(r'popovertarget="(about-[\w-]+)"', text))
    assert len(wanted) > 10
    assert wanted <= set(
        re.findall(r'<div class="about-text" popover id="([\w-]+)"', text)
    )
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "style=" not in text and "None" not in said


def test_a_verdict_is_a_word_and_a_shape(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    text = page(viewer, f"/benchmarks/{make_run(whole).pk}/")
    told = re.findall(r'class="speed-verdict" data-verdict="(\w+)">(.*?)</span>', text)
    assert {verdict for verdict, _ in told} >= {"faster", "undecided"}
    for verdict, inside in told:
        assert f'class="shape" data-verdict="{verdict}"' in inside
        assert verdict.replace("_", " ") in text_of(inside)


def test_a_disturbed_run_says_so_at_the_top(make_run: Make, viewer: Client) -> None:
    run = make_run(document_of(warnings=["CUDA0 was throttled."]))
    text = page(viewer, f"/benchmarks/{run.pk}/")
    said = text_of(text)
    assert said.index("no verdict is given") < said.index("Gain against")
    assert "CUDA0 was throttled." in said
    assert 'data-verdict="faster"' not in text


@pytest.mark.parametrize(
    "document",
    [
        document_of(rounds=2, judged=False),
        document_of((BASE,)),
        mixed_document(),
        document_of(
            [replace(SPLIT, name=f"{'long-' * 11}{n}") for n in range(12)],
            (1, 4, 16),
            rounds=1,
        ),
    ],
    ids=["partial", "one arm", "mixed", "twelve"],
)
@pytest.mark.parametrize("state", ["running", "cancelled", "failed", "done"])
def test_every_state_has_a_page(
    make_run: Make, viewer: Client, document: Document, state: str
) -> None:
    run = make_run(document, state=state)
    text = page(viewer, f"/benchmarks/{run.pk}/")
    assert "Answer" in text and "None" not in text_of(text)


# --- files ----------------------------------------------------------------------------------------
def test_a_report_is_taken_along(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    run = make_run(whole)
    kinds = {}
    for kind in ("json", "csv", "md"):
        answer = viewer.get(f"/benchmarks/{run.pk}/export.{kind}")
        name = f'attachment; filename="benchmark-{run.pk}-chat.{kind}"'
        assert answer["Content-Disposition"] == name
        assert answer["X-Content-Type-Options"] == "nosniff"
        kinds[kind] = (answer["Content-Type"], answer.content.decode())
    assert kinds["json"][0] == "application/json; charset=utf-8"
    assert json.loads(kinds["json"][1]) == whole
    assert kinds["csv"][0] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(kinds["csv"][1])))
    assert len(rows) == 1 + len(whole["requests"])
    assert kinds["md"][0] == "text/markdown; charset=utf-8"
    assert kinds["md"][1].startswith(f"# Benchmark {run.pk}: Single-user chat")


def test_there_is_no_file_of_what_is_not_there(make_run: Make, viewer: Client) -> None:
    run = make_run(None, state="running")
    answer = viewer.get(f"/benchmarks/{run.pk}/export.json")
    assert answer.status_code == 400 and "nothing yet" in answer.content.decode()
    assert viewer.get(f"/benchmarks/{run.pk}/export.exe").status_code == 404
    for number in (987654, 10**30):
        answer = viewer.get(f"/benchmarks/{number}/export.json")
        assert answer.status_code in (400, 404)
        assert "There is no benchmark" in answer.content.decode()


# --- two of them ----------------------------------------------------------------------------------
def test_two_runs_stand_beside_each_other(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    other = copy.deepcopy(whole)
    other["environment"]["deployments"]["spec"]["build"] = "b7100"
    before, after = make_run(whole), make_run(other)
    said = text_of(page(viewer, f"/benchmarks/compared/?a={before.pk}&b={after.pk}"))
    assert "No verdict is given" in said and "not in turn" in said
    assert "b7100" in said and "scenarios differ" not in said
    assert "faster" not in said.split("What changed")[1]


def test_other_scenarios_are_said_to_be_other(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    other = make_run(whole | {"scenario": "code_edit"}, scenario="code_edit")
    said = text_of(
        page(viewer, f"/benchmarks/compared/?a={make_run(whole).pk}&b={other.pk}")
    )
    assert "The scenarios differ" in said and "Single-user chat" in said


def test_without_a_choice_there_is_a_form(
    make_run: Make, whole: Document, viewer: Client
) -> None:
    run, empty = make_run(whole), make_run(None)
    text = page(viewer, f"/benchmarks/compared/?a={run.pk}")
    assert re.search(rf'value="{run.pk}" selected', text)
    assert f'value="{empty.pk}"' not in text and "changed-title" not in text


@pytest.mark.parametrize("asked", ["987654", "x", "-1", "1e3", "9" * 40, "<img src=x>"])
def test_a_run_that_is_not_there_is_refused(
    make_run: Make, whole: Document, viewer: Client, asked: str
) -> None:
    run = make_run(whole)
    answer = viewer.get("/benchmarks/compared/", {"a": run.pk, "b": asked})
    assert answer.status_code in (400, 404)
    assert "There is no benchmark" in answer.content.decode()
    assert "<img src=x" not in answer.content.decode()


# --- names of others ------------------------------------------------------------------------------
def hostile(document: Any) -> Any:
    """Every text of it says the same, but for the words that Omni itself chose."""
    kept = {
        "alone",
        "together",
        "done",
        "cut",
        "failed",
        "faster",
        "slower",
        "",
        *METRICS,
    }
    if isinstance(document, dict):
        return {key: hostile(value) for key, value in document.items()}
    if isinstance(document, list):
        return [hostile(value) for value in document]
    if isinstance(document, str) and document not in kept:
        return HOSTILE
    return document


@pytest.mark.parametrize("make", [document_of, mixed_document])
def test_texts_of_others_are_text_everywhere(
    make_run: Make, viewer: Client, make: Callable[[], Document]
) -> None:
    made = hostile(make())
    made["warnings"], made["notes"] = [HOSTILE], [HOSTILE]
    made["environment"]["deployments"] = {
        HOSTILE: made["environment"]["deployments"]["base"]
        | {"settings": {HOSTILE: HOSTILE}}
    }
    made["environment"]["conditions"] = {HOSTILE: [HOSTILE]}
    for arm in made["arms"]:
        arm["problems"] = {HOSTILE: {HOSTILE: 2}}
    run = make_run(made, scenario=HOSTILE[:120], names=[HOSTILE])
    for path in (
        f"/benchmarks/{run.pk}/",
        f"/benchmarks/compared/?a={run.pk}&b={run.pk}",
    ):
        text = viewer.get(path).content.decode()
        assert [raw for raw in RAW if raw in text] == []
        assert "\u202e" not in text.partition('class="report')[2]
        assert "{{7*7}}" in text
    said = viewer.get(f"/benchmarks/{run.pk}/export.md")
    assert "\u202e" not in said.content.decode()
    name = said["Content-Disposition"]
    assert re.fullmatch(r'attachment; filename="benchmark-\d+[\w-]*\.md"', name)
    assert viewer.get(f"/benchmarks/{run.pk}/export.csv").status_code == 200
