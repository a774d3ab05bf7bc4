"""What llama-server says at /slots of the requests that it is working on.

llama.cpp, tools/server (server_slot::to_json): `is_processing`, `id_task`, and `next_token` with
`n_decoded`, an object or, since late 2025, a list of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SlotWork:
    """A request in a slot: its number, and how many tokens of its answer there are."""

    task: int
    n_decoded: int


def slots_at_work(answer: Any) -> dict[int, SlotWork]:
    """By slot. Raises ValueError for what is no such answer."""
    if not isinstance(answer, list):
        raise ValueError("/slots answers with a list")
    busy = (each for each in answer if isinstance(each, dict))
    return {
        _number(slot, "id"): SlotWork(_number(slot, "id_task"), _n_decoded(slot))
        for slot in busy
        if slot.get("is_processing") is True
    }


def decoded_between(before: Mapping[int, SlotWork], now: Mapping[int, SlotWork]) -> int:
    """Tokens that were written meanwhile, those of requests that have ended since left out."""
    found = 0
    for slot, work in now.items():
        old = before.get(slot)
        goes_on = old is not None and old.task == work.task
        found += work.n_decoded - (old.n_decoded if old and goes_on else 0)
    return max(found, 0)


def _n_decoded(slot: Mapping[str, Any]) -> int:
    found = slot.get("next_token")
    if isinstance(found, list):
        found = found[0] if found else None
    return _number(found, "n_decoded") if isinstance(found, dict) else 0


def _number(values: Mapping[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
