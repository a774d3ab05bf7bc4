"""What an image file is by its own bytes: format, width and height (pure).

Neither its name nor what the browser says of it is believed. Nothing is decoded here: that is the
engine's work, so what would take too much memory decoded is refused by the size its header says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import error as StructError
from struct import unpack_from

from omni.errors import OmniError
from omni.units import bytes_text

MOST_IMAGES = 4  # a message
LARGEST_IMAGE_BYTES = 5 << 20
# Of all images of a conversation that are sent along: in base64 they are a third longer, and the
# text has to fit into the same request (deployments.gateway.asgi.LARGEST_BODY_BYTES).
LARGEST_TOGETHER_BYTES = 20 << 20
# Decoded it is three bytes each, and encoders make it smaller anyway.
MOST_PIXELS = 50_000_000

KINDS: Mapping[str, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP", "gif": "GIF"}
# How each is served. Nothing else is ever named to a browser.
CONTENT_TYPES: Mapping[str, str] = {kind: f"image/{kind}" for kind in KINDS}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers of JPEG; 0xC4, 0xC8 and 0xCC among them are something else.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Picture:
    """What the bytes of an image say of it."""

    kind: str  # a key of KINDS
    width: int
    height: int


class _CutOff(Exception):
    """It begins as its format does, and what must follow is not there."""


def picture_of(data: bytes) -> Picture:
    """Raises OmniError for what is no image, too large, or cut off."""
    if not data:
        raise OmniError("empty_image", "The file is empty.", "Choose another.")
    if len(data) > LARGEST_IMAGE_BYTES:
        raise too_large(len(data))
    found = _read(data)
    if found.width * found.height > MOST_PIXELS:
        size = f"{found.width} × {found.height}"
        most = f"{MOST_PIXELS // 1_000_000} megapixels"
        text = f"The image has {size} pixels; one may have {most}."
        raise OmniError("too_many_pixels", text, "Make it smaller.")
    return found


def too_large(size_bytes: int) -> OmniError:
    text = (
        f"The image has {bytes_text(size_bytes)}; one may have"
        f" {bytes_text(LARGEST_IMAGE_BYTES)}."
    )
    return OmniError("image_too_large", text, "Make it smaller.")


def _read(data: bytes) -> Picture:
    for kind, is_it, size_of in FORMATS:
        if not is_it(data):
            continue
        try:
            width, height = size_of(data)
        except (_CutOff, StructError, IndexError):
            width = height = 0
        if width and height:
            return Picture(kind, width, height)
        text = f"The {KINDS[kind]} file is cut off or broken."
        raise OmniError("broken_image", text, "Choose another.")
    raise OmniError(
        "no_image",
        "The file is no image that can be sent.",
        f"{', '.join(KINDS.values())} can.",
    )


def _png(data: bytes) -> tuple[int, int]:
    """Chunk by chunk to the last, so that a file that was cut off is not taken."""
    if data[12:16] != b"IHDR":
        raise _CutOff
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        (length,) = unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        position += 12 + length
        if position > len(data):
            raise _CutOff
    return unpack_from(">II", data, 16)


def _jpeg(data: bytes) -> tuple[int, int]:
    """Segment by segment to the frame's header; the end of the image must be there, too."""
    if data.rfind(b"\xff\xd9") < 0:
        raise _CutOff
    position = 2
    while True:
        if data[position] != 0xFF:
            raise _CutOff
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker in FRAMES:
            height, width = unpack_from(">HH", data, position + 5)
            return width, height
        (length,) = unpack_from(">H", data, position + 2)
        position += 2 + max(length, 2)


def _gif(data: bytes) -> tuple[int, int]:
    if b"\x3b" not in data[13:]:  # the trailer
        raise _CutOff
    return unpack_from("<HH", data, 6)


def _webp(data: bytes) -> tuple[int, int]:
    """Lossy, lossless or extended: each says its size in its own way."""
    (length,) = unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise _CutOff
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width = int.from_bytes(_three(data, 24), "little")
        height = int.from_bytes(_three(data, 27), "little")
        return width + 1, height + 1
    raise _CutOff


def _three(data: bytes, position: int) -> bytes:
    found = data[position : position + 3]
    if len(found) < 3:
        raise _CutOff
    return found


# Format, whether a file begins as one, and how its size is read.
FORMATS: tuple[
    tuple[str, Callable[[bytes], bool], Callable[[bytes], tuple[int, int]]], ...
] = (
    ("png", lambda data: data.startswith(PNG_SIGNATURE), _png),
    ("jpeg", lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    ("gif", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _gif),
    ("webp", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
)
