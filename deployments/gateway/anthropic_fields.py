"""The fields of Anthropic's messages that reach an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.engines.request_fields import LARGEST_TOKENS
from deployments.gateway.fields import (
    MOST_MESSAGES,
    Check,
    flag,
    flat_settings,
    listed,
    not_too_deep,
    number,
    one_of,
    only_texts,
    schema,
    size,
    stop_texts,
    text,
    whole,
)
from deployments.gateway.shapes import FieldError

# Texts of a block, where it has them.
TEXTS = ("text", "thinking", "signature", "id", "name", "tool_use_id")


def messages(name: str, value: Any) -> None:
    for index, message in enumerate(listed(name, value, MOST_MESSAGES, "messages")):
        at = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise FieldError(at, f"{at} is not an object with a role.")
        one_of("user", "assistant", "system")(f"{at}.role", message.get("role"))
        blocks(at, message.get("content"))


def blocks(at: str, value: Any) -> None:
    """What a message or a tool's result holds: one text, or a list of blocks."""
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise FieldError(
            at, f"{at} has a content that is neither a text nor a list of blocks."
        )
    for block in value:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise FieldError(at, f"{at} has a block that is no object with a type.")
        _check_block(at, block)


def _check_block(at: str, block: Mapping[str, Any]) -> None:
    only_texts(at, block, TEXTS, "a block with ")
    if block["type"] == "text" and not isinstance(block.get("text"), str):
        raise FieldError(at, f"{at} has a text block without a text.")
    if block["type"] == "tool_use" and not isinstance(block.get("input", {}), dict):
        raise FieldError(at, f"{at} has a tool_use with an input that is no object.")
    if block["type"] == "tool_result" and block.get("content") is not None:
        blocks(at, block["content"])
    if block.get("source") is not None:
        _no_remote_source(at, block["source"])


def _no_remote_source(at: str, source: Any) -> None:
    """An engine would fetch a remote address itself, from inside the network it runs in."""
    if not isinstance(source, dict):
        raise FieldError(at, f"{at} has a source that is no object.")
    address = source.get("url")
    is_data = isinstance(address, str) and address.startswith("data:")
    is_remote = source.get("type") == "url" or address is not None
    if is_remote and not is_data:
        raise FieldError(at, f"{at} refers to media by address.", "Send it as base64.")
    only_texts(at, source, ("media_type", "data"), "a source with ")


def system(name: str, value: Any) -> None:
    not_too_deep(name, value)
    blocks(name, value)


def tools(name: str, value: Any) -> None:
    schema(256 << 10, list)(name, value)
    for index, tool in enumerate(value):
        at = f"{name}[{index}]"
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise FieldError(at, f"{at} is not an object with a name.")
        only_texts(at, tool, ("description",))


ANTHROPIC: dict[str, Check] = {
    "messages": messages,
    "system": system,
    "max_tokens": whole(1, LARGEST_TOKENS),
    "temperature": number(0, 10),
    "top_p": number(0, 1),
    "top_k": whole(-1, 1 << 20),
    "stop_sequences": stop_texts,
    "stream": flag,
    "tools": tools,
    "tool_choice": size(2000, dict),
    "thinking": size(2000, dict),
    "metadata": size(16 << 10, dict),
    "service_tier": text(50),
    "chat_template_kwargs": flat_settings,
}
