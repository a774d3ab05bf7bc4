"""What of a request's body reaches an engine: fields from an allow-list, each within its range.

Engines have had memory errors behind fields nobody needs (a negative n_discard, chat_parser) and can be
kept busy without end by others (a huge n, an endless grammar). What is not listed here is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from deployments.gateway.shapes import FieldError

Check = Callable[[str, Any], None]
LARGEST_TOKENS = 1 << 20


def number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise FieldError(name, f"{name} is not a number.", f"Use a number from {low:g} to {high:g}.")
        if not low <= value <= high:
            raise FieldError(name, f"{name} is {value:g}.", f"Use a number from {low:g} to {high:g}.")

    return check


def whole(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> None:
        number(low, high)(name, value)
        if not isinstance(value, int):
            raise FieldError(name, f"{name} is {value}.", "Use a whole number.")

    return check


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise FieldError(name, f"{name} is neither true nor false.")


def text(longest: int) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise FieldError(name, f"{name} is not a text of at most {longest} characters.")

    return check


def size(largest_bytes: int, *kinds: type) -> Check:
    """A structure of one of these kinds that is at most so large as JSON."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, kinds):
            raise FieldError(name, f"{name} has the wrong type.")
        if len(json.dumps(value)) > largest_bytes:
            raise FieldError(name, f"{name} is larger than {largest_bytes} bytes.")

    return check


def stop_texts(name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else value
    known = isinstance(texts, list) and len(texts) <= 16
    if not known or not all(isinstance(t, str) and len(t) <= 500 for t in texts):
        raise FieldError(name, f"{name} is not a text or a list of at most 16 texts of 500 characters.")


def flat_settings(name: str, value: Any) -> None:
    """Switches of a chat template such as enable_thinking: plain values only."""
    plain = isinstance(value, dict) and len(value) <= 16
    if not plain or not all(isinstance(v, (bool, int, str)) and len(str(v)) <= 200 for v in value.values()):
        raise FieldError(name, f"{name} is not an object of at most 16 plain values.")


def messages(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value or len(value) > 4096:
        raise FieldError(name, f"{name} is not a list of 1 to 4096 messages.")
    for index, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldError(f"{name}[{index}]", f"{name}[{index}] is not an object with a role.")
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            _no_remote_media(f"{name}[{index}]", part)


def _no_remote_media(name: str, part: Any) -> None:
    """An engine would fetch a remote address itself, from inside the network it runs in."""
    if not isinstance(part, dict):
        raise FieldError(name, f"{name} has a content part that is not an object.")
    for key in ("image_url", "video_url", "audio_url"):
        media = part.get(key)
        address = media.get("url") if isinstance(media, dict) else media
        if media is not None and not (isinstance(address, str) and address.startswith("data:")):
            raise FieldError(name, f"{name} refers to media by address.", "Send it as a data: URL.")


def prompt(name: str, value: Any) -> None:
    if not isinstance(value, (str, list)) or (isinstance(value, list) and len(value) > LARGEST_TOKENS):
        raise FieldError(name, f"{name} is neither a text nor a list.")


SAMPLING: dict[str, Check] = {
    "temperature": number(0, 10),
    "top_p": number(0, 1),
    "top_k": whole(-1, 1 << 20),
    "min_p": number(0, 1),
    "typical_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repeat_penalty": number(0, 10),
    "repeat_last_n": whole(-1, 1 << 16),
    "dry_multiplier": number(0, 100),
    "dry_base": number(0, 100),
    "dry_allowed_length": whole(0, 1 << 16),
    "dry_penalty_last_n": whole(-1, 1 << 16),
    "xtc_probability": number(0, 1),
    "xtc_threshold": number(0, 1),
    "dynatemp_range": number(0, 10),
    "dynatemp_exponent": number(0, 10),
    "mirostat": whole(0, 2),
    "mirostat_tau": number(0, 100),
    "mirostat_eta": number(0, 10),
    "samplers": size(2000, list, str),
    "seed": whole(-(1 << 63), (1 << 64) - 1),
    "logit_bias": size(64 << 10, dict, list),
    "stop": stop_texts,
    "n": whole(1, 8),
    "max_tokens": whole(-1, LARGEST_TOKENS),
    "n_predict": whole(-1, LARGEST_TOKENS),
    "ignore_eos": flag,
    "grammar": text(64 << 10),
    "json_schema": size(64 << 10, dict),
    "cache_prompt": flag,
    "timings_per_token": flag,
    "return_progress": flag,
    "stream": flag,
    "stream_options": size(2000, dict),
    "user": text(500),
}
CHAT: dict[str, Check] = {
    **SAMPLING,
    "messages": messages,
    "max_completion_tokens": whole(-1, LARGEST_TOKENS),
    "logprobs": flag,
    "top_logprobs": whole(0, 20),
    "response_format": size(64 << 10, dict),
    "tools": size(256 << 10, list),
    "tool_choice": size(2000, str, dict),
    "parallel_tool_calls": flag,
    "reasoning_effort": text(20),
    "reasoning_format": text(20),
    "chat_template_kwargs": flat_settings,
}
COMPLETION: dict[str, Check] = {
    **SAMPLING,
    "prompt": prompt,
    "logprobs": whole(0, 20),
    "n_probs": whole(0, 20),
    "echo": flag,
    "suffix": text(1 << 20),
}
TOKENIZE: dict[str, Check] = {
    "content": prompt,
    "add_special": flag,
    "parse_special": flag,
    "with_pieces": flag,
}
# Path of the gateway, which is also the engine's → what may be asked there.
POLICIES: dict[str, dict[str, Check]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/tokenize": TOKENIZE,
}
REQUIRED = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/tokenize": "content"}


def allowed(path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields that may pass, and the names of those left out; null means not given.

    Raises FieldError for a field out of its range or a missing one.
    """
    policy, required = POLICIES[path], REQUIRED[path]
    if body.get(required) is None:
        raise FieldError(required, f"{required} is missing.")
    kept = {name: value for name, value in body.items() if name in policy and value is not None}
    for name, value in kept.items():
        policy[name](name, value)
    return kept, sorted(name for name in body if name not in policy and name != "model")
