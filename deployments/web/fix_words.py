"""What a press on a proposed change says."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.planning.settings import SETTINGS


def fix_title(changes: Mapping[str, int | str]) -> str:
    """For example `Use context 8,192 and KV cache, keys q8_0`."""
    words = [
        f"{_inside(SETTINGS[key].title)} {_number(value)}"
        for key, value in changes.items()
    ]
    return f"Use {' and '.join(words)}"


def _inside(title: str) -> str:
    """As it stands inside a sentence: Context → context, KV cache stays."""
    if title[:2].isupper():
        return title
    return title[:1].lower() + title[1:]


def _number(value: int | str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value
