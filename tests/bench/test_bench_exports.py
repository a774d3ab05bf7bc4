"""A benchmark as a file, and two of them compared: whatever names and texts say."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from typing import Any

import pytest

from deployments.web.bench_compared import MISSING, change_percent, compared
from deployments.web.bench_document import read_document
from deployments.web.bench_exports import (
    CSV_COLUMNS,
    as_csv,
    as_json,
    as_markdown,
    code,
    guarded,
    plain,
    table,
)
from deployments.web.bench_values import (
    OF_A_REQUEST,
)
from omni import markdown
from tests.bench.documents import BASE, SPEC, SPLIT, Document, document_of

HOSTILE = '=HYPERLINK("http://x")|`<img src=x onerror=boom()>`@ada\u202egnp'


@pytest.fixture(scope="module")
def whole() -> Document:
    return document_of((BASE, SPEC), (1, 4), watched=True, quality=True)


def markdown_of(document: Document, **changes: Any) -> str:
    said: dict[str, Any] = {"state": "done", "number": 7, "scenario_name": "chat"}
    return as_markdown(document, **(said | changes))


# --- JSON -----------------------------------------------------------------------------------------
def test_json_is_the_document(whole: Document) -> None:
    assert json.loads(as_json(whole)) == whole


# --- CSV ------------------------------------------------------------------------------------------
def test_csv_has_a_row_for_each_request(whole: Document) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(whole))))
    assert len(rows) == len(whole["requests"])
    first, told = rows[0], whole["requests"][0]
    assert tuple(first) == CSV_COLUMNS
    assert (first["deployment"], first["prompt"]) == (
        told["deployment"],
        told["prompt"],
    )
    assert float(first["first_token_ms"]) == told["first_token_ms"]
    # What is not known is empty.
    assert first["start_ms"] == ""
    assert set(OF_A_REQUEST) <= set(first)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\n=1", "＝1", "-x"]
)
def test_no_text_is_taken_for_a_formula(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("value", ["chat/7", "a=b", "", 12, -3.5, None])
def test_what_is_no_formula_stays_as_it_is(value: object) -> None:
    assert guarded(value) == value


def test_hostile_texts_stay_in_their_cell(whole: Document) -> None:
    document = copy.deepcopy(whole)
    document["requests"] = document["requests"][:2]
    document["requests"][0] |= {
        "prompt": 'x",=1\n"y', "reason": "=cmd|' /C calc'!A0", "first_token_ms": 1.5,
    }  # fmt: skip
    (first, second) = csv.DictReader(io.StringIO(as_csv(document)))
    assert first["prompt"] == 'x",=1\n"y' and first["reason"].startswith("'=cmd")
    # A number is a number.
    assert first["first_token_ms"] == "1.5"
    assert second["prompt"] == document["requests"][1]["prompt"]


# --- Markdown -------------------------------------------------------------------------------------
def test_markdown_says_what_the_page_says(whole: Document) -> None:
    said = markdown_of(whole)
    assert said.startswith("# Benchmark 7: Single-user chat\n")
    for part in (
        "Gains",
        "Measured",
        "Answers",
        "Predicted beside measured",
        "Environment",
    ):
        assert f"\n## {part}\n" in said
    assert "spec is best" in said and "faster" in said and "too high" in said
    assert "9f0c2d77aa" in said and "b7000" in said and "580.65" in said
    assert "30 of 32 (94 %)" in said


def test_tables_have_as_many_cells_in_every_row(whole: Document) -> None:
    document = copy.deepcopy(whole)
    for arm in document["arms"]:
        arm["strategy"] = HOSTILE
    for block in markdown_of(document).split("\n\n"):
        if block.startswith("|"):
            widths = {
                len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()
            }
            assert len(widths) == 1, block


def test_a_disturbed_run_says_so_first(whole: Document) -> None:
    document = document_of(warnings=["CUDA0 was throttled."])
    said = markdown_of(document)
    assert said.index("no verdict is given") < said.index("## Gains")
    assert "- CUDA0 was throttled." in said


def test_a_partial_document_is_exported_as_far_as_it_goes() -> None:
    said = markdown_of({"warnings": [], "arms": []}, state="cancelled")
    assert "Nothing is measured yet." in said and "Cancelled." in said
    assert "##" not in said
    assert as_csv({}).splitlines() == [",".join(CSV_COLUMNS)]


def test_markdown_of_others_is_text(whole: Document) -> None:
    document = copy.deepcopy(whole)
    document["warnings"] = [HOSTILE]
    document["notes"] = ["# not a heading\n- not a point"]
    setup = document["environment"]["deployments"].pop("base")
    document["environment"]["deployments"][HOSTILE] = setup | {"build": HOSTILE}
    document["environment"]["conditions"] = {HOSTILE: HOSTILE}
    for row in (*document["arms"], *document["comparisons"]):
        row["deployment"] = HOSTILE
    said = markdown_of(document, scenario_name=HOSTILE)
    assert "\u202e" not in said and "[U+202E]" in said.replace("\\", "")
    # As the panel's own renderer reads it, too.
    rendered = markdown.render(said)
    assert "<img" not in rendered and "onerror=boom()&gt;" in rendered
    # Nobody is called: the sign and the name are never one text.
    assert not re.search(r"(?<!`)@\w", re.sub(r"`[^`]*`", "`", said))
    assert "\n# not" not in said and "\n- not" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a|b", "`a|b`"), ("a`b", "`a'b`"), ("a\\|b", "`a|b`"), ("  ", ""), ("x\ny", "`x y`"),
    ],
)  # fmt: skip
def test_code_holds_what_it_is_given(text: str, said: str) -> None:
    assert code(text) == said


def test_a_pipe_in_a_cell_is_no_border() -> None:
    made = table(("a", "b"), [[code("x|y"), plain("p|q\\")]])
    assert made.splitlines()[-1] == "| `x\\|y` | p\\|q\\\\ |"
    assert table(("a",), []) == ""


# --- two of them ----------------------------------------------------------------------------------
def both(before: Document, after: Document) -> Any:
    return compared(read_document(before), read_document(after))


def test_what_was_changed_is_listed_and_nothing_else(whole: Document) -> None:
    after = copy.deepcopy(whole)
    setup = after["environment"]["deployments"]["spec"]
    setup |= {"build": "b7100", "generation": 4}
    setup["settings"] = {"threads": 2, "kv_cache_k": "q8_0"}
    setup["models"]["model"]["fingerprint"] = "0000"
    after["environment"]["conditions"]["driver"] = "590.10"
    after["environment"]["host"]["cpu"] = "Another"
    after["environment"]["swapped"] = True

    found = both(whole, after)
    changed = {
        group.title: {fact.title: (fact.before, fact.after) for fact in group.facts}
        for group in found.changed
    }
    assert changed == {
        "": {
            "CPU": ("A CPU with 2 cores", "Another"),
            "Deployments up": ("together", "one at a time"),
        },
        "spec": {
            "Build": ("b7000", "b7100"),
            "Generation": ("3", "4"),
            "Fingerprint (model)": ("9f0c2d77aa", "0000"),
            "Setting context": ("4096", MISSING),
            "Setting kv_cache_k": (MISSING, "q8_0"),
        },
        "While it ran": {"driver": ("580.65", "590.10")},
    }


def test_figures_stand_beside_each_other_without_a_verdict(whole: Document) -> None:
    after = copy.deepcopy(whole)
    for arm in after["arms"]:
        arm["output_tps"]["p50"] *= 1.1
        arm["total_tps"] = None
    found = both(whole, after)
    assert found.same_scenario and len(found.arms) == 4 and found.changed == ()
    rows = {row.metric.name: row for row in found.arms[0].figures}
    assert rows["output_tps"].change == "+10.0 %"
    assert rows["first_token_ms"].change == "0.0 %"
    assert (rows["total_tps"].after, rows["total_tps"].change) == ("N/A", "N/A")
    assert not hasattr(rows["output_tps"], "verdict")


def test_what_only_one_has_is_named() -> None:
    found = both(
        document_of((BASE, SPEC), (1, 4)),
        document_of((BASE, SPLIT), scenario="code_edit"),
    )
    assert not found.same_scenario
    assert [arm.label.name for arm in found.arms] == ["base"]
    assert found.only_before == ("spec, 1 user", "base, 4 users", "spec, 4 users")
    assert found.only_after == ("split, 1 user",)


def test_a_disturbed_half_is_named() -> None:
    found = both(document_of(), document_of(warnings=["The clock moved."]))
    assert found.disturbed == ("B",)


def test_an_empty_half_has_nothing_in_common(whole: Document) -> None:
    found = both(whole, {})
    assert found.arms == () and len(found.only_before) == 4 and found.disturbed == ()


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(10.0, 11.0, 10.0), (None, 1.0, None), (1.0, None, None), (0.0, 1.0, None)],
)
def test_a_change_needs_both(
    before: float | None, after: float | None, change: float | None
) -> None:
    assert change_percent(before, after) == pytest.approx(change)
