"""What of a request's body reaches an engine: fields from an allow-list, each within its range.

Engines have had memory errors behind fields nobody needs (a negative n_discard, chat_parser) and
can be kept busy without end by others (a huge n, an endless grammar). What is not listed here is
left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deployments.engines.request_fields import LARGEST_TOKENS
from deployments.gateway.constraints import check_grammar, check_schema
from deployments.gateway.shapes import FieldError
from omni.json_text import DEEPEST, is_deeper_than
from omni.numbers import written

Check = Callable[[str, Any], None]

MOST_MESSAGES = 4096
MOST_DOCUMENTS = 4096
MOST_FILES = 256


def number(low: float, high: float) -> Check:
    fix = f"Use a number from {written(low)} to {written(high)}."

    def check(name: str, value: Any) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or value != value
        ):
            raise FieldError(name, f"{name} is not a number.", fix)
        if not low <= value <= high:
            raise FieldError(name, f"{name} is {written(value)}.", fix)

    return check


def whole(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> None:
        number(low, high)(name, value)
        if not isinstance(value, int):
            raise FieldError(
                name, f"{name} is {written(value)}.", "Use a whole number."
            )

    return check


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise FieldError(name, f"{name} is neither true nor false.")


def text(longest: int) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise FieldError(
                name, f"{name} is not a text of at most {longest} characters."
            )

    return check


def size(largest_bytes: int, *kinds: type) -> Check:
    """A structure of one of these kinds that is at most so large as JSON."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, kinds):
            raise FieldError(name, f"{name} has the wrong type.")
        not_too_deep(name, value)
        if len(json.dumps(value)) > largest_bytes:
            raise FieldError(name, f"{name} is larger than {largest_bytes} bytes.")

    return check


def schema(largest_bytes: int, *kinds: type) -> Check:
    """A structure that holds schemas, each within the limits of constraints."""
    fits = size(largest_bytes, *kinds)

    def check(name: str, value: Any) -> None:
        fits(name, value)
        check_schema(name, value)

    return check


def stop_texts(name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else value
    known = isinstance(texts, list) and len(texts) <= 16
    if not known or not all(isinstance(t, str) and len(t) <= 500 for t in texts):
        raise FieldError(
            name,
            f"{name} is not a text or a list of at most 16 texts of 500 characters.",
        )


def flat_settings(name: str, value: Any) -> None:
    """Switches of a chat template such as enable_thinking: plain values only."""
    plain = isinstance(value, dict) and len(value) <= 16
    if not plain or not all(
        isinstance(v, (bool, int, str)) and len(str(v)) <= 200 for v in value.values()
    ):
        raise FieldError(name, f"{name} is not an object of at most 16 plain values.")


def not_too_deep(name: str, value: Any) -> None:
    if is_deeper_than(value, DEEPEST):
        raise FieldError(
            name, f"{name} nests lists and objects more than {DEEPEST} deep."
        )


def listed(name: str, value: Any, most: int, what: str) -> list[Any]:
    """A list of at least one and at most so many; not nested too deep."""
    if not isinstance(value, list) or not value or len(value) > most:
        raise FieldError(name, f"{name} is not a list of 1 to {most} {what}.")
    not_too_deep(name, value)
    return value


def only_texts(
    at: str, holder: Mapping[str, Any], words: Iterable[str], whose: str = ""
) -> None:
    """Where it has these words they are texts; `whose` part of what is at `at` it is."""
    for word in words:
        value = holder.get(word)
        if value is not None and not isinstance(value, str):
            raise FieldError(at, f"{at} has {whose}a {word} that is not a text.")


def messages(name: str, value: Any) -> None:
    listed(name, value, MOST_MESSAGES, "messages")
    for index, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldError(
                f"{name}[{index}]", f"{name}[{index}] is not an object with a role."
            )
        _check_message(f"{name}[{index}]", message)


def _check_message(name: str, message: Mapping[str, Any]) -> None:
    content = message.get("content")
    if content is not None and not isinstance(content, (str, list)):
        raise FieldError(
            name, f"{name} has a content that is neither a text nor a list of parts."
        )
    for part in content if isinstance(content, list) else ():
        no_remote_media(name, part)
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise FieldError(name, f"{name} has a text part without a text.")
    only_texts(name, message, ("reasoning_content", "name", "tool_call_id"))
    calls = message.get("tool_calls")
    if calls is not None and not (
        isinstance(calls, list) and all(map(_is_call, calls))
    ):
        raise FieldError(
            name,
            f"{name} has tool_calls that are not a list of calls with a name and arguments.",
        )


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict):
        words = [function.get("name"), function.get("arguments")]
    else:
        words = [None]
    return all(isinstance(word, str) for word in words) and isinstance(
        call.get("id", ""), str
    )


def tools(name: str, value: Any) -> None:
    schema(256 << 10, list)(name, value)
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise FieldError(name, f"{name}[{index}] is not an object with a type.")
        if tool["type"] == "function" and not (
            isinstance(function, dict) and isinstance(function.get("name"), str)
        ):
            raise FieldError(name, f"{name}[{index}] has no function with a name.")


