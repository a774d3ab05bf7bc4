"""The same flag under the names that older and newer builds of an engine give it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence, Set

from omni.errors import OmniError

# llama.cpp keeps listing what it took away, so that old commands are told what to use instead.
_GONE = re.compile(r"the argument has been removed", re.I)
# A spelling, its value's placeholder if it has one, and what separates it from the next spelling.
_SPELLING = re.compile(
    r"(-{1,2}[A-Za-z][\w.-]*)(\(s\))?(?: [^\s,-][^\s,]*)?(?:,\s*|$|\s)"
)


def listed_flags(help_text: str) -> frozenset[str]:
    """Every spelling in a help text whose entries begin at the left with their spellings."""
    return frozenset(word for entry in _entries(help_text) for word in spellings(entry))


def _entries(text: str) -> list[str]:
    """One string for each flag that can still be given: its spellings and its description."""
    entries: list[list[str]] = []
    for line in text.splitlines():
        # Descriptions, which may name flags as well, stand further to the right.
        if re.match(r" {0,12}-{1,2}[A-Za-z]", line):
            entries.append([line.strip()])
        elif entries:
            entries[-1].append(line.strip())
    return [entry[0] for entry in entries if not _GONE.search(" ".join(entry))]


def spellings(head: str) -> list[str]:
    """`-c,    --ctx-size N    size of …` → -c, --ctx-size; `--embedding(s)` is both words."""
    found: list[str] = []
    at = 0
    while match := _SPELLING.match(head, at):
        found += [match[1], f"{match[1]}s"] if match[2] else [match[1]]
        if "," not in match[0]:
            break
        at = match.end()
    return found


def first_known(wanted: Sequence[str], known: Set[str], engine: str) -> str:
    """The first spelling the engine has.

    Raises OmniError (unknown_flag) that names the nearest it has.
    """
    for word in wanted:
        if word in known:
            return word
    raise no_such_flag(wanted[0], known, engine)


def no_such_flag(word: str, known: Set[str], engine: str) -> OmniError:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    if near:
        fix = f"The nearest one it has is {near[0]}."
    else:
        fix = "Choose another engine."
    return OmniError("unknown_flag", f"The engine {engine} has no flag {word}.", fix)
