"""Figures, changes and names of a benchmark as text, for its page and its exports."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployments.bench.comparisons import SpeedVerdict
from deployments.web.bench_values import (
    Difference,
    metric_of,
)
from omni.units import (
    UNKNOWN,
    bytes_text,
    ms_text,
    percent_text,
    short_text,
    watts_text,
)

VERDICTS = {
    SpeedVerdict.FASTER: "faster",
    SpeedVerdict.SLOWER: "slower",
    SpeedVerdict.NO_DIFFERENCE: "no difference",
    SpeedVerdict.UNDECIDED: "undecided",
}
MINUS = "−"
DEEPEST = 6
# Marks that turn the direction of what follows, and characters that cannot be seen.
_UNSEEN = re.compile(
    r"[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


# --- figures --------------------------------------------------------------------------------------
def figure_text(metric: str, value: float | None, *, with_unit: bool = True) -> str:
    """`with_unit` False is for columns whose heading has it; times always say theirs."""
    if value is None:
        return UNKNOWN

    unit = metric_of(metric).unit
    if unit == "ms":
        return ms_text(value)
    if unit == "bytes":
        return bytes_text(value)
    if unit == "W":
        return watts_text(value)
    if unit == "GB/s":
        return (
            f"{short_text(1000 * value)} MB/s"
            if value < 1
            else f"{short_text(value)} GB/s"
        )
    if unit == "share":
        return percent_text(100 * value)
    return f"{short_text(value)} {unit}" if with_unit and unit else short_text(value)


def range_text(metric: str, low: float | None, high: float | None) -> str:
    """'22.8 to 23.6', '118 to 135 ms'; empty where nobody knows."""
    if low is None or high is None:
        return ""
    begin, end = (figure_text(metric, value, with_unit=False) for value in (low, high))
    unit = end.rpartition(" ")[2] if " " in end else ""
    return f"{begin.removesuffix(f' {unit}')} to {end}"


def change_text(percent: float | None) -> str:
    """12.34 → '+12.3 %'."""
    if percent is None:
        return UNKNOWN
    return f"{_signed(percent)} %"


def interval_text(low: float | None, high: float | None) -> str:
    """'+8.1 to +16.6 %'; empty where there are no bounds."""
    if low is None or high is None:
        return ""
    return f"{_signed(low)} to {_signed(high)} %"


def _signed(percent: float) -> str:
    written = f"{percent:+.{0 if abs(percent) >= 100 else 1}f}"
    if float(written) == 0:
        return "0.0"
    return written.replace("-", MINUS)


def difference_text(row: Difference) -> str:
    """'+12.3 % (+8.1 to +16.6 %)'."""
    between = interval_text(row.low, row.high)
    if not between:
        return f"{change_text(row.change)} (too few rounds for an interval)"
    return f"{change_text(row.change)} ({between})"


def count_of(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


# --- what others wrote ----------------------------------------------------------------------------
def seen(text: str) -> str:
    """In one line and in the order in which it is stored: marks that hide or turn text around
    become visible."""
    shown = _UNSEEN.sub(lambda mark: f"[U+{ord(mark[0]):04X}]", text)
    return "".join(
        " " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter
        for letter in shown
    )


# --- facts without a shape of their own -----------------------------------------------------------
def flat(found: object, path: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(where, what) for everything in nested lists and mappings; what has a name goes by it."""
    if len(path) >= DEEPEST:
        return [(_path(path), "…")]
    if isinstance(found, Mapping):
        return _flat(found.items(), path)
    if isinstance(found, (list, tuple)):
        if all(not isinstance(one, (Mapping, list, tuple)) for one in found):
            return [(_path(path), ", ".join(map(scalar_text, found)) or "none")]
        return _flat(((_name_of(one, n), one) for n, one in enumerate(found, 1)), path)
    return [(_path(path), scalar_text(found))]


def _flat(
    items: Iterable[tuple[Any, Any]], path: tuple[str, ...]
) -> list[tuple[str, str]]:
    return [row for key, value in items for row in flat(value, (*path, str(key)))]


def _name_of(one: object, place: int) -> str:
    name = one.get("name") if isinstance(one, Mapping) else None
    return name if isinstance(name, str) and name else str(place)


def _path(path: Sequence[str]) -> str:
    return " › ".join(part.replace("_", " ") for part in path)


def scalar_text(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
