"""What a model is probably good for, by what its file says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deployments.advice.purposes import (
    CHAT,
    CODING,
    EMBEDDING,
    REASONING,
    RERANKING,
    VISION,
)
from deployments.formats.kinds import Kind

# llama.cpp, src/llama-arch.cpp: made for source text and for nothing else.
_CODE_ARCHS = frozenset({"codeshell", "refact", "starcoder", "starcoder2"})
# They write their thoughts always, whatever their file is called.
_REASONING_ARCHS = frozenset({"gpt-oss", "gpt_oss"})
# coder, codellama, starcoder, and neither codec nor encoder.
_CODE_WORD = re.compile(r"code(?!c)\w*|coding|devstral|(?!en|de)\w+coder")
_REASONING_WORDS = frozenset(
    {"r1", "qwq", "reasoner", "reasoning", "think", "thinking", "magistral", "math"}
)
_BASE_WORDS = frozenset({"base", "pretrained", "pt"})


@dataclass(frozen=True)
class ModelTraits:
    """What a guess rests on. `names` are all that the file and its owner call it; `has_projector`
    is whether a projector lies beside it that is its own."""

    names: tuple[str, ...]
    arch: str = ""
    kind: str = Kind.TEXT
    pooling: str = ""
    has_projector: bool = False
    has_chat_template: bool = True


def guessed_purposes(model: ModelTraits) -> tuple[str, ...]:
    """Purposes that the model suits; none where nothing tells, as of a base model."""
    if model.kind == Kind.RERANKER or model.pooling == "rank":
        return (RERANKING,)
    if model.kind == Kind.EMBEDDING or model.pooling not in ("", "none"):
        return (EMBEDDING,)
    if model.kind != Kind.TEXT:
        return ()
    found = [name for name, suits in _OF_TEXT if suits(model)]
    if not found and _chats(model):
        found = [CHAT]
    if model.has_projector:
        found.append(VISION)
    return tuple(found)


def _codes(model: ModelTraits) -> bool:
    is_named = any(_CODE_WORD.fullmatch(word) for word in _words(model))
    return is_named or model.arch in _CODE_ARCHS


def _reasons(model: ModelTraits) -> bool:
    return model.arch in _REASONING_ARCHS or bool(_words(model) & _REASONING_WORDS)


def _chats(model: ModelTraits) -> bool:
    return model.has_chat_template and not _words(model) & _BASE_WORDS


_OF_TEXT = ((CODING, _codes), (REASONING, _reasons))


def _words(model: ModelTraits) -> set[str]:
    """Of the names as they are written, and with a word beginning at each capital inside."""
    text = " ".join(model.names)
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return set(re.findall(r"[a-z0-9]+", f"{text} {parted}".lower()))
