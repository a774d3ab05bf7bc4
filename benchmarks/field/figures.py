"""What the tools and the engine say of the same requests, and how far they lie apart."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field

GOAL_PERCENT = 5.0

# What the engine logs when an answer has ended: of its prompt, and in the next line of itself.
TIMES = re.compile(
    r"prompt eval time = +([\d.]+) ms / +(\d+) tokens.*\n"
    r".* eval time = +([\d.]+) ms / +(\d+) tokens"
)


@dataclass
class Figures:
    """Of single requests, as a tool says, and as the engine says of the same ones in the same
    order."""

    first_token_ms: list[float] = field(default_factory=list)
    output_tps: list[float] = field(default_factory=list)
    engine_prompt_tokens: list[float] = field(default_factory=list)
    engine_prompt_ms: list[float] = field(default_factory=list)
    engine_tps: list[float] = field(default_factory=list)

    def add(self, more: Figures) -> None:
        for name, values in vars(more).items():
            getattr(self, name).extend(values)

    @property
    def beyond_reading_ms(self) -> float:
        """What came to the engine's reading of the prompt until the first token was here."""
        pairs = zip(self.first_token_ms, self.engine_prompt_ms, strict=True)
        return statistics.median(seen - own for seen, own in pairs)

    @property
    def share_of_speed(self) -> float:
        pairs = zip(self.output_tps, self.engine_tps, strict=True)
        return statistics.median(seen / own for seen, own in pairs)


@dataclass(frozen=True)
class Logged:
    prompt_ms: float
    prompt_tokens: int
    ms: float
    tokens: int


def logged_times(log: str) -> list[Logged]:
    """Of each answer in the engine's log, in the order they ended."""
    return [
        Logged(float(prompt_ms), int(prompt_tokens), float(ms), int(tokens))
        for prompt_ms, prompt_tokens, ms, tokens in TIMES.findall(log)
    ]


@dataclass(frozen=True)
class Row:
    """The medians of a tool."""

    requests: int
    prompt_tokens: float
    first_token_ms: float
    output_tps: float
    engine_prompt_ms: float
    engine_tps: float
    # What it would have said on an equal machine.
    equal_first_token_ms: float
    equal_output_tps: float


COMPARED = (
    "first_token_ms",
    "output_tps",
    "equal_first_token_ms",
    "equal_output_tps",
)


def rows_of(found: dict[str, Figures]) -> dict[str, Row]:
    median = statistics.median
    prompt_ms = median(ms for one in found.values() for ms in one.engine_prompt_ms)
    tps = median(tps for one in found.values() for tps in one.engine_tps)
    return {
        name: Row(
            requests=len(one.first_token_ms),
            prompt_tokens=median(one.engine_prompt_tokens),
            first_token_ms=median(one.first_token_ms),
            output_tps=median(one.output_tps),
            engine_prompt_ms=median(one.engine_prompt_ms),
            engine_tps=median(one.engine_tps),
            equal_first_token_ms=prompt_ms + one.beyond_reading_ms,
            equal_output_tps=tps * one.share_of_speed,
        )
        for name, one in found.items()
    }


def differences(rows: dict[str, Row], name: str) -> dict[str, float]:
    """By how many per cent Omni's figures lie from those of a tool."""
    own, theirs = rows["omni"], rows[name]
    return {
        metric: (getattr(own, metric) / getattr(theirs, metric) - 1) * 100
        for metric in COMPARED
    }


def table(rows: dict[str, Row], at_once: int) -> str:
    lines = [
        f"{at_once} at once      requests   prompt   first token       output"
        "           engine: read, wrote     equal machine: first token, output"
    ]
    for name, row in rows.items():
        apart = differences(rows, name)
        lines.append(
            f"{name:14} {row.requests:8} {row.prompt_tokens:8.0f}"
            f" {row.first_token_ms:8.1f} ms {apart['first_token_ms']:+5.1f} %"
            f" {row.output_tps:7.1f}/s {apart['output_tps']:+5.1f} %"
            f" {row.engine_prompt_ms:10.1f} ms {row.engine_tps:6.1f}/s"
            f" {row.equal_first_token_ms:10.1f} ms {apart['equal_first_token_ms']:+5.1f} %"
            f" {row.equal_output_tps:7.1f}/s {apart['equal_output_tps']:+5.1f} %"
        )
    return "\n".join(lines)


def verdict(rows: dict[str, Row]) -> str:
    widest = {
        metric: max(abs(differences(rows, name)[metric]) for name in rows)
        for metric in COMPARED
    }
    beyond = [metric for metric, most in widest.items() if most > GOAL_PERCENT]
    if not beyond:
        return f"All within {GOAL_PERCENT:g} %."
    return f"NOT within {GOAL_PERCENT:g} %: {', '.join(beyond)}."
