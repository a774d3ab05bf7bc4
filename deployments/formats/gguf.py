"""Reads the header of a GGUF file, all its shards, and nothing else of it.

Format: GGUF specification, versions 2 and 3, either byte order; split models as llama.cpp names and
numbers their files (llama.h, llama_split_path).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from deployments.formats.gguf_tensors import (
    MAX_TENSORS,
    TensorInfo,
    read_table,
    with_offsets,
)
from deployments.formats.gguf_values import Cursor, LazyArray, LazyText
from deployments.formats.gguf_window import (
    Budget,
    GgufError,
    Opener,
    open_file,
    printable,
)
from deployments.formats.limits import MAX_NUMBER

__all__ = [
    "GgufError",
    "GgufHeader",
    "LazyArray",
    "LazyText",
    "TensorInfo",
    "read_header",
    "read_shards",
    "shard_paths",
]

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
# Far above what real models have.
MAX_KEYS = 16_384
MAX_SHARDS = 1_024
TOKENS = "tokenizer.ggml.tokens"

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL
)


@dataclass(frozen=True)
class GgufHeader:
    """What the headers of all shards say. Long arrays are LazyArray, very long texts LazyText."""

    paths: tuple[Path, ...]
    version: int
    big_endian: bool
    alignment: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    file_size_bytes: int

    @cached_property
    def arch(self) -> str:
        arch = self.metadata.get("general.architecture", "")
        if isinstance(arch, str):
            return arch
        return ""

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(key, default)

    def arch_get(self, suffix: str, default: Any = None) -> Any:
        """The value of '<architecture>.<suffix>'."""
        return self.metadata.get(f"{self.arch}.{suffix}", default)

    @cached_property
    def n_params(self) -> int:
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary; where the file carries none, what the architecture says."""
        if (tokens := self.metadata.get(TOKENS)) is not None:
            if isinstance(tokens, LazyArray | list):
                return len(tokens)
            return 0
        size = self.arch_get("vocab_size", 0)
        if isinstance(size, int) and 0 <= size <= MAX_NUMBER:
            return size
        return 0

    def tokens(self) -> tuple[bytes, ...]:
        """The text of every token, as bytes: not all of them are valid UTF-8. Raises GgufError."""
        return tuple(self._raw_tokens())

    def _raw_tokens(self) -> Iterator[bytes]:
        tokens = self.metadata.get(TOKENS, [])
        if isinstance(tokens, LazyArray):
            yield from tokens.raw_strings()
            return
        if not isinstance(tokens, list) or not all(
            isinstance(token, str) for token in tokens
        ):
            raise GgufError(
                "gguf_invalid", self.paths[0], f"{TOKENS} is not an array of texts"
            )
        yield from (token.encode("utf-8", "surrogateescape") for token in tokens)


@dataclass(frozen=True)
class _Shard:
    path: Path
    version: int
    order: str
    metadata: dict[str, Any]
    tensors: list[TensorInfo]
    alignment: int
    size_bytes: int


# --- one file -------------------------------------------------------------------------------------
def _start(cursor: Cursor) -> tuple[int, int, int]:
    """Magic, version, byte order and the two counts: (version, tensors, keys)."""
    magic = cursor.raw(min(4, cursor.size))
    if magic != MAGIC:
        if magic:
            text = f"it begins with {magic!r}, not with {MAGIC!r}"
        else:
            text = "the file is empty"
        raise cursor.fail("gguf_not_gguf", text, 0)
    version = cursor.number(cursor.u32)
    if version & 0xFFFF == 0:  # read in the wrong byte order: 3 becomes 0x03000000
        cursor.byte_order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in (2, 3):
        raise cursor.fail(
            "gguf_version", f"GGUF version {version} is not supported, only 2 and 3", 4
        )
    n_tensors = cursor.number(cursor.u64)
    n_keys = cursor.number(cursor.u64)
    room = cursor.size - cursor.position
    if n_keys > MAX_KEYS or n_keys * 13 > room:
        raise cursor.fail(
            "gguf_invalid", f"{n_keys} metadata keys cannot be in this file", 16
        )
    if n_tensors > MAX_TENSORS or n_tensors * 24 > room:
        raise cursor.fail(
            "gguf_invalid", f"{n_tensors} tensors cannot be in this file", 8
        )
    return version, n_tensors, n_keys


