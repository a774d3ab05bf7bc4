"""Fields beyond those that every engine knows: passed on to the engines that take them.

External servers get whatever they might know, within bounds: they look after
themselves. Which fields an engine of ours takes stands with its flavour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.engines import FLAVOURS
from deployments.engines.request_fields import Taken
from deployments.gateway.fields import Check, flag, number, size, whole
from deployments.gateway.shapes import FieldError
from omni.json_text import DEEPEST, is_deeper_than

ANYBODY = "external"
LONGEST_NAME = 60
LARGEST_VALUE_BYTES = 64 << 10
MOST_FIELDS = 50


def texts(name: str, value: Any) -> None:
    size(2000, list)(name, value)
    if not all(isinstance(text, str) for text in value):
        raise FieldError(name, f"{name} is not a list of texts.")


def token_ids(name: str, value: Any) -> None:
    size(16_000, list)(name, value)
    for token in value:
        whole(0, (1 << 31) - 1)(name, token)


CHECKS: dict[str, Check] = {"flag": flag, "texts": texts, "tokens": token_ids}


def check_of(field: Taken) -> Check:
    if field.kind == "number":
        return number(field.low, field.high)
    if field.kind == "whole":
        return whole(int(field.low), int(field.high))
    return CHECKS[field.kind]


# Of a server's own keeping, or of whoever stands before it; and behind which engines have had
# memory errors or can be kept busy without end: an external server may be any of them.
NEVER = frozenset(
    {
        "api_base",
        "api_key",
        "authorization",
        "base_url",
        "extra_headers",
        "headers",
        "model",
        "best_of",
        "chat_parser",
        "generation_prompt",
        "grammar_lazy",
        "grammar_triggers",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "id_slot",
        "image_data",
        "lora",
        "n_cmpl",
        "n_discard",
        "n_keep",
        "preserved_tokens",
        "prompt_embeds",
        "slot_id",
        "structured_outputs",
    }
)


def extras(
    flavour: str, body: Mapping[str, Any], left_out: Iterable[str]
) -> dict[str, Any]:
    """Of the fields that were left out, those that this engine takes.

    Raises FieldError for one out of its range.
    """
    given = {name: body[name] for name in left_out if body.get(name) is not None}
    if flavour == ANYBODY:
        return dict(list(_within_bounds(given).items())[:MOST_FIELDS])
    fields = FLAVOURS[flavour].takes if flavour in FLAVOURS else {}
    taken = {name: value for name, value in given.items() if name in fields}
    for name, value in taken.items():
        check_of(fields[name])(name, value)
    return taken


def worded(flavour: str, path: str, fields: dict[str, Any]) -> Mapping[str, Any]:
    """The fields in the words that this engine knows."""
    engine = FLAVOURS.get(flavour)
    return engine.worded(path, fields) if engine else fields


def _within_bounds(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in given.items()
        if name.isidentifier()
        and len(name) <= LONGEST_NAME
        and name not in NEVER
        and not is_deeper_than(value, DEEPEST)
        and len(json.dumps(value)) <= LARGEST_VALUE_BYTES
    }
