"""What a benchmark answers, in a few sentences: which is best, by how much, with what certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from deployments.bench.comparisons import SpeedVerdict
from deployments.web.bench_values import (
    TOGETHER,
    Arm,
    ArmKey,
    Difference,
    Measurements,
    metric_of,
)
from deployments.web.bench_words import (
    change_text,
    count_of,
    difference_text,
    figure_text,
    listed,
    range_text,
    seen,
)

# What a person waits for most: a start where that was asked for, else the tokens of the answer.
ANSWERED_BY = ("start_ms", "output_tps")
# Of more deployments, the chart says it better than a sentence.
MOST_LISTED = 3


@dataclass(frozen=True)
class Answer:
    """`certainty` says what the sentences rest on. `kind`: decided, open or disturbed."""

    kind: str
    sentences: tuple[str, ...]
    certainty: str = ""


def answer_of(found: Measurements) -> Answer:
    if not found.arms:
        return Answer("open", ("Nothing is measured yet.",))
    if not found.is_valid:
        return Answer(
            "disturbed",
            ("No verdict is given: the run was disturbed.",),
            _requests(found),
        )

    rows = [row for row in found.differences if row.metric == answered_by(found)]
    if not rows:
        return Answer("open", tuple(map(seen, _alone(found))), _requests(found))

    sentences = [
        _sentence(list(group), found)
        for _, group in groupby(_in_order(rows), key=lambda row: row.arm.level)
    ]
    sentences += _other_answers(rows, found)
    is_decided = any(row.verdict != SpeedVerdict.UNDECIDED for row in rows)
    kind = "decided" if is_decided else "open"
    return Answer(kind, tuple(map(seen, sentences)), _certainty(found))


def answered_by(found: Measurements) -> str:
    compared = {row.metric for row in found.differences}
    return next((name for name in ANSWERED_BY if name in compared), ANSWERED_BY[-1])


def _in_order(rows: Sequence[Difference]) -> list[Difference]:
    return sorted(rows, key=lambda row: row.arm.level)


def gain_of(row: Difference) -> float:
    """How much better it is, whether more or less of the metric is."""
    change = row.change or 0.0
    return -change if metric_of(row.metric).higher_is_better is False else change


# --- one deployment alone -------------------------------------------------------------------------
def _alone(found: Measurements) -> tuple[str, ...]:
    sentences = ["One deployment was measured, and compared with nothing."]
    if len(found.names) > 1:
        sentences = [
            "Nothing is compared yet: that is done after planned numbers of rounds."
        ]
    if len(found.arms) == 1:
        sentences += _speed_sentences(found.arms[0])
    return tuple(sentences)


def _speed_sentences(arm: Arm) -> list[str]:
    speed, first = arm.figure("output_tps"), arm.figure("first_token_ms")
    if speed.p50 is None or first.p50 is None:
        return []
    between = range_text("output_tps", speed.low, speed.high)
    interval = f" (95 % interval {between})" if between else ""
    return [
        f"{arm.key.deployment} writes {figure_text('output_tps', speed.p50)}{interval},"
        f" its first token after {figure_text('first_token_ms', first.p50)}."
    ]


# --- compared -------------------------------------------------------------------------------------
def _sentence(rows: Sequence[Difference], found: Measurements) -> str:
    """Of rows under the same load."""
    several = len({row.arm.level for row in found.differences}) > 1
    arm = rows[0].arm
    where = ""
    if arm.rate:
        where = f"At {arm.asked}: "
    elif several or arm.users > 1:
        where = f"With {arm.asked} at once: "
    return where + " ".join(_verdict_sentences(rows, found))


def _verdict_sentences(rows: Sequence[Difference], found: Measurements) -> list[str]:
    if all(row.arm.load == TOGETHER for row in rows):
        return [_beside_others(row) for row in rows]

    faster = sorted(
        (row for row in rows if row.verdict == SpeedVerdict.FASTER),
        key=gain_of,
        reverse=True,
    )
    if faster:
        return _best(faster, found)
    return _no_gain(rows)


def _beside_others(row: Difference) -> str:
    words = {
        SpeedVerdict.SLOWER: "is slower while the others are busy",
        SpeedVerdict.FASTER: "is faster while the others are busy",
        SpeedVerdict.NO_DIFFERENCE: "does not notice that the others are busy",
        SpeedVerdict.UNDECIDED: "may or may not notice that the others are busy",
    }
    title = metric_of(row.metric).title
    return f"{row.arm.deployment} {words[row.verdict]}: {title} {difference_text(row)}."


def _best(faster: Sequence[Difference], found: Measurements) -> list[str]:
    best, others = faster[0], [row.arm.deployment for row in faster[1:]]
    if len(others) > MOST_LISTED:
        others = [f"{len(others)} others"]
    title = metric_of(best.metric).title
    said = [
        f"{best.arm.deployment} is best: {title} {difference_text(best)}"
        f" against {best.baseline.deployment}."
    ]
    if others:
        is_are = "is" if len(faster) == 2 else "are"
        said.append(
            f"{listed(others)} {is_are} faster than {best.baseline.deployment}, too;"
            " between those that gain nothing was compared."
        )
    return [*said, *_price(best.arm, found)]


def _price(arm: ArmKey, found: Measurements) -> list[str]:
    """What is slower on it, so that the best is not taken for the best in everything."""
    worse = [
        f"{metric_of(row.metric).title} {change_text(row.change)}"
        for row in found.differences
        if row.arm == arm and row.verdict == SpeedVerdict.SLOWER
    ]
    return [f"Slower on it: {listed(worse)}."] if worse else []


def _other_answers(rows: Sequence[Difference], found: Measurements) -> list[str]:
    """Whether what is faster says the same, one sentence for each deployment."""
    faster = {row.arm for row in rows if row.verdict == SpeedVerdict.FASTER}
    said: dict[str, str] = {}
    for arm in found.arms:
        quality = arm.quality
        if arm.key not in faster or quality is None or quality.same >= quality.compared:
            continue
        other = quality.compared - quality.same
        name = arm.key.deployment
        said.setdefault(
            name,
            f"{name} answers otherwise than the baseline in {other} of {quality.compared} prompts.",
        )
    return list(said.values())


def _no_gain(rows: Sequence[Difference]) -> list[str]:
    """None is faster. What is undecided is never named beside what is decided."""
    baseline = rows[0].baseline.deployment
    undecided = [row for row in rows if row.verdict == SpeedVerdict.UNDECIDED]
    decided = [row for row in rows if row.verdict != SpeedVerdict.UNDECIDED]
    said = []
    if decided:
        said.append(_decided(decided, baseline, is_all=not undecided))
    if undecided:
        said.append(f"Undecided against {baseline}: {_figures(undecided)}")
    return said


def _decided(rows: Sequence[Difference], baseline: str, *, is_all: bool) -> str:
    verdicts = {row.verdict for row in rows}
    figures = _figures(rows)
    if verdicts == {SpeedVerdict.NO_DIFFERENCE}:
        return f"No difference that anybody notices against {baseline}: {figures}"
    if not is_all:
        return f"Not faster than {baseline}: {figures}"
    if verdicts == {SpeedVerdict.SLOWER}:
        return f"{baseline} is best, nothing else comes up to it: {figures}"
    return f"Nothing is faster than {baseline}: {figures}"


def _figures(rows: Sequence[Difference]) -> str:
    title = metric_of(rows[0].metric).title
    each = [
        f"{row.arm.deployment} {difference_text(row)}" for row in rows[:MOST_LISTED]
    ]
    more = len(rows) - len(each)
    return f"{title} of {listed(each + ([f'{more} more'] if more else []))}."


# --- what it rests on -----------------------------------------------------------------------------
def _certainty(found: Measurements) -> str:
    requests = _requests(found)
    return f"{requests} All intervals of a report hold together in 95 of 100 reports.".strip()


def _requests(found: Measurements) -> str:
    requests = sum(arm.requests for arm in found.arms)
    return f"{count_of(requests, 'request')}." if requests else ""