def _metadata(cursor: Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        at = cursor.position
        key = cursor.name("a key")
        if key in metadata:
            raise cursor.fail(
                "gguf_invalid", f"the key {printable(key)!r} is there twice", at
            )
        metadata[key] = cursor.keep(cursor.value(cursor.number(cursor.u32)), at)
    return metadata


def _alignment(cursor: Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if (
        not isinstance(alignment, int)
        or not 0 < alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        text = (
            f"the alignment {printable(repr(alignment))} is not a power of two up to"
            f" {MAX_ALIGNMENT}"
        )
        raise cursor.fail("gguf_invalid", text)
    return alignment


def _read_shard(path: Path, number: int, budget: Budget, opener: Opener) -> _Shard:
    with Cursor(path, budget=budget, opener=opener) as cursor:
        version, n_tensors, n_keys = _start(cursor)
        metadata = _metadata(cursor, n_keys)
        alignment = _alignment(cursor, metadata)
        tensors = with_offsets(cursor, read_table(cursor, n_tensors), alignment, number)
        return _Shard(
            path, version, cursor.order, metadata, tensors, alignment, cursor.size
        )


# --- all shards -----------------------------------------------------------------------------------
def shard_paths(path: Path) -> tuple[Path, ...]:
    """All shards of the model this file belongs to, in order, whether they exist or not.

    By the name; a file of such a name whose header says nothing of shards is a model by itself.
    """
    match = _SHARD.fullmatch(path.name)
    if (
        not match
        or not 1 <= int(match["number"]) <= (count := int(match["count"])) <= MAX_SHARDS
    ):
        return (path,)
    if count > 1 and _is_whole(path):
        return (path,)
    return tuple(
        path.with_name(f"{match['stem']}-{n:05d}-of-{count:05d}.gguf")
        for n in range(1, count + 1)
    )


def _is_whole(path: Path) -> bool:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return _says_nothing_of_shards(
        path, (found.st_size, found.st_mtime_ns, found.st_ino)
    )


@lru_cache(maxsize=4096)
def _says_nothing_of_shards(path: Path, _stamp: tuple[int, int, int]) -> bool:
    """The engine refuses a shard without these keys (llama-model-loader.cpp)."""
    try:
        with Cursor(path) as cursor:
            _, _, n_keys = _start(cursor)
            metadata = _metadata(cursor, n_keys)
    except GgufError:
        return False
    return not metadata.keys() & {"split.count", "split.no"}


def _check_complete(paths: Sequence[Path]) -> None:
    missing = [shard.name for shard in paths if not _exists(shard)]
    if missing and len(paths) > 1:
        text = (
            f"{len(missing)} of {len(paths)} shards are missing:"
            f" {printable(', '.join(missing[:3]), 200)}"
        )
        raise GgufError(
            "gguf_incomplete", paths[0], text, fix="Put all shards into one folder."
        )


def _exists(path: Path) -> bool:
    """False only where it is sure; a file that cannot be looked at is named when it is opened."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _check_shard(shard: _Shard, number: int, shards: Sequence[_Shard]) -> None:
    """Number, count and byte order have to be those of the set (llama-model-loader.cpp)."""
    fix = "Put back the names the files had."
    declared = shard.metadata.get("split.count", 1)
    if declared != len(shards) and (number == 0 or "split.count" in shard.metadata):
        known = printable(str(declared))
        text = (
            f"the name says it is one of {len(shards)} shards, the header says one of"
            f" {known}"
        )
        raise GgufError("gguf_incomplete", shard.path, text, fix=fix)
    own = shard.metadata.get("split.no", number)
    if own != number:
        text = (
            f"the name says it is shard {number + 1}, the header says"
            f" {printable(str(own))} (counted from 0)"
        )
        raise GgufError("gguf_incomplete", shard.path, text, fix=fix)
    if shard.order != shards[0].order:
        raise GgufError(
            "gguf_incomplete",
            shard.path,
            "its byte order is not that of the first shard",
        )


def _all_tensors(shards: Sequence[_Shard]) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in tensors:
                raise GgufError(
                    "gguf_invalid",
                    shard.path,
                    f"tensor {printable(tensor.name)!r} is there twice",
                )
            tensors[tensor.name] = tensor
    declared = shards[0].metadata.get("split.tensors.count", len(tensors))
    if len(shards) > 1 and declared != len(tensors):
        text = (
            f"the shards hold {len(tensors)} tensors, the first one says"
            f" {printable(str(declared))}"
        )
        raise GgufError(
            "gguf_incomplete", shards[0].path, text, fix="Download all shards again."
        )
    return tuple(tensors.values())


def read_header(path: str | Path) -> GgufHeader:
    """Reads the header of a GGUF; of a split model all shards, whichever of them is named.

    A key that several shards have is the first shard's. Raises GgufError with code model_missing,
    model_unreadable, gguf_not_gguf, gguf_version, gguf_type, gguf_truncated, gguf_invalid or
    gguf_incomplete.
    """
    paths = shard_paths(Path(path))
    _check_complete(paths)
    return read_shards(paths)


def read_shards(paths: Sequence[Path], opener: Opener = open_file) -> GgufHeader:
    """Reads the headers of these files, all the shards of one model in their order, from wherever
    the opener finds their bytes. Raises GgufError, or what the opener raises."""
    budget = Budget()
    shards = [
        _read_shard(shard, number, budget, opener) for number, shard in enumerate(paths)
    ]
    metadata: dict[str, Any] = {}
    for number, shard in enumerate(shards):
        _check_shard(shard, number, shards)
        metadata = shard.metadata | metadata
    return GgufHeader(
        paths=tuple(paths),
        version=shards[0].version,
        big_endian=shards[0].order == ">",
        alignment=shards[0].alignment,
        metadata=metadata,
        tensors=_all_tensors(shards),
        file_size_bytes=sum(shard.size_bytes for shard in shards),
    )
