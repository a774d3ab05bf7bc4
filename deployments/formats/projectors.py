"""What a projector's header says of itself: whether it sees or hears, with which encoder, and how
many tokens an image becomes.

Keys and defaults: llama.cpp, tools/mtmd/clip-impl.h and clip.cpp (load_hparams,
clip_n_output_tokens).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.formats.kinds import Kind

# No encoder has more; a header that says so is wrong, and is not computed with.
LARGEST = 1 << 20


class Medium(StrEnum):
    """What a request can hold besides text."""

    IMAGE = "image"
    AUDIO = "audio"


@dataclass(frozen=True)
class Encoder:
    """The part of a projector that looks or listens; 0 is what the header does not say."""

    type: str = ""
    width: int = 0  # of the vectors that it gives the model
    n_embd: int = 0
    n_ff: int = 0
    n_head: int = 0
    n_layer: int = 0


@dataclass(frozen=True)
class Projector:
    """`tokens` is the most that one image becomes, `patches` the most that are encoded at once;
    None is not known."""

    media: frozenset[Medium]
    vision: Encoder = Encoder()
    audio: Encoder = Encoder()
    image_size: int = 0
    patch_size: int = 0
    tokens: int | None = None
    patches: int | None = None
    # So many patches of a side become one token.
    merge: int = 1
    # Images are not cut to the encoder's size: a limit on their tokens can be set.
    keeps_size: bool = False

    @property
    def sees(self) -> bool:
        return Medium.IMAGE in self.media

    @property
    def hears(self) -> bool:
        return Medium.AUDIO in self.media


def projector_of(facts: Mapping[str, Any]) -> Projector | None:
    """Of the facts of a model's header (formats.model_facts); None where it is no projector."""
    if facts.get("kind") != Kind.PROJECTOR:
        return None
    keys = facts.get("hparams")
    read = _Keys(keys if isinstance(keys, Mapping) else {})
    vision = _encoder(read, "vision")
    image_size = read.whole("vision.image_size")
    patch_size = read.whole("vision.patch_size")
    media = _media(read)
    if Medium.IMAGE not in media:
        return Projector(media, audio=_encoder(read, "audio"))
    tiling = _Tiling(vision.type, image_size, patch_size, read)
    return Projector(
        media,
        vision,
        _encoder(read, "audio") if Medium.AUDIO in media else Encoder(),
        image_size,
        patch_size,
        tiling.tokens(),
        tiling.patches(),
        tiling.merge,
        bool(tiling.limit),
    )


