"""The fields of OpenAI's Responses that reach an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.engines.request_fields import LARGEST_TOKENS
from deployments.gateway.constraints import check_schema
from deployments.gateway.fields import (
    MOST_MESSAGES,
    SAMPLING,
    Check,
    any_text,
    flag,
    flat_settings,
    listed,
    no_remote_media,
    one_of,
    only_texts,
    schema,
    size,
    text,
    whole,
)
from deployments.gateway.shapes import FieldError

# Texts of an item, where it has them.
TEXTS = ("role", "type", "id", "status", "call_id", "name", "arguments")
# Where an item has parts: what somebody said, what a tool gave, what was thought.
PARTS = ("content", "output", "summary")
SENT_WHOLE = "Send what was said before in input."


def input_items(name: str, value: Any) -> None:
    """One text, or what was said, called and answered so far."""
    if isinstance(value, str):
        return
    for index, item in enumerate(
        listed(name, value, MOST_MESSAGES, "items, nor a text")
    ):
        at = f"{name}[{index}]"
        if not isinstance(item, dict):
            raise FieldError(at, f"{at} is not an object.")
        _check_item(at, item)


def _check_item(at: str, item: Mapping[str, Any]) -> None:
    only_texts(at, item, TEXTS)
    for word in PARTS:
        parts = item.get(word)
        if parts is not None and not isinstance(parts, (str, list)):
            raise FieldError(
                at, f"{at} has a {word} that is neither a text nor a list of parts."
            )
        for part in parts if isinstance(parts, list) else ():
            _check_part(at, part)


def _check_part(at: str, part: Any) -> None:
    no_remote_media(at, part)
    only_texts(at, part, ("type", "text"), "a part with ")


def tools(name: str, value: Any) -> None:
    schema(256 << 10, list)(name, value)
    for index, tool in enumerate(value):
        at = f"{name}[{index}]"
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise FieldError(at, f"{at} is not an object with a type.")
        if tool["type"] == "function" and not isinstance(tool.get("name"), str):
            raise FieldError(at, f"{at} is a function without a name.")


def text_format(name: str, value: Any) -> None:
    """What the answer's text has to keep to."""
    size(64 << 10, dict)(name, value)
    if isinstance(value.get("format"), dict):
        check_schema(name, value["format"])


def kept_nowhere(name: str, value: Any) -> None:
    raise FieldError(name, f"{name} names what is kept nowhere here.", SENT_WHOLE)


# Engines of llama.cpp take the fields of a chat as well.
RESPONSES: dict[str, Check] = {
    **{name: check for name, check in SAMPLING.items() if name != "n"},
    "input": input_items,
    "instructions": any_text,
    "max_output_tokens": whole(1, LARGEST_TOKENS),
    "max_tool_calls": whole(1, 10_000),
    "text": text_format,
    "response_format": schema(64 << 10, dict),
    "reasoning": size(2000, dict),
    "tools": tools,
    "tool_choice": size(16 << 10, str, dict),
    "parallel_tool_calls": flag,
    "top_logprobs": whole(0, 20),
    "include": size(4000, list),
    "truncation": one_of("auto", "disabled"),
    "metadata": size(16 << 10, dict),
    "store": flag,
    "service_tier": text(50),
    "prompt_cache_key": text(500),
    "safety_identifier": text(500),
    "chat_template_kwargs": flat_settings,
    "reasoning_format": one_of("none", "auto", "deepseek", "deepseek-legacy"),
    # Passed on for the engine to say that it keeps nothing: left out, the answer would be to
    # something else than what was asked.
    "previous_response_id": text(500),
    "conversation": kept_nowhere,
    "prompt": kept_nowhere,
}
