"""A small window on a file, through which its values are read one after the other.

Files come from strangers and may change while they are read. So every read is checked against the
file's end and against a budget, and the file is never mapped: a map of a file that shrinks kills
the process.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from omni.errors import OmniError

T = TypeVar("T")
# Most headers are small; one with a large vocabulary is read in larger and larger steps.
FIRST_WINDOW_BYTES = 1 << 16
WINDOW_BYTES = 1 << 20
# What a header may take in memory, far above what real ones do.
MAX_KEPT_BYTES = 24 << 20


def printable(text: str, limit: int = 80) -> str:
    """For messages: short, and without what a terminal or a database refuses."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return short.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class GgufError(OmniError):
    """The file is no GGUF that can be used: what is wrong, in which file, at which byte."""

    def __init__(
        self, code: str, path: Path, text: str, offset: int | None = None, fix: str = ""
    ) -> None:
        name = printable(path.name, 255)
        where = name if offset is None else f"{name} at byte {offset}"
        super().__init__(
            code, f"{where}: {text}.", fix or "Download or copy the file again."
        )
        self.path = path
        self.offset = offset


@dataclass
class Budget:
    """What the headers of one model, all shards together, have taken so far."""

    texts: int = 0
    nested: int = 0
    text_bytes: int = 0
    kept_bytes: int = 0


# --- where the bytes come from --------------------------------------------------------------------
class Source(Protocol):
    """The bytes of a file, on this machine's disk or elsewhere."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, least: int, most: int) -> bytes:
        """From `start` on: at least so many bytes where the file has them, more where that costs
        nothing.

        Raises OSError, or OmniError with what to do.
        """

    def close(self) -> None: ...


Opener = Callable[[Path], Source]


@dataclass
class LocalFile:
    """A regular file that is open for reading."""

    descriptor: int
    size: int

    def read(self, start: int, least: int, most: int) -> bytes:
        return os.pread(self.descriptor, max(least, most), start)

    def close(self) -> None:
        os.close(self.descriptor)


def open_file(path: Path) -> LocalFile:
    """A pipe or a device is refused before it can block. Raises GgufError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        fix = "Put it back, or remove the model."
        raise GgufError(
            "model_missing", path, "there is no such file", fix=fix
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name cannot be opened"
        fix = "Give the panel's user access to the file."
        raise GgufError("model_unreadable", path, reason, fix=fix) from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise GgufError(
            "model_unreadable",
            path,
            "it is not a file",
            fix="Remove it from the folder.",
        )
    return LocalFile(descriptor, facts.st_size)


# --- reading --------------------------------------------------------------------------------------
class Window:
    """A position in a file; every read is checked against the file's end and the budget."""

    def __init__(
        self,
        path: Path,
        order: str = "<",
        position: int = 0,
        budget: Budget | None = None,
        opener: Opener = open_file,
    ) -> None:
        self.path, self.budget, self.opener = path, budget or Budget(), opener
        self._base = position
        self._at = 0
        self._window = b""
        self._step = FIRST_WINDOW_BYTES
        self.byte_order = order
        self._source = opener(path)
        self.size = self._source.size

    @property
    def byte_order(self) -> str:
        return self.order

    @byte_order.setter
    def byte_order(self, order: str) -> None:
        self.order = order
        self.u32, self.u64 = struct.Struct(f"{order}I"), struct.Struct(f"{order}Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._source.close()

    @property
    def position(self) -> int:
        return self._base + self._at

    @position.setter
    def position(self, position: int) -> None:
        inside = position - self._base
        if 0 <= inside <= len(self._window):
            self._at = inside
        else:
            self._base = position
            self._at = 0
            self._window = b""

    def fail(self, code: str, text: str, at: int | None = None) -> GgufError:
        return GgufError(code, self.path, text, self.position if at is None else at)

    # --- bytes ------------------------------------------------------------------------------------
    def _need(self, n_bytes: int, what: str = "the header") -> None:
        """Makes the window hold the next n_bytes, at most EAGER_BYTES or what a load may take."""
        if self._at + n_bytes <= len(self._window):
            return
        start = self.position
        missing = start + n_bytes - self.size
        if missing <= 0:
            try:
                self._window = self._source.read(start, n_bytes, self._step)
            except OSError as error:
                raise self.fail(
                    "model_unreadable", error.strerror or "cannot be read", start
                ) from None
            self._base, self._at, self._step = (
                start,
                0,
                min(2 * self._step, WINDOW_BYTES),
            )
            # More than 0 when the file has just become shorter.
            missing = n_bytes - len(self._window)
        if missing > 0:
            raise self.fail(
                "gguf_truncated",
                f"{what} goes {missing} bytes beyond the end of the file",
                start,
            )

    def raw(self, n_bytes: int, what: str = "a text") -> bytes:
        # Asked here too: a header has hundreds of thousands of values, and nearly all are in the
        # window.
        if self._at + n_bytes > len(self._window):
            self._need(n_bytes, what)
        start = self._at
        self._at = self._at + n_bytes
        return self._window[start : self._at]

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        if self._at + form.size > len(self._window):
            self._need(form.size)
        values = form.unpack_from(self._window, self._at)
        self._at += form.size
        return values

    def number(self, form: struct.Struct) -> int:
        # Not by way of unpack: most of what a header holds is a length.
        if self._at + form.size > len(self._window):
            self._need(form.size)
        start = self._at
        self._at = self._at + form.size
        found: int = form.unpack_from(self._window, start)[0]
        return found

    def peek(self, form: struct.Struct) -> int:
        """The next number, which is read again."""
        number = self.number(form)
        self._at -= form.size
        return number

    def keep(self, value: T, start: int) -> T:
        """The value, once what it takes in memory is counted.

        Raises GgufError when that is too much.
        """
        self.charge(sys.getsizeof(value), start)
        return value

    def charge(self, n_bytes: int, start: int) -> None:
        """Counts bytes of memory. Raises GgufError when it is too much for a header."""
        self.budget.kept_bytes += n_bytes
        if self.budget.kept_bytes > MAX_KEPT_BYTES:
            raise self.fail(
                "gguf_invalid",
                f"the header takes more than {MAX_KEPT_BYTES} bytes",
                start,
            )
