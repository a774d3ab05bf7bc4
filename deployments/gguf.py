"""Reads the header of a GGUF file, all its shards, and nothing else of it.

Format: GGUF specification, versions 2 and 3, either byte order. Files come from strangers: every
count and length is checked against the file and against a limit before it is believed.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from deployments.ggml_types import GGML_TYPES, GgmlType
from omni.errors import OmniError

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
# Far above what real models have; they bound the time and memory that a hostile header can take.
MAX_KEYS, MAX_TENSORS, MAX_DIMENSIONS = 65_536, 262_144, 8
MAX_STRING_BYTES, MAX_NAME_BYTES, MAX_NESTING = 16 << 20, 65_535, 3
# Strings and nested arrays have to be walked one by one; numbers are skipped at once.
MAX_WALKED = 3_000_000
# Arrays up to here are read at once; longer ones (vocabularies) when somebody asks.
EAGER_ELEMENTS = 1_024
MAX_EAGER_BYTES = 24 << 20

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


class GgufError(OmniError):
    """The file is no GGUF that can be used: what is wrong, in which file, at which byte."""

    def __init__(self, code: str, path: Path, text: str, offset: int | None = None, fix: str = "") -> None:
        where = path.name if offset is None else f"{path.name} at byte {offset}"
        super().__init__(code, f"{where}: {text}.", fix or "Download or copy the file again.")
        self.path, self.offset = path, offset


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `shape` is in the file's order, fastest dimension first; `offset` is absolute in its shard."""

    name: str
    ggml_type: GgmlType
    shape: tuple[int, ...]
    n_elements: int
    n_bytes: int
    offset: int
    shard: int


@dataclass(frozen=True)
class LazyArray:
    """A long array whose elements are read from the file when `load` is called."""

    path: Path
    offset: int
    element_type: int
    length: int
    order: str

    def __len__(self) -> int:
        return self.length

    def load(self) -> list[Any]:
        with _Cursor.open(self.path, self.order) as cursor:
            cursor.position = self.offset
            return cursor.elements(self.element_type, self.length, eager=True)

    def raw_strings(self) -> Iterator[bytes]:
        with _Cursor.open(self.path, self.order) as cursor:
            cursor.position = self.offset
            for _ in range(self.length):
                yield cursor.raw_string(MAX_STRING_BYTES)