class _Keys:
    """Numbers and texts of a header that anybody may have written."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys

    def whole(self, key: str, default: int = 0, largest: int = LARGEST) -> int:
        value = self.keys.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            return default
        return value if 0 < value <= largest else default

    def text(self, *keys: str) -> str:
        found = (self.keys.get(key) for key in keys)
        return next((text for text in found if isinstance(text, str) and text), "")

    def numbers(self, key: str) -> list[int]:
        value = self.keys.get(key)
        if not isinstance(value, list | tuple):
            return []
        return [
            int(one)
            for one in value
            if isinstance(one, int | float) and 0 < one <= LARGEST
        ]

    def is_set(self, key: str) -> bool:
        return self.keys.get(key) is True


def _media(read: _Keys) -> frozenset[Medium]:
    """What it says; of a file from before there were such keys, what it has numbers of."""
    parts = {"vision": Medium.IMAGE, "audio": Medium.AUDIO}
    said = {
        medium for part, medium in parts.items() if read.is_set(f"has_{part}_encoder")
    }
    if not said and not any(f"has_{part}_encoder" in read.keys for part in parts):
        said = {
            medium
            for part, medium in parts.items()
            if read.whole(f"{part}.embedding_length")
        }
    return frozenset(said)


def _encoder(read: _Keys, part: str) -> Encoder:
    return Encoder(
        read.text(f"{part}.projector_type", "projector_type"),
        read.whole(f"{part}.projection_dim"),
        read.whole(f"{part}.embedding_length"),
        read.whole(f"{part}.feed_forward_length"),
        read.whole(f"{part}.attention.head_count"),
        read.whole(f"{part}.block_count"),
    )


# --- images → tokens ------------------------------------------------------------------------------
# The type joins so many patches of a side into one token; a header may say another number.
_MERGES: Mapping[str, int] = {
    "adapter": 2,
    "gemma3": 4,
    "gemma4v": 3,
    "glm4v": 2,
    "ldp": 2,
    "ldpv2": 2,
    "qwen2.5vl_merger": 2,
    "qwen2vl_merger": 2,
    "qwen3vl_merger": 2,
    "step3vl": 4,
    "youtuvl": 2,
}
# Images keep their own size up to so many tokens (set_limit_image_tokens).
_LIMITS: Mapping[str, int] = {
    "gemma4v": 280,
    "glm4v": 4096,
    "kimik25": 4096,
    "kimivl": 1024,
    "lfm2": 256,
    "pixtral": 1024,
    "qwen2.5vl_merger": 4096,
    "qwen2vl_merger": 4096,
    "qwen3vl_merger": 4096,
    "youtuvl": 62500,
}
# Each image or piece of one becomes so many, however large it is.
_FIXED: Mapping[str, int] = {"gemma3nv": 256, "yasa2": 64}
_MERGE_KEYS = ("vision.projector.scale_factor", "vision.spatial_merge_size")
# Sizes in pixels that its images may have, where they keep their own.
_MOST_PIXELS = "vision.image_max_pixels"
_RESAMPLED, _RESAMPLED_OLD = 64, 96
INTERNVL_TILES = 12


@dataclass(frozen=True)
class _Tiling:
    """How one image is cut: into pieces of the encoder's own size, or left at its own size up to a
    limit."""

    type: str
    image_size: int
    patch_size: int
    read: _Keys

    @property
    def merge(self) -> int:
        found = (self.read.whole(key) for key in _MERGE_KEYS)
        return next(filter(None, found), _MERGES.get(self.type, 1))

    @property
    def limit(self) -> int:
        """The most tokens of an image that keeps its own size; 0 where it is cut into pieces."""
        pixels = self.read.whole(_MOST_PIXELS, largest=LARGEST * LARGEST)
        side = self.patch_size * self.merge
        if pixels and side and self.type not in _FIXED:
            return pixels // (side * side)
        return _LIMITS.get(self.type, 0)

    @property
    def side(self) -> int:
        """Patches along a side of a piece."""
        return self.image_size // self.patch_size if self.patch_size else 0

    def patches(self) -> int | None:
        if self.limit:
            return self.limit * self.merge * self.merge
        return self.side * self.side or None

    def tokens(self) -> int | None:
        if self.limit:
            return self.limit
        one = self._of_a_piece()
        return one * self.pieces if one else None

    def _of_a_piece(self) -> int:
        if self.type in _FIXED:
            return _FIXED[self.type]
        if self.type == "resampler":
            old = self.read.whole("minicpmv_version", 2) == 2
            default = _RESAMPLED_OLD if old else _RESAMPLED
            return self.read.whole("minicpmv_query_num", default)
        return self.side * self.side // (self.merge * self.merge)

    @property
    def pieces(self) -> int:
        """How many an image is cut into at most, with the small copy of the whole."""
        if not self.image_size:
            return 1
        if self.type == "internvl":
            return self.read.whole("vision.preproc_max_tiles", INTERNVL_TILES) + 1
        sizes = self.read.numbers("vision.image_grid_pinpoints")
        areas = [w * h for w, h in zip(sizes[::2], sizes[1::2], strict=False)]
        if areas:
            return max(max(areas) // (self.image_size * self.image_size), 1) + 1
        longest = self.read.whole("vision.preproc_image_size")
        across = math.ceil(longest / self.image_size)
        return across * across + 1 if across > 1 else 1
