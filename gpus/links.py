"""PCIe links: what they carry, and why one is below its best."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpus.rollup import Figures
from omni.errors import OmniError

# GT/s per lane and the share left by the line code (PCI-SIG base specifications 1.1 to 6.0).
_GIGATRANSFERS = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
_LINE_CODE = {
    1: 8 / 10,
    2: 8 / 10,
    3: 128 / 130,
    4: 128 / 130,
    5: 128 / 130,
    6: 242 / 256,
}
BUSY_PERCENT = 20.0
# What the history has of a link and of its card at work.
SEEN_METRICS = ("utilisation_percent", "pcie_generation", "pcie_width")


def link_gbps(generation: int | None, width: int | None) -> float | None:
    """Bytes per second × 10⁹ in one direction; None when the link is not known."""
    if generation not in _GIGATRANSFERS or not width:
        return None
    return _GIGATRANSFERS[generation] * _LINE_CODE[generation] * width / 8


@dataclass(frozen=True)
class WantedLink:
    """A link as somebody wrote it; what is not said is None."""

    generation: int | None
    width: int | None


_GENERATION = re.compile(r"(?:gen(?:eration)?|pcie?)\s*\.?\s*([1-6])(?:\.0)?(?![\d.])")
_WIDTH = re.compile(r"(?:[x×]\s*(16|8|4|2|1)|(16|8|4|2|1)\s*(?:[x×]|lanes?))(?!\d)")


def read_link(text: str) -> WantedLink:
    """What is said by "gen4 x16", "PCIe 5.0 x8", "gen 5" or "x4".

    Raises OmniError (unknown_link).
    """
    words = text.strip().lower()
    generation, words = _taken(_GENERATION, words)
    width, words = _taken(_WIDTH, words)
    left_over = words.replace("pcie", "").strip(" ,@")
    if left_over or not (generation or width):
        said = f"The link {text!r} cannot be read."
        fix = "Write the generation and the lanes: gen4 x16, or gen5."
        raise OmniError("unknown_link", said, fix)
    return WantedLink(generation, width)


def _taken(pattern: re.Pattern[str], words: str) -> tuple[int | None, str]:
    """The number that the pattern finds, and the words without it."""
    found = pattern.search(words)
    if not found:
        return None, words
    number = next(group for group in found.groups() if group)
    return int(number), words[: found.start()] + words[found.end() :]


def link_shortfall(
    generation: int | None,
    width: int | None,
    generation_max: int | None,
    width_max: int | None,
    utilisation_percent: float | None,
) -> str:
    """What is wrong with the link, or ''.

    An idle card lowers its generation, and may lower its lanes, to save power (nvidia-smi's manual,
    "PCIe link"): that is no fault, so nothing is judged without load.
    """
    if not (generation and width and generation_max and width_max):
        return ""
    if (utilisation_percent or 0) < BUSY_PERCENT:
        return ""
    faults = []
    if width < width_max:
        faults.append(f"with {width} of {width_max} lanes")
    if generation < generation_max:
        faults.append(f"at generation {generation} of {generation_max}")
    if not faults:
        return ""
    now = link_gbps(generation, width)
    best = link_gbps(generation_max, width_max)
    speeds = f": {now:.1f} of {best:.1f} GB/s" if now and best else ""
    return f"The link runs {' and '.join(faults)} under load{speeds}."


def link_text(generation: int | None, width: int | None) -> str:
    """Such as "generation 5 × 16, 63.0 GB/s"; what is not known is N/A."""
    carries = link_gbps(generation, width)
    speed = f", {carries:.1f} GB/s" if carries else ""
    return f"generation {generation or 'N/A'} × {width or 'N/A'}{speed}"


# --- as it was ----
@dataclass(frozen=True)
class SeenLink:
    """A link under load, at one time in seconds since 1970."""

    at_s: int
    generation: int
    width: int
    utilisation_percent: float


def under_load(
    buckets: Iterable[tuple[int, tuple[Figures | None, ...]]],
) -> SeenLink | None:
    """The newest of these buckets, newest first, all of which the card worked; each has its start
    and figures of SEEN_METRICS.

    Its best counts: what is read of a link is some seconds old.
    """
    for at_s, (busy, generation, width) in buckets:
        if busy and generation and width and busy.minimum >= BUSY_PERCENT:
            best = (int(generation.maximum), int(width.maximum))
            return SeenLink(at_s, *best, busy.mean)
    return None
