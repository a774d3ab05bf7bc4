"""What routing looks at of a request: its last user turn, what stands before it, and what it
needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from deployments.engines.endpoints import EMBEDDINGS, RESPONSES

# Templates put a few tokens around each message.
TOKENS_AROUND_A_MESSAGE = 4
# What an image takes in a usual vision model.
TOKENS_OF_AN_IMAGE = 800
ASCII_CHARACTERS_PER_TOKEN = 3.6
SHORT_ANSWER, LONG_ANSWER = 256, 2048
# A text's first and last characters say what it is about; more would take longer to read.
HEAD_CHARACTERS = 800
TAIL_CHARACTERS = 400
SYSTEM = ("system", "developer")
# Where requests that are no chats have their text.
TEXT_FIELDS = ("prompt", "input", "content", "input_prefix", "query")
# A part of a message that is an image, by whichever API's word.
IMAGE_KINDS = ("image", "input_image", "image_url")


@dataclass(frozen=True)
class Prompt:
    """A request as routing sees it; `conversation` is the same for all requests of one
    conversation."""

    last_turn: str
    system: str = ""
    # The texts of the turns before, oldest first.
    earlier: tuple[str, ...] = ()
    # Whether it goes on: an answer stands before it, or its client gives its conversations names.
    goes_on: bool = False
    images: int = 0
    has_tools: bool = False
    has_schema: bool = False
    tokens: int = 0
    answer_tokens: int = 0
    is_embedding: bool = False
    conversation: str = ""
    prefix: str = ""

    @property
    def context_tokens(self) -> int:
        """What the prompt and the beginning of an answer need together; clients often allow far
        longer answers than they get."""
        return self.tokens + min(self.answer_tokens or SHORT_ANSWER, LONG_ANSWER)


def read_prompt(path: str, body: Mapping[str, Any]) -> Prompt:
    """The prompt of a request whose fields were checked; what is of another kind is passed over."""
    messages = _messages(path, body)
    if messages is not None:
        return _of_messages(body, messages)
    given = next((body[name] for name in TEXT_FIELDS if name in body), "")
    text, tokens = _of_prompt(given)
    return Prompt(
        text,
        has_schema=_has_schema(body),
        tokens=tokens,
        answer_tokens=_answer_tokens(body),
        is_embedding=path == EMBEDDINGS,
        conversation=_named(body),
        goes_on=bool(_named(body)),
    )


def _messages(path: str, body: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Who said what, in OpenAI's form; None of a request that is no conversation.

    Responses and Anthropic have what stands before it in a field of its own.
    """
    said = body.get("messages", body.get("input") if path == RESPONSES else None)
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    if not isinstance(said, list):
        return None
    before = body.get("instructions", body.get("system"))
    system = [{"role": "system", "content": before}] if before else []
    return system + [_turn(each) for each in said if isinstance(each, dict)]


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    """Of what a tool gave nobody said anything: Anthropic has it as the user's."""
    kinds = _kinds(message.get("content"))
    is_result = bool(kinds) and set(kinds) <= {"tool_result", *IMAGE_KINDS}
    if is_result and "tool_result" in kinds:
        return {**message, "role": "tool"}
    return message


def _kinds(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else []
    return [str(part.get("type")) for part in parts if isinstance(part, dict)]


def _of_messages(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> Prompt:
    turns = [(str(m.get("role")), text_of(m.get("content"))) for m in messages]
    system = "\n".join(text for role, text in turns if role in SYSTEM)
    spoken = [(role, text) for role, text in turns if role not in SYSTEM]
    places = [i for i, (role, _) in enumerate(spoken) if role == "user"]
    last = places[-1] if places else len(spoken) - 1
    images = sum(_images(m.get("content")) for m in messages)
    first_user = spoken[places[0]][1] if places else ""
    tools = body.get("tools")
    named = _named(body)
    return Prompt(
        spoken[last][1] if spoken else "",
        system=system,
        earlier=tuple(text for _, text in spoken[: max(last, 0)]),
        goes_on=bool(named) or any(role == "assistant" for role, _ in spoken),
        images=images,
        has_tools=bool(tools),
        has_schema=_has_schema(body),
        tokens=_tokens_of_turns(turns, images, tools),
        answer_tokens=_answer_tokens(body),
        conversation=named or _digest(system, first_user),
        prefix=_digest(system) if system else "",
    )


def text_of(content: Any) -> str:
    """The text of a message, whether it is one text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _images(content: Any) -> int:
    parts = content if isinstance(content, list) else []
    return sum(
        isinstance(part, dict)
        and ("image_url" in part or part.get("type") in IMAGE_KINDS)
        for part in parts
    )


def _of_prompt(prompt: Any) -> tuple[str, int]:
    """Text and number of tokens of a prompt that may be a list of texts or of tokens."""
    if isinstance(prompt, str):
        return prompt, estimated_tokens(prompt)
    if not isinstance(prompt, list):
        return "", 0
    texts = [part for part in prompt if isinstance(part, str)]
    tokens = sum(estimated_tokens(text) for text in texts)
    ids = [len(part) if isinstance(part, list) else 1 for part in prompt]
    return "\n".join(texts), tokens if texts else sum(ids)


def _has_schema(body: Mapping[str, Any]) -> bool:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    wanted = body.get("response_format") or wanted
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    return "json_schema" in body or kind in ("json_schema", "json_object")


def _answer_tokens(body: Mapping[str, Any]) -> int:
    """The most that the answer may have; 0 where the request does not say."""
    for name in (
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "n_predict",
    ):
        value = body.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 0


def _named(body: Mapping[str, Any]) -> str:
    """The conversation's id where the client gives one: OpenAI's field for requests that begin
    alike."""
    name = body.get("prompt_cache_key")
    return _digest("named", name) if isinstance(name, str) and name else ""


def _digest(*texts: str) -> str:
    joined = "\0".join(texts).encode(errors="replace")
    return sha256(joined).hexdigest()[:32]


def _tokens_of_turns(turns: Iterable[tuple[str, str]], images: int, tools: Any) -> int:
    written = sum(estimated_tokens(text) + TOKENS_AROUND_A_MESSAGE for _, text in turns)
    described = estimated_tokens(json.dumps(tools)) if tools else 0
    return written + described + images * TOKENS_OF_AN_IMAGE


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: no tokenizer is asked.

    Latin letters come to a few a token, Cyrillic ones to about two, Chinese characters to nearly a
    token each; how many more bytes than characters a text has tells them apart.
    """
    if text.isascii():
        return round(len(text) / ASCII_CHARACTERS_PER_TOKEN)
    more = len(text.encode(errors="replace")) - len(text)
    plain = len(text) - min(len(text), more / 1.5)
    return round(plain / ASCII_CHARACTERS_PER_TOKEN + more * 0.4)


def excerpt(text: str) -> str:
    """The beginning and the end of a long text, where people say what they want of it."""
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return f"{text[:HEAD_CHARACTERS]}\n{text[-TAIL_CHARACTERS:]}"