@dataclass(frozen=True)
class GgufHeader:
    """What the headers of all shards say. Arrays longer than EAGER_ELEMENTS are LazyArray."""

    paths: tuple[Path, ...]
    version: int
    big_endian: bool
    alignment: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    file_size_bytes: int

    @property
    def arch(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

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
        return len(self.metadata.get("tokenizer.ggml.tokens", ()))

    def tokens(self) -> tuple[bytes, ...]:
        """The text of every token, as bytes: not all of them are valid UTF-8."""
        tokens = self.metadata.get("tokenizer.ggml.tokens", ())
        if isinstance(tokens, LazyArray):
            return tuple(tokens.raw_strings())
        return tuple(token.encode("utf-8", "surrogateescape") for token in tokens)

    def vocab_hash(self) -> str:
        """The same for two models exactly when their token texts are."""
        digest = sha256()
        for token in self.tokens():
            digest.update(len(token).to_bytes(4, "little") + token)
        return digest.hexdigest()


class _Cursor:
    """A position in a mapped file; every read is checked against the end."""

    def __init__(self, path: Path, data: mmap.mmap | bytes, order: str) -> None:
        self.path, self.data, self.order = path, data, order
        self.size = len(data)
        self.position = 0
        self.walked = 0
        self.eager_bytes = 0
        self.u32, self.u64 = struct.Struct(f"{order}I"), struct.Struct(f"{order}Q")

    @classmethod
    def open(cls, path: Path, order: str = "<") -> _Cursor:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            code, fix = ("model_missing", "Put it back, or remove the model.") if missing else ("model_unreadable", "")
            raise GgufError(code, path, error.strerror or "cannot be read", fix=fix) from None
        return cls(path, data, order)

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *exc: object) -> None:
        if isinstance(self.data, mmap.mmap):
            self.data.close()

    def fail(self, code: str, text: str, at: int | None = None) -> GgufError:
        return GgufError(code, self.path, text, self.position if at is None else at)

    def take(self, form: struct.Struct) -> Any:
        end = self.position + form.size
        if end > self.size:
            raise self.fail("gguf_truncated", f"the header ends {end - self.size} bytes too early")
        value = form.unpack_from(self.data, self.position)[0]
        self.position = end
        return value

    def raw_string(self, limit: int) -> bytes:
        start = self.position
        length = self.take(self.u64)
        if length > limit:
            raise self.fail("gguf_invalid", f"a text of {length} bytes is more than the {limit} allowed", start)
        end = self.position + length
        if end > self.size:
            raise self.fail("gguf_truncated", f"a text of {length} bytes goes beyond the end of the file", start)
        value = self.data[self.position : end]
        self.position = end
        return value

    def string(self, limit: int = MAX_STRING_BYTES) -> str:
        return self.raw_string(limit).decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int) -> None:
        """Passes over `count` texts; the inner loop of reading a model with a vocabulary."""
        unpack, data, size, position = self.u64.unpack_from, self.data, self.size, self.position
        try:
            for _ in range(count):
                (length,) = unpack(data, position)
                position += 8 + length
                if position > size:
                    break
        except struct.error:
            position = size + 1
        if position > size:
            raise self.fail("gguf_truncated", f"an array of {count} texts goes beyond the end of the file")
        self.position = position

    def _walk(self, count: int) -> None:
        self.walked += count
        if self.walked > MAX_WALKED:
            raise self.fail("gguf_invalid", f"the header holds more than {MAX_WALKED} texts")

    def value(self, kind: int, depth: int = 0) -> Any:
        if form := _SCALARS.get(kind):
            return self.take(struct.Struct(self.order + form))
        if kind == _STRING:
            start = self.position
            text = self.string()
            self._keep(len(text), start)
            return text
        if kind == _ARRAY:
            return self.array(depth)
        raise self.fail("gguf_invalid", f"unknown value type {kind}")

    def _keep(self, n_bytes: int, start: int) -> None:
        self.eager_bytes += n_bytes
        if self.eager_bytes > MAX_EAGER_BYTES:
            raise self.fail("gguf_invalid", f"the metadata is larger than {MAX_EAGER_BYTES} bytes", start)

    def array(self, depth: int) -> Any:
        start = self.position
        kind, count = self.take(self.u32), self.take(self.u64)
        smallest = struct.calcsize(_SCALARS[kind]) if kind in _SCALARS else 8
        if kind not in _SCALARS and kind not in (_STRING, _ARRAY):
            raise self.fail("gguf_invalid", f"unknown element type {kind}", start)
        if count * smallest > self.size - self.position:
            raise self.fail("gguf_truncated", f"an array of {count} elements goes beyond the end of the file", start)
        if kind == _ARRAY:
            if depth >= MAX_NESTING:
                raise self.fail("gguf_invalid", f"arrays are nested deeper than {MAX_NESTING}", start)
            self._walk(count)
            return [self.array(depth + 1) for _ in range(count)]
        if depth or count <= EAGER_ELEMENTS:
            return self.elements(kind, count)
        lazy = LazyArray(self.path, self.position, kind, count, self.order)
        if kind == _STRING:
            self._walk(count)
            self.skip_strings(count)
        else:
            self.position += count * smallest
        return lazy

    def elements(self, kind: int, count: int, *, eager: bool = False) -> list[Any]:
        if kind == _STRING:
            if not eager:
                self._walk(count)
            texts = [self.string() for _ in range(count)]
            if not eager:
                self._keep(sum(map(len, texts)) + 64 * count, self.position)
            return texts
        form = struct.Struct(f"{self.order}{count}{_SCALARS[kind]}")
        if self.position + form.size > self.size:
            raise self.fail("gguf_truncated", f"an array of {count} elements goes beyond the end of the file")
        if not eager:
            self._keep(32 * count, self.position)
        values = list(form.unpack_from(self.data, self.position))
        self.position += form.size
        return values


@dataclass(frozen=True)
class _Shard:
    version: int
    order: str
    metadata: dict[str, Any]
    tensors: list[TensorInfo]
    alignment: int
    size_bytes: int


def _start(cursor: _Cursor) -> tuple[int, int, int]:
    """Magic, version, byte order and the two counts: (version, tensors, keys)."""
    if cursor.data[:4] != MAGIC:
        seen = bytes(cursor.data[:4])
        text = "the file is empty" if not seen else f"it begins with {seen!r}, not with {MAGIC!r}"
        raise cursor.fail("gguf_not_gguf", text, 0)
    cursor.position = 4
    version = cursor.take(cursor.u32)
    if version & 0xFFFF == 0:  # read in the wrong byte order: 3 becomes 0x03000000
        cursor.order = ">"
        cursor.u32, cursor.u64 = struct.Struct(">I"), struct.Struct(">Q")
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in (2, 3):
        raise cursor.fail("gguf_version", f"GGUF version {version} is not supported, only 2 and 3", 4)
    n_tensors, n_keys = cursor.take(cursor.u64), cursor.take(cursor.u64)
    room = cursor.size - cursor.position
    if n_keys > MAX_KEYS or n_keys * 13 > room:
        raise cursor.fail("gguf_invalid", f"{n_keys} metadata keys cannot be in this file", 16)
    if n_tensors > MAX_TENSORS or n_tensors * 24 > room:
        raise cursor.fail("gguf_invalid", f"{n_tensors} tensors cannot be in this file", 8)
    return version, n_tensors, n_keys


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        at = cursor.position
        key = cursor.string(MAX_NAME_BYTES)
        if key in metadata:
            raise cursor.fail("gguf_invalid", f"the key {key!r} is there twice", at)
        metadata[key] = cursor.value(cursor.take(cursor.u32))
    return metadata


