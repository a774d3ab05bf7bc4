"""Word by word, what one answer says otherwise than another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

# Words with the space behind them: what is put together again is the text itself.
WORD = re.compile(r"\S+\s*|\s+")
# Comparing takes up to the product of both lengths.
MOST_WORDS = 3_000


@dataclass(frozen=True)
class Part:
    """A stretch of both texts: `same`, or what only the first (`removed`) or the second has
    (`added`)."""

    kind: str
    words: str

    @property
    def tag(self) -> str:
        return {"same": "span", "removed": "del", "added": "ins"}[self.kind]


def differences(first: str, second: str) -> list[Part] | None:
    """The parts in their order; None for texts that are too long to be compared."""
    before = WORD.findall(first)
    after = WORD.findall(second)
    if max(len(before), len(after)) > MOST_WORDS:
        return None
    # A space more or a line broken elsewhere is no other word. Words that are all over a long text
    # are not where it is aligned: two models that repeat themselves took minutes otherwise.
    matcher = SequenceMatcher(None, _bare(before), _bare(after), autojunk=True)
    parts: list[Part] = []
    for operation, i, j, k, m in matcher.get_opcodes():
        if operation == "equal":
            parts.append(Part("same", "".join(after[k:m])))
            continue
        if i < j:
            parts.append(Part("removed", "".join(before[i:j])))
        if k < m:
            parts.append(Part("added", "".join(after[k:m])))
    return parts


def same_percent(parts: list[Part]) -> float:
    """How much of both texts is the same, by words; 100 for two that are empty."""
    counts = {"same": 0, "removed": 0, "added": 0}
    for part in parts:
        counts[part.kind] += len(part.words.split())
    total = 2 * counts["same"] + counts["removed"] + counts["added"]
    return 100 * 2 * counts["same"] / total if total else 100.0


def _bare(words: list[str]) -> list[str]:
    return [word.strip() for word in words]
