"""Numbers with units, as text. None is a fact nobody knows: it reads N/A and is never made up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal

UNKNOWN = "N/A"
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
_BINARY = ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def bytes_text(value: float | None) -> str:
    """1536 → '1.5 KiB'."""
    if value is None:
        return UNKNOWN
    for size, unit in _BINARY:
        if abs(value) >= size:
            return f"{short_text(value / size)} {unit}"
    return f"{value:.0f} B"


def count_text(value: float | None) -> str:
    """134515008 → '135M'."""
    if value is None:
        return UNKNOWN
    for size, unit in _COUNTS:
        if abs(value) >= size:
            return f"{short_text(value / size)}{unit}"
    return f"{value:.0f}"


def grouped_text(value: int | None) -> str:
    """134515008 → '134,515,008'."""
    return UNKNOWN if value is None else f"{value:,}"


def tps_text(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{short_text(value)} tokens/s"


def ms_text(value: float | None) -> str:
    """320 → '320 ms', 1500 → '1.5 s', 90000 → '1 min 30 s'."""
    if value is None:
        return UNKNOWN
    if value < 1000:
        return f"{short_text(value)} ms"
    if value < 60_000:
        return f"{short_text(value / 1000)} s"
    minutes, seconds = divmod(round(value / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent_text(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.0f} %"


def watts_text(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.0f} W"


def joules_text(value: float | None) -> str:
    """0.004 → '4 mJ', 6.8 → '6.8 J', 2500 → '2.5 kJ'."""
    if value is None:
        return UNKNOWN
    if value < 0.1:
        return f"{short_text(value * 1000)} mJ"
    if value < 1000:
        return f"{short_text(value)} J"
    return f"{short_text(value / 1000)} kJ"


def celsius_text(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.0f} °C"


def gbps_text(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{short_text(value)} GB/s"


def times_text(value: float | None) -> str:
    """How many times another: 1.36 → '1.36×'."""
    if value is None:
        return UNKNOWN
    return f"{short_text(value)}×"


def short_text(value: float) -> str:
    """Three significant figures at most, without trailing zeros."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")


def progress_text(done_bytes: int, total_bytes: int, rate_bps: int) -> str:
    """How much is there, how fast more comes, and how long it still takes; without a rate only the
    first."""
    text = f"{bytes_text(done_bytes)} of {bytes_text(total_bytes)}"
    if not rate_bps:
        return text
    return (
        f"{text}, {bytes_text(rate_bps)}/s,"
        f" {ms_text(1000 * (total_bytes - done_bytes) // rate_bps)} left"
    )


def parse_bytes(text: str) -> int:
    """What "384 GiB", "24GB" or "512 MiB" mean, in bytes. Raises ValueError."""
    found = re.fullmatch(
        r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([KMGTP])(i?)B\s*", text, re.IGNORECASE
    )
    if not found:
        raise ValueError(f"{text!r} is no amount of memory")
    number, letter, is_binary = found.groups()
    power = "KMGTP".index(letter.upper()) + 1
    return int(Decimal(number) * (1024 if is_binary else 1000) ** power)


def exact_bytes_text(value: int) -> str:
    """412316860416 → '384 GiB': the shortest text that parse_bytes reads as this value.

    Raises ValueError for what no text means.
    """
    fitting = [text for text in _amounts(value) if _means(text, value)]
    if not fitting:
        raise ValueError(f"{value} is no amount of memory")
    return min(fitting, key=len)


def _amounts(value: int) -> Iterator[str]:
    # With the last of six decimals rounded up, what is lost is less than a byte.
    for power, letter in reversed(list(enumerate("KMGTP", 1))):
        for base, mark in ((1024, "i"), (1000, "")):
            number = (Decimal(value) / base**power).quantize(
                Decimal("0.000001"), ROUND_CEILING
            )
            plain = f"{number:f}".rstrip("0").rstrip(".")
            yield f"{plain} {letter}{mark}B"


def _means(text: str, value: int) -> bool:
    try:
        return parse_bytes(text) == value
    except ValueError:
        return False
