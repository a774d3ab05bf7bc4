"""A file of prompts, one JSON object a line: read whole, or refused with every wrong line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deployments.bench.prompts import Prompt
from deployments.engines.request_fields import LARGEST_TOKENS
from omni.errors import OmniError
from omni.json_text import NotJson, read_json, storable

LARGEST_FILE_BYTES = 256 << 20
# Of a file that is wrong throughout, the first lines say enough.
MOST_PROBLEMS = 20
KEYS = ("messages", "prompt", "max_tokens")
ROLES = ("system", "user", "assistant")
EXAMPLE = '{"prompt": "Why is the sky blue?", "max_tokens": 200}'


class PromptFileError(OmniError):
    """`problems` are sentences, each with the line that it is about."""

    def __init__(self, text: str, problems: list[str], fix: str) -> None:
        super().__init__("bad_prompts", text, fix)
        self.problems = problems


class _WrongLine(Exception):
    """What is wrong with a line, and what to do."""


def read_prompts(path: Path, max_tokens: int) -> list[Prompt]:
    """The prompts of a file; `max_tokens` is for lines that name none.

    Raises PromptFileError.
    """
    return parse_prompts(_content(path), max_tokens, source=str(path), name=path.stem)


def parse_prompts(
    content: bytes, max_tokens: int, *, source: str, name: str
) -> list[Prompt]:
    """As read_prompts, of what has been read already. Problems say that they are of `source`, and
    the prompts are called after `name`."""
    prompts: list[Prompt] = []
    problems: list[str] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            prompts.append(_prompt(f"{name}/{number}", line, max_tokens))
        except _WrongLine as wrong:
            problems.append(f"{source}, line {number}: {wrong}")

    if problems:
        shown = problems[:MOST_PROBLEMS]
        more = len(problems) - len(shown)
        text = "\n".join(shown) + (f"\n… and {more} more lines." if more else "")
        fix = f"A line is, for example, {EXAMPLE}."
        raise PromptFileError(text, problems, fix)
    if not prompts:
        text = f"{source} holds no prompts."
        raise PromptFileError(text, [text], f"Write one a line: {EXAMPLE}.")
    return prompts


def _content(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > LARGEST_FILE_BYTES:
            text = f"{path} is larger than {LARGEST_FILE_BYTES >> 20} MiB."
            raise PromptFileError(text, [text], "Divide it into several files.")
        return path.read_bytes()
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}."
        fix = "Name a file of prompts that exists and may be read."
        raise PromptFileError(text, [text], fix) from None


# --- as a text again ------------------------------------------------------------------------------
def lines_of(kept: Iterable[Mapping[str, Any]]) -> str:
    """What a run keeps as the text of a file again."""
    return "".join(f"{_line_of(row)}\n" for row in kept)


def _line_of(row: Mapping[str, Any]) -> str:
    messages, max_tokens = row["messages"], row["max_tokens"]
    line: dict[str, Any] = {"messages": messages, "max_tokens": max_tokens}
    if len(messages) == 1 and messages[0]["role"] == "user":
        line = {"prompt": messages[0]["content"], "max_tokens": max_tokens}
    return json.dumps(line, ensure_ascii=False)


# --- a line ---------------------------------------------------------------------------------------
def _prompt(name: str, line: bytes, max_tokens: int) -> Prompt:
    found = _object(line)

    unknown = sorted(found.keys() - KEYS)
    if unknown:
        raise _WrongLine(
            f"{unknown[0]!r} is not known here. Leave it out; {', '.join(KEYS)} are known."
        )
    if ("messages" in found) == ("prompt" in found):
        raise _WrongLine("It needs either messages or a prompt. Write one of the two.")

    if "prompt" in found:
        messages = _one_question(found["prompt"])
    else:
        messages = _messages(found["messages"])
    return Prompt(name, messages, _max_tokens(found.get("max_tokens", max_tokens)))


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise _WrongLine(
            f"Byte {error.start + 1} is not UTF-8. Save the file as UTF-8."
        ) from None
    try:
        found = read_json(line)
    except NotJson as error:
        raise _WrongLine(
            f"It is not JSON: {error}. Write one JSON object a line."
        ) from None
    if not isinstance(found, dict):
        raise _WrongLine("It is not a JSON object. Write it in braces.")
    return found


def _one_question(text: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(text, str) or not text.strip():
        raise _WrongLine("prompt is not a text with words in it. Write the question.")
    return ({"role": "user", "content": storable(text)},)


def _messages(messages: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise _WrongLine(
            "messages is not a list with a message in it. Write at least a question."
        )
    checked = tuple(_message(place, one) for place, one in enumerate(messages, 1))
    if checked[-1]["role"] != "user":
        raise _WrongLine(
            "The last message is not the user's. End with what is to be answered."
        )
    return checked


def _message(place: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        raise _WrongLine(
            f"Message {place} is not an object of role and content. Write these two."
        )
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise _WrongLine(
            f"The role of message {place} is not known. Use {', '.join(ROLES)}."
        )
    if not isinstance(content, str) or not content.strip():
        raise _WrongLine(
            f"The content of message {place} is not a text with words in it. Write one."
        )
    return {"role": role, "content": storable(content)}


def _max_tokens(value: Any) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= LARGEST_TOKENS:
        raise _WrongLine(
            f"max_tokens is not a whole number from 1 to {LARGEST_TOKENS}. Write one."
        )
    return int(value)
