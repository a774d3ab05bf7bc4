"""What engines list as their flags, as it was recorded from their sources."""

from __future__ import annotations

from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"


def help_of(name: str) -> str:
    """Without the line that says where it was recorded."""
    return "\n".join(
        line
        for line in (RECORDED / f"{name}.txt").read_text().splitlines()
        if not line.startswith("#")
    )


def words_of(name: str) -> frozenset[str]:
    return frozenset(help_of(name).split())
