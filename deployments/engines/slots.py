"""What llama-server says at /slots of the requests that it is working on.

llama.cpp, tools/server (server_slot::to_json): `is_processing`, `id_task`, and `next_token` with
`n_decoded`, an object or, since late 2025, a list of one. Since then `n_prompt_tokens` has the
tokens that a slot holds in its cache, those of the answer with them.
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


def held_percent(answer: Any, *, is_shared: bool) -> float | None:
    """How much of the KV cache is held; None where no slot tells.

    With `is_shared` all slots have one cache together (-kvu), and each tells the whole of it.
    """
    slots = [each for each in answer if isinstance(each, dict)]
    sizes = [_number(slot, "n_ctx") for slot in slots]
    total = max(sizes, default=0) if is_shared else sum(sizes)
    if not total or not any("n_prompt_tokens" in slot for slot in slots):
        return None
    held = sum(_number(slot, "n_prompt_tokens") for slot in slots)
    return min(100.0, 100 * held / total)


def _n_decoded(slot: Mapping[str, Any]) -> int:
    found = slot.get("next_token")
    if isinstance(found, list):
        found = found[0] if found else None
    return _number(found, "n_decoded") if isinstance(found, dict) else 0


def _number(values: Mapping[str, Any], key: str) -> int:
    found = values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
