"""A benchmark as a file: JSON for programs, CSV for tables, Markdown to be pasted into an issue."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployments.bench.scenarios import NAMES, scenario
from deployments.web.bench_answer import answer_of
from deployments.web.bench_document import read_document
from deployments.web.bench_plots import error_text, foretold
from deployments.web.bench_report import stage_of
from deployments.web.bench_tables import (
    COLUMNS,
    COLUMNS_IF_KNOWN,
    QualityRow,
    arm_cell,
    facts_of,
    label_of,
    problem_text,
    quality_rows,
    service_level_text,
    setup_views,
)
from deployments.web.bench_values import (
    OF_A_REQUEST,
    Measurements,
    Request,
    metric_of,
)
from deployments.web.bench_words import (
    VERDICTS,
    change_text,
    figure_text,
    flat,
    interval_text,
    seen,
)
from omni.units import UNKNOWN

CSV_COLUMNS = (
    "deployment", "concurrency", "load", "round", "prompt", "ending", "reason", *OF_A_REQUEST,
    "rate", "kept_level",
)  # fmt: skip
# A table program takes what begins like this for a formula; the last ones are their wide forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# --- one row per request --------------------------------------------------------------------------
def as_csv(document: Mapping[str, Any]) -> str:
    """What is not known is empty."""
    found = read_document(document)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(map(_csv_row, found.requests))
    return file.getvalue()


def _csv_row(one: Request) -> list[object]:
    users = None if one.arm.rate else one.arm.users
    texts = (one.arm.deployment, users, one.arm.load, one.round, one.prompt)
    values = [one.values.get(name) for name in OF_A_REQUEST]
    load = (one.arm.rate or None, one.kept_level)
    row = (*texts, one.ending, one.reason, *values, *load)
    return [guarded(value) for value in row]


def guarded(value: object) -> object:
    """A text that a table program would run as a formula gets an apostrophe in front of it."""
    if isinstance(value, str) and value.lstrip().startswith(FORMULA):
        return f"'{value}"
    return value


# --- to be read -----------------------------------------------------------------------------------
def as_markdown(
    document: Mapping[str, Any], *, state: str, number: int, scenario_name: str
) -> str:
    """Answer, warnings, tables, predicted beside measured, environment."""
    found = read_document(document)
    answer = answer_of(found)
    lines = [
        f"# Benchmark {number}: {plain(scenario_title(scenario_name))}",
        *(f"**{plain(sentence)}**" for sentence in answer.sentences),
        plain(f"{stage_of(state, found)} {answer.certainty}".strip()),
        *_disturbed(found),
        *_part("Notes", [_points(found.notes)]),
        *_part("Gains", [_gains(found)]),
        *_part("Measured", [_measured(found), _level(found), _problems(found)]),
        *_part("Answers", [_answers(found)]),
        *_part("Predicted beside measured", [_predicted(found)]),
        *_part("Environment", _environment(found)),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def scenario_title(name: str) -> str:
    return scenario(name).title if name in NAMES else name


def _part(title: str, blocks: Sequence[str]) -> list[str]:
    known = [block for block in blocks if block]
    return [f"## {title}", *known] if known else []


def _disturbed(found: Measurements) -> list[str]:
    if not found.warnings:
        return []
    return [
        "> **The run was disturbed, so no verdict is given.**",
        _points(found.warnings),
    ]


def _points(texts: Iterable[str]) -> str:
    return "\n".join(f"- {plain(text)}" for text in texts)


def _gains(found: Measurements) -> str:
    rows = [
        [
            _who(found, row.arm),
            metric_of(row.metric).title,
            change_text(row.change),
            interval_text(row.low, row.high) or UNKNOWN,
            str(row.rounds),
            VERDICTS[row.verdict],
        ]
        for row in found.differences
    ]
    return table(
        ("Deployment", "Figure", "Change", "95 % interval", "Rounds", "Verdict"), rows
    )


def _who(found: Measurements, key: Any) -> str:
    label = label_of(key, found)
    return f"{code(label.name)} {plain(label.detail)}".strip()


def _measured(found: Measurements) -> str:
    names = [
        *COLUMNS,
        *(
            name
            for name in COLUMNS_IF_KNOWN
            if any(arm.value(name) is not None for arm in found.arms)
        ),
    ]
    heads = [f"{metric_of(name).title}, {metric_of(name).unit}" for name in names]
    rows = [
        [
            _who(found, arm.key),
            plain(arm.strategy),
            f"{arm.requests}",
            f"{arm.errors}",
            *(_cell_text(arm_cell(arm, name)) for name in names),
            UNKNOWN if arm.tokens_out is None else str(arm.tokens_out),
        ]
        for arm in found.arms
    ]
    return table(
        ("Deployment", "Strategy", "Requests", "Not whole", *heads, "Tokens written"),
        rows,
    )


def _level(found: Measurements) -> str:
    """What goodput is, where a service level was asked for."""
    level = service_level_text(found)
    if not level:
        return ""
    return f"Goodput: {plain(metric_of('goodput').explanation)} Here: {plain(level)}."


def _cell_text(cell: Any) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else str(cell.text)


def _problems(found: Measurements) -> str:
    return "\n".join(
        f"- {_who(found, arm.key)}: {plain(problem_text(problem))}"
        for arm in found.arms
        for problem in arm.problems
    )


def _answers(found: Measurements) -> str:
    rows = [
        [
            code(row.label.name),
            f"{row.same} ({row.same_percent})" if row.same else row.same_percent,
            plain(row.where),
            row.right,
            *([_perplexity(row)] if row.perplexity else []),
        ]
        for row in quality_rows(found)
    ]
    heads = ["Deployment", "Same answers", "First difference", "Right answers"]
    if rows and len(rows[0]) > len(heads):
        heads.append("Perplexity of a fixed text")
    return table(heads, rows)


def _perplexity(row: QualityRow) -> str:
    note = f" ({plain(row.perplexity_note)})" if row.perplexity_note else ""
    return f"{row.perplexity}{note}"


def _predicted(found: Measurements) -> str:
    rows = [
        [
            _who(found, pair.key),
            metric_of(pair.metric).title,
            figure_text(pair.metric, pair.predicted),
            figure_text(pair.metric, pair.measured),
            error_text(pair.error_percent),
        ]
        for pair in foretold(found)
        if pair.predicted is not None
    ]
    return table(
        ("Deployment", "Figure", "Predicted", "Measured", "Prediction is"), rows
    )


def _environment(found: Measurements) -> list[str]:
    facts = "\n".join(f"- {title}: {code(text)}" for title, text in facts_of(found))
    setups = [
        "\n".join(
            [
                f"- {code(view.label.name)}",
                *(f"  - {plain(title)}: {code(text)}" for title, text in view.facts),
            ]
        )
        for view in setup_views(found)
    ]
    conditions = "\n".join(
        f"- {plain(title)}: {code(text)}" for title, text in flat(found.conditions)
    )
    return [facts, "\n".join(setups), conditions]


# --- Markdown of what others wrote ----------------------------------------------------------------
def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Empty without rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(_line(cells) for cells in lines)


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


_MARKS = re.compile(r"([\\`*_\[\]<>~#&])")


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, and that calls nobody, as @name would."""
    return _MARKS.sub(r"\\\1", seen(text)).replace("@", "`@`")


def code(text: str) -> str:
    """As code, in which nothing has a meaning but the pipe of a table."""
    shown = re.sub(r"\\+\|", "|", seen(text)).replace("`", "'").strip()
    return f"`{shown}`" if shown else ""
