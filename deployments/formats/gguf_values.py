"""The values of GGUF metadata: numbers, texts and arrays; what is long stays in the file until it
is asked for."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from deployments.formats.gguf_window import Opener, Window, open_file

# Far above what real models have; they bound the time and the memory that a hostile header can
# take.
MAX_NAME_BYTES = 65_535
MAX_NESTING = 3
MAX_NESTED = 16_384
MAX_TEXTS = 1_500_000
MAX_TEXT_BYTES = 64 << 20
# Up to here a value is read at once; above it (vocabularies) when somebody asks.
EAGER_ELEMENTS = 1_024
EAGER_TEXTS = 256
EAGER_BYTES = 1 << 20
# What may be asked for at once.
MAX_LOADED_ELEMENTS = 600_000
MAX_LOADED_BYTES = 24 << 20

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
SCALAR_BYTES = {kind: struct.calcsize(f"<{form}") for kind, form in SCALARS.items()}
STRING = 8
ARRAY = 9
# Where in a length the lowest byte lies, and from where to where the seven that are zero in a short
# one.
_LENGTH = {"<": (0, 1, 8), ">": (7, 0, 7)}
_SEVEN_ZEROS = bytes(7)
_RUN = 256


@cache
def _short_texts() -> re.Pattern[bytes]:
    """Matches _RUN texts in a row that are shorter than 64 bytes, little endian: a length, then
    that many bytes.

    The pattern engine passes them three times as fast as a loop; a run with a longer text takes the
    loop.
    """
    one = b"|".join(re.escape(bytes([n])) + rb"\0{7}.{%d}" % n for n in range(64))
    return re.compile(rb"(?s:%b){%d}+" % (one, _RUN))


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A long array whose elements are read from the file when `load` is called."""

    path: Path
    offset: int
    element_type: int
    length: int
    order: str
    n_bytes: int = 0
    opener: Opener = open_file

    def __len__(self) -> int:
        return self.length

    def _cursor(self) -> Cursor:
        return Cursor(self.path, self.order, self.offset, opener=self.opener)

    def digest(self) -> str:
        """The same for two arrays whose bytes in the file are. Raises GgufError as `load` does."""
        with self._cursor() as cursor:
            if self.n_bytes > MAX_LOADED_BYTES or self.length > MAX_LOADED_ELEMENTS:
                raise cursor.fail(
                    "gguf_invalid",
                    f"an array of {self.length} elements is too large to load",
                )
            return f"{self.order} {sha256(cursor.raw(self.n_bytes)).hexdigest()}"

    def load(self) -> list[Any]:
        """All elements.

        Raises GgufError where the file has changed or the array is too large to hold.
        """
        with self._cursor() as cursor:
            if self.element_type == STRING:
                return [
                    text.decode("utf-8", "surrogateescape")
                    for text in self.raw_strings()
                ]
            if self.length > MAX_LOADED_ELEMENTS:
                raise cursor.fail(
                    "gguf_invalid",
                    f"an array of {self.length} elements is too large to load",
                )
            return cursor.numbers(self.element_type, self.length)

    def raw_strings(self) -> Iterator[bytes]:
        """Every text as its bytes, which need not be UTF-8. Raises GgufError like `load`."""
        with self._cursor() as cursor:
            if self.element_type != STRING:
                raise cursor.fail(
                    "gguf_invalid", "an array of numbers is where texts should be"
                )
            if self.length > MAX_LOADED_ELEMENTS:
                raise cursor.fail(
                    "gguf_invalid",
                    f"an array of {self.length} texts is too large to load",
                )
            yield from cursor.texts(self.length, MAX_LOADED_BYTES)


@dataclass(frozen=True, slots=True)
class LazyText:
    """A very long text (an embedded tokenizer file, say) that is read when `load` is called."""

    path: Path
    offset: int
    n_bytes: int
    opener: Opener = open_file

    def __len__(self) -> int:
        return self.n_bytes

    def load(self) -> str:
        with Cursor(self.path, "<", self.offset, opener=self.opener) as cursor:
            return cursor.raw(self.n_bytes).decode("utf-8", "surrogateescape")


