"""Numbers as they come from outside, in an address or a message of a page."""

from __future__ import annotations

# What a database's whole number holds.
LARGEST = (1 << 63) - 1


def whole_number(text: object) -> int | None:
    """The number that a text of ASCII digits is, as far as it can be an id; None for everything else."""
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        return None
    written = str(text) if isinstance(text, int) and -1 < text <= LARGEST else text
    if not isinstance(written, str) or len(written) > 19 or not (written.isascii() and written.isdigit()):
        return None
    found = int(written)
    return found if found <= LARGEST else None