def one_of(*words: str) -> Check:
    def check(name: str, value: Any) -> None:
        if value not in words:
            raise FieldError(
                name,
                f"{name} is none of those known.",
                f"Use one of: {', '.join(words)}.",
            )

    return check


def no_remote_media(name: str, part: Any) -> None:
    """An engine would fetch a remote address itself, from inside the network it runs in."""
    if not isinstance(part, dict):
        raise FieldError(name, f"{name} has a content part that is not an object.")
    for key in ("image_url", "video_url", "audio_url", "file_url"):
        media = part.get(key)
        address = media.get("url") if isinstance(media, dict) else media
        if media is not None and not (
            isinstance(address, str) and address.startswith("data:")
        ):
            raise FieldError(
                name, f"{name} refers to media by address.", "Send it as a data: URL."
            )


def prompt(name: str, value: Any) -> None:
    if not isinstance(value, (str, list)) or (
        isinstance(value, list) and len(value) > LARGEST_TOKENS
    ):
        raise FieldError(name, f"{name} is neither a text nor a list.")
    if is_deeper_than(value, 2):
        raise FieldError(
            name,
            f"{name} is neither a text, nor a list of texts, tokens or lists of tokens.",
        )
    for part in value if isinstance(value, list) else ():
        if not isinstance(part, (str, list)) and not _is_token(part):
            raise FieldError(
                name, f"{name} has a part that is neither a text nor a token."
            )
        if isinstance(part, list) and not all(
            isinstance(inner, str) or _is_token(inner) for inner in part
        ):
            raise FieldError(
                name, f"{name} has a part that is neither a text nor a token."
            )


def _is_token(value: Any) -> bool:
    return (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    )


def content(name: str, value: Any) -> None:
    """What is to be cut into tokens."""
    if not isinstance(value, (str, list)):
        raise FieldError(name, f"{name} is neither a text nor a list.")
    if isinstance(value, list) and not all(isinstance(part, str) for part in value):
        raise FieldError(name, f"{name} has a part that is not a text.")


def any_text(name: str, value: Any) -> None:
    """Its length is limited by the body's alone."""
    if not isinstance(value, str):
        raise FieldError(name, f"{name} is not a text.")


def token_ids(most: int) -> Check:
    def check(name: str, value: Any) -> None:
        known = isinstance(value, list) and len(value) <= most
        if not known or not all(map(_is_token, value)):
            raise FieldError(name, f"{name} is not a list of at most {most} tokens.")

    return check


def embedded(name: str, value: Any) -> None:
    """What is to become vectors."""
    prompt(name, value)
    if value == []:
        raise FieldError(name, f"{name} is empty.")


def documents(name: str, value: Any) -> None:
    """What is to be put in order."""
    for index, one in enumerate(listed(name, value, MOST_DOCUMENTS, "texts")):
        said = one.get("text") if isinstance(one, dict) else one
        any_text(f"{name}[{index}]", said)


def other_files(name: str, value: Any) -> None:
    """What stands in files beside the one that is written in."""
    for index, one in enumerate(listed(name, value, MOST_FILES, "files")):
        at = f"{name}[{index}]"
        if not isinstance(one, dict):
            raise FieldError(at, f"{at} is not an object with a text.")
        any_text(at, one.get("text"))
        any_text(at, one.get("filename", ""))


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
    "grammar": check_grammar,
    "json_schema": schema(64 << 10, dict),
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
    "response_format": schema(64 << 10, dict),
    "tools": tools,
    "tool_choice": size(2000, str, dict),
    "parallel_tool_calls": flag,
    "reasoning_effort": text(20),
    "reasoning_format": one_of("none", "auto", "deepseek", "deepseek-legacy"),
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
INFILL: dict[str, Check] = {
    **SAMPLING,
    "input_prefix": any_text,
    "input_suffix": any_text,
    "input_extra": other_files,
    "prompt": any_text,
    "n_probs": whole(0, 20),
}
TOKENIZE: dict[str, Check] = {
    "content": content,
    "add_special": flag,
    "parse_special": flag,
    "with_pieces": flag,
}
DETOKENIZE: dict[str, Check] = {"tokens": token_ids(LARGEST_TOKENS)}
EMBEDDINGS: dict[str, Check] = {
    "input": embedded,
    "encoding_format": one_of("float", "base64"),
    "embd_normalize": whole(-1, 100),
    "user": text(500),
}
RERANK: dict[str, Check] = {
    "query": any_text,
    "documents": documents,
    "top_n": whole(1, MOST_DOCUMENTS),
    "return_documents": flag,
    "return_text": flag,
}
# Fields that take long to check.
TAKE_LONG = frozenset({"grammar", "json_schema", "response_format", "text", "tools"})


def allowed(
    policy: Mapping[str, Check], required: Iterable[str], body: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The fields that may pass, and the names of those left out; null means not given.

    Raises FieldError for a field out of its range or a missing one.
    """
    for name in required:
        if body.get(name) is None:
            raise FieldError(name, f"{name} is missing.")
    kept = {
        name: value
        for name, value in body.items()
        if name in policy and value is not None
    }
    for name, value in kept.items():
        policy[name](name, value)
    return kept, sorted(name for name in body if name not in policy and name != "model")