def _tensor(cursor: _Cursor, shard: int) -> TensorInfo:
    at = cursor.position
    name = cursor.string(MAX_NAME_BYTES)
    dimensions = cursor.take(cursor.u32)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.fail("gguf_invalid", f"tensor {name!r} has {dimensions} dimensions", at)
    shape = tuple(cursor.take(cursor.u64) for _ in range(dimensions))
    number = cursor.take(cursor.u32)
    offset = cursor.take(cursor.u64)
    kind = GGML_TYPES.get(number)
    if kind is None:
        raise cursor.fail("gguf_invalid", f"tensor {name!r} has the unknown type {number}", at)
    elements = 1
    for extent in shape:
        elements *= extent
        if elements > 1 << 62:
            raise cursor.fail("gguf_invalid", f"tensor {name!r} is too large: {shape}", at)
    if shape and shape[0] % kind.block_elements:
        text = f"tensor {name!r} has rows of {shape[0]}, not a multiple of {kind.name}'s {kind.block_elements}"
        raise cursor.fail("gguf_invalid", text, at)
    return TensorInfo(name, kind, shape, elements, kind.n_bytes(elements), offset, shard)


def _alignment(cursor: _Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.fail("gguf_invalid", f"the alignment {alignment!r} is not a power of two up to 2^20", 0)
    return alignment


def _read_shard(path: Path, number: int) -> _Shard:
    with _Cursor.open(path) as cursor:
        version, n_tensors, n_keys = _start(cursor)
        metadata = _metadata(cursor, n_keys)
        tensors = [_tensor(cursor, number) for _ in range(n_tensors)]
        alignment = _alignment(cursor, metadata)
        data_start = -(-cursor.position // alignment) * alignment
        placed = []
        for tensor in tensors:
            start = data_start + tensor.offset
            if start + tensor.n_bytes > cursor.size:
                missing = start + tensor.n_bytes - cursor.size
                text = f"the data of tensor {tensor.name!r} goes {missing} bytes beyond the end: the file is truncated"
                raise cursor.fail("gguf_truncated", text, start)
            placed.append(
                TensorInfo(
                    tensor.name,
                    tensor.ggml_type,
                    tensor.shape,
                    tensor.n_elements,
                    tensor.n_bytes,
                    start,
                    number,
                )
            )
        return _Shard(version, cursor.order, metadata, placed, alignment, cursor.size)


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All shards of the model this file belongs to, in order, whether they exist or not."""
    match = _SHARD.match(path.name)
    if not match:
        return (path,)
    count = int(match["count"])
    return tuple(path.with_name(f"{match['stem']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1))


def read_header(path: str | Path) -> GgufHeader:
    """Reads the header of a GGUF; of a split model all shards, whichever of them is named.

    Raises GgufError with code model_missing, model_unreadable, gguf_not_gguf, gguf_version,
    gguf_truncated, gguf_invalid or gguf_incomplete.
    """
    paths = shard_paths(Path(path))
    missing = [shard.name for shard in paths if not shard.exists()]
    if missing and len(paths) > 1:
        text = f"{len(missing)} of {len(paths)} shards are missing: {', '.join(missing[:3])}"
        raise GgufError("gguf_incomplete", paths[0], text, fix="Put all shards into one folder.")
    shards = [_read_shard(shard, number) for number, shard in enumerate(paths)]
    first = shards[0]
    declared = first.metadata.get("split.count", 1)
    if len(paths) > 1 and declared != len(paths):
        text = f"the name says {len(paths)} shards, the header says {declared}"
        raise GgufError("gguf_incomplete", paths[0], text, fix="Put back the names the files had.")
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in tensors:
                raise GgufError("gguf_invalid", paths[tensor.shard], f"tensor {tensor.name!r} is there twice")
            tensors[tensor.name] = tensor
    return GgufHeader(
        paths=paths,
        version=first.version,
        big_endian=first.order == ">",
        alignment=first.alignment,
        metadata=first.metadata,
        tensors=tuple(tensors.values()),
        file_size_bytes=sum(shard.size_bytes for shard in shards),
    )
