"""Long texts that differ from their first word on, put together from a stock of paragraphs."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

SEPARATOR = "\n\n"


def long_text(
    stock: Sequence[str], opening: str, finding: str, *, seed: int, length: int
) -> str:
    """The opening, then paragraphs in the seed's order up to so many characters.

    The finding, which a question is about, stands somewhere among the paragraphs. Each paragraph
    is used at most once, so that drafting from the prompt gains nothing that real text lacks.
    """
    left = length - len(opening) - len(finding) - len(SEPARATOR)
    chosen: list[str] = []

    for place in paragraph_order(len(stock), seed):
        left -= len(stock[place]) + len(SEPARATOR)
        if left < 0:
            break
        chosen.append(stock[place])

    chosen.insert(_spread(seed, len(chosen) + 1), finding)
    return SEPARATOR.join([opening, *chosen])


def paragraph_order(count: int, seed: int) -> list[int]:
    """Every place of the stock once, in another order for each seed."""
    steps = [step for step in range(1, count + 1) if gcd(step, count) == 1]
    step, first = steps[_spread(seed, len(steps))], (23 * seed) % count
    return [(first + step * number) % count for number in range(count)]


def _spread(seed: int, count: int) -> int:
    """A place below `count`; the places of many seeds lie evenly, those of neighbours far apart."""
    golden = 618_034 * seed % 1_000_000
    return golden * count // 1_000_000