class Cursor(Window):
    """Reads names and values of a header, each checked against a limit before it is believed."""

    # --- texts ------------------------------------------------------------------------------------
    def name(self, what: str) -> str:
        """The name of a key or a tensor."""
        start = self.position
        length = self.number(self.u64)
        if length > MAX_NAME_BYTES:
            raise self.fail(
                "gguf_invalid",
                f"{what} of {length} bytes is longer than {MAX_NAME_BYTES}",
                start,
            )
        return self.keep(
            self.raw(length, what).decode("utf-8", "surrogateescape"), start
        )

    def quick_entry(self, most_dimensions: int) -> tuple[str, bytes, int] | None:
        """(name, what says the form, offset) of a tensor; None where it is not whole in the window,
        or unusual.

        A model has hundreds of tensors, and a library thousands of models: nearly all their entries
        come here.
        """
        window = self._window
        at = self._at
        size = len(self._window)
        if at + 8 > size:
            return None
        form = at + 8 + self.u64.unpack_from(window, at)[0]
        if form + 4 > size or form - at > MAX_NAME_BYTES:
            return None
        dimensions = self.u32.unpack_from(window, form)[0]
        end = form + 4 + 8 * dimensions + 4
        if dimensions > most_dimensions or end + 8 > size:
            return None
        self._at = end + 8
        name = window[at + 8 : form].decode("utf-8", "surrogateescape")
        return name, window[form:end], self.u64.unpack_from(window, end)[0]

    def text(self) -> str | LazyText:
        start = self.position
        length = self.number(self.u64)
        if self.position + length > self.size:
            text = f"a text of {length} bytes goes beyond the end of the file"
            raise self.fail("gguf_truncated", text, start)
        if length > EAGER_BYTES:
            return self._long_text(length)
        return self.keep(self.raw(length).decode("utf-8", "surrogateescape"), start)

    def _long_text(self, length: int) -> LazyText:
        if length > MAX_TEXT_BYTES:
            raise self.fail(
                "gguf_invalid",
                f"a text of {length} bytes is more than the {MAX_TEXT_BYTES} allowed",
            )
        lazy = LazyText(self.path, self.position, length, self.opener)
        self.position += length
        return lazy

    def texts(self, count: int, limit: int) -> Iterator[bytes]:
        """The next texts one by one, at most `limit` bytes of them."""
        start = self.position
        left = count
        while left:
            batch = self._texts_in_window(left) or [self._text_beyond_window(limit)]
            if self.position - start > limit:
                raise self.fail(
                    "gguf_invalid",
                    f"{count} texts take more than the {limit} bytes allowed",
                    start,
                )
            left -= len(batch)
            yield from batch

    def _texts_in_window(self, count: int) -> list[bytes]:
        window = self._window
        at = self._at
        size = len(self._window)
        texts = []
        low, first, end = _LENGTH[self.order]
        zeros = _SEVEN_ZEROS
        unpack = self.u64.unpack_from
        for _ in range(count):
            start = at + 8
            if start > size:
                break
            stop = start + (
                window[at + low]
                if window[at + first : at + end] == zeros
                else unpack(window, at)[0]
            )
            if stop > size:
                break
            texts.append(window[start:stop])
            at = stop
        self._at = at
        return texts

    def _text_beyond_window(self, limit: int) -> bytes:
        start = self.position
        length = self.number(self.u64)
        if length > limit:
            raise self.fail(
                "gguf_invalid",
                f"a text of {length} bytes is more than the {limit} allowed",
                start,
            )
        return self.raw(length)

    def skip_texts(self, count: int) -> int:
        """Passes over `count` texts and returns their bytes."""
        start = self.position
        left = count
        self.budget.texts += count
        if self.budget.texts > MAX_TEXTS:
            raise self.fail(
                "gguf_invalid", f"the header holds more than {MAX_TEXTS} texts"
            )
        while left:
            self._need(8, f"an array of {count} texts")
            left -= self._skip_in_window(left)
            if self.budget.text_bytes + self.position - start > MAX_TEXT_BYTES:
                raise self.fail(
                    "gguf_invalid",
                    f"the texts take more than {MAX_TEXT_BYTES} bytes",
                    start,
                )
        if self.position > self.size:
            raise self.fail(
                "gguf_truncated",
                f"an array of {count} texts goes beyond the end of the file",
                start,
            )
        self.budget.text_bytes += self.position - start
        return self.position - start

    def _skip_in_window(self, count: int) -> int:
        """Passes texts as far as they lie in the window; the inner loop of reading a vocabulary."""
        window = self._window
        at = self._at
        done = 0
        if self.order == "<":
            while count - done >= _RUN and (run := _short_texts().match(window, at)):
                at = run.end()
                done = done + _RUN
        at, passed = self._skip_one_by_one(at, min(count - done, _RUN))
        self.position = self._base + at
        return done + passed

    def _skip_one_by_one(self, at: int, count: int) -> tuple[int, int]:
        """(where the next text begins, how many were passed), as far as their lengths lie in the
        window."""
        window = self._window
        last = len(self._window) - 8
        low, first, end = _LENGTH[self.order]
        zeros = _SEVEN_ZEROS
        unpack = self.u64.unpack_from
        for done in range(count):
            if at > last:
                return at, done
            if (
                window[at + first : at + end] == zeros
            ):  # nearly all texts are shorter than 256 bytes
                at += 8 + window[at + low]
            else:
                at += 8 + unpack(window, at)[0]
        return at, count

    # --- values -----------------------------------------------------------------------------------
    def value(self, kind: int, depth: int = 0) -> Any:
        """One metadata value. Raises GgufError for what is no value or too large."""
        form = SCALARS.get(kind)
        if form:
            return self.unpack(struct.Struct(self.order + form))[0]
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._array(depth)
        raise self.fail("gguf_invalid", f"unknown value type {kind}")

    def _array(self, depth: int) -> list[Any] | LazyArray:
        start = self.position
        kind = self.number(self.u32)
        count = self.number(self.u64)
        smallest = SCALAR_BYTES.get(kind, 12 if kind == ARRAY else 8)
        if kind not in SCALARS and kind not in (STRING, ARRAY):
            raise self.fail("gguf_invalid", f"unknown element type {kind}", start)
        if count * smallest > self.size - self.position:
            raise self.fail(
                "gguf_truncated",
                f"an array of {count} elements goes beyond the end of the file",
                start,
            )
        if kind == ARRAY:
            return self._nested(count, depth + 1, start)
        begins = self.position
        n_bytes = self.skip_texts(count) if kind == STRING else count * smallest
        lazy = LazyArray(
            self.path, begins, kind, count, self.order, n_bytes, self.opener
        )
        if (
            count > (EAGER_TEXTS if kind == STRING else EAGER_ELEMENTS)
            or n_bytes > EAGER_BYTES
        ):
            self.position = lazy.offset + n_bytes
            return lazy
        self.position = lazy.offset
        if kind == STRING:
            values = self._short_texts(count, n_bytes)
        else:
            values = self.numbers(kind, count)
        return self._kept(values, start)

    def _short_texts(self, count: int, n_bytes: int) -> list[str]:
        return [
            raw.decode("utf-8", "surrogateescape") for raw in self.texts(count, n_bytes)
        ]

    def _nested(self, count: int, depth: int, start: int) -> list[Any]:
        if depth > MAX_NESTING:
            raise self.fail(
                "gguf_invalid", f"arrays are nested deeper than {MAX_NESTING}", start
            )
        self.budget.nested += count
        if self.budget.nested > MAX_NESTED:
            raise self.fail(
                "gguf_invalid",
                f"the header holds more than {MAX_NESTED} arrays in arrays",
                start,
            )
        return self._kept([self._array(depth) for _ in range(count)], start)

    def _kept(self, values: list[Any], start: int) -> list[Any]:
        self.charge(sum(map(sys.getsizeof, values)), start)
        return self.keep(values, start)

    def numbers(self, kind: int, count: int) -> list[Any]:
        form = struct.Struct(f"{self.order}{count}{SCALARS[kind]}")
        return list(self.unpack(form))
