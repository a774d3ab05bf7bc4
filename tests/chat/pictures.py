"""Small images of each format, as far as Omni looks into them, and files that are none."""

from __future__ import annotations

import struct
import zlib
from random import Random

from tests.vision_models import png, png_of


def jpeg(width: int = 32, height: int = 24) -> bytes:
    """Header, one segment, a frame, the end; no pixels."""
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"Omni"
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8" + comment + frame + b"\xff\xd9"


def gif(width: int = 32, height: int = 24) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + b"\x3b"


def webp(kind: str, width: int = 32, height: int = 24) -> bytes:
    """Lossy (VP8), lossless (VP8L) or extended (VP8X)."""
    body = {
        "VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
        "VP8L": b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14),
        "VP8X": b"\0\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little"),
    }[kind]
    chunk = kind.encode() + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Little to send, much to decode; of its pixels there is one row."""
    small = png()
    header = b"IHDR" + struct.pack(">II", width, height) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def photo(width: int = 2304, height: int = 1024) -> bytes:
    """Every pixel is another, as in the dark: 7 MB that nothing packs."""
    chance = Random(1)
    return png_of(width, height, [chance.randbytes(3 * width) for _ in range(height)])


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
ZIP = b"PK\x03\x04" + bytes(60)
