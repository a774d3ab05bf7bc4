"""Numbers as they come from outside, in an address or a message of a page, and as people write
them."""

from __future__ import annotations

# What a database's whole number holds.
LARGEST = (1 << 63) - 1


def whole_number(text: object) -> int | None:
    """The number that a text of ASCII digits is, as far as it can be an id; None for everything
    else."""
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        return None
    written: object = text
    if isinstance(text, int) and -1 < text <= LARGEST:
        written = str(text)
    if (
        not isinstance(written, str)
        or len(written) > 19
        or not (written.isascii() and written.isdigit())
    ):
        return None
    found = int(written)
    if found <= LARGEST:
        return found
    return None


def written(value: float) -> str:
    """As a person writes it: 1048576 and 0.5; what is longer than anybody would write is cut."""
    text = str(value) if isinstance(value, int) else f"{value:.15g}"
    if len(text) <= 24:
        return text
    return f"{text[:20]}… ({len(text)} digits)"
