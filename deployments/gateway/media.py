"""Images and sound in a request: what it holds, within limits, and whether a deployment takes
that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deployments.formats.projectors import Medium
from deployments.gateway.shapes import FieldError
from omni.errors import OmniError
from omni.units import bytes_text

MOST_IMAGES = 32
# As it is written in the request, in base64: a third more than the file has.
LARGEST_IMAGE_BYTES = 16 << 20
# A part of a message → what it holds.
PARTS: Mapping[str, Medium] = {
    "image_url": Medium.IMAGE,
    "source": Medium.IMAGE,
    "input_audio": Medium.AUDIO,
    "audio_url": Medium.AUDIO,
}
WORDS = {Medium.IMAGE: ("no_vision", "images"), Medium.AUDIO: ("no_audio", "audio")}


def media_in(body: Mapping[str, Any]) -> frozenset[Medium]:
    """What the messages of a checked request hold besides text. Raises FieldError beyond a
    limit."""
    found = set()
    images = 0
    for name, key, part in _parts(body):
        found.add(PARTS[key])
        if PARTS[key] != Medium.IMAGE:
            continue
        images += 1
        size = _size_bytes(part[key])
        if size > LARGEST_IMAGE_BYTES:
            text = (
                f"{name} has an image of {bytes_text(size)}; one may have"
                f" {bytes_text(LARGEST_IMAGE_BYTES)} in base64."
            )
            raise FieldError(name, text, "Send it smaller.")
    if images > MOST_IMAGES:
        text = f"The request has {images} images; it may have {MOST_IMAGES}."
        raise FieldError("messages", text, "Send fewer at once.")
    return frozenset(found)


def _parts(
    body: Mapping[str, Any],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name of its message, key, part) of what is not text, in whichever API's words."""
    for field in ("messages", "input"):
        messages = body.get(field)
        for index, message in enumerate(messages if isinstance(messages, list) else ()):
            if isinstance(message, dict):
                for key, part in _media_of(message.get("content")):
                    yield f"{field}[{index}]", key, part


def _media_of(content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        # Of documents, too, Anthropic's messages have a source.
        is_document = part.get("type") == "document"
        for key in part:
            if key in PARTS and part[key] is not None and not is_document:
                yield key, part
        # What a tool gave back, of Anthropic's messages.
        if part.get("type") == "tool_result":
            yield from _media_of(part.get("content"))


def _size_bytes(media: Any) -> int:
    """Of an address, or of Anthropic's source."""
    if isinstance(media, dict):
        media = media.get("url") or media.get("data")
    return len(media) if isinstance(media, str) else 0


def check_taken(
    media: Iterable[Medium],
    deployment: str,
    takes: frozenset[Medium] | None,
    others: Mapping[str, frozenset[Medium] | None],
) -> None:
    """Raises OmniError (no_vision, no_audio) where it is known not to take what a request holds,
    naming those that do; None is not known."""
    if takes is None:
        return
    for medium in sorted(set(media) - takes):
        code, word = WORDS[medium]
        able = sorted(
            name for name, theirs in others.items() if medium in (theirs or ())
        )
        if able:
            fix = f"These do: {', '.join(able)}."
        else:
            fix = "No other that can be asked for does; give a deployment a projector on its page."
        text = f"Deployment {deployment!r} takes no {word}."
        raise OmniError(code, text, fix)
