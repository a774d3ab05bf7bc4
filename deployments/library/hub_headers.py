"""Reads the header of a GGUF at a hub, all its shards, without downloading it.

A file is asked for by ranges from its beginning, in steps that grow, until its header is whole: a
few MB of it, whatever its size. What a hub sends is bounded in bytes, in time and by the budgets of
the reader (formats/gguf_window.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments.formats.gguf import GgufError, GgufHeader, read_shards
from deployments.library import hub_bytes
from deployments.library.hub_files import RepoFile
from deployments.library.reading import describe_header
from deployments.library.timeouts import NoAnswer, in_time
from deployments.models import Model
from omni.errors import OmniError
from omni.units import MIB, bytes_text

# The first shard holds the vocabulary, the others little more than their tensors' names.
FIRST_STEP_BYTES = MIB
SHARD_STEP_BYTES = 64 << 10
MOST_STEP_BYTES = 4 * MIB
# Of all shards together; vocabularies take nearly all of it, and the largest are far smaller.
MOST_HEADER_BYTES = 64 * MIB
# For all shards together, and a little more for a server that does not even answer.
DEADLINE_S = 90.0
HANGING_S = 15.0
# A connection that breaks is tried again.
TRIES = 3
COPY_AGAIN = "Download or copy the file again."


@dataclass
class Allowance:
    """What reading one model may still cost."""

    until: float
    bytes_left: int

    def take(self, n_bytes: int, file: RepoFile) -> None:
        """Raises OmniError (hub_slow, hub_header_large)."""
        if time.monotonic() > self.until:
            raise hub_bytes.too_slow(file)
        if n_bytes > self.bytes_left:
            text = f"The header of {file.path} takes more than {bytes_text(MOST_HEADER_BYTES)}."
            fix = "It is no model that is known; look at the repository before you download it."
            raise OmniError("hub_header_large", text, fix)
        self.bytes_left -= n_bytes


@dataclass
class HubFile:
    """A file at a hub as the reader of headers sees it: as much of its beginning as was asked
    for."""

    repo: str
    revision: str
    file: RepoFile
    allowance: Allowance
    step: int
    had: bytearray = field(default_factory=bytearray)

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, start: int, least: int, most: int) -> bytes:
        """Raises OmniError."""
        needed = min(start + least, self.size)
        while len(self.had) < needed:
            self._fetch(needed)
        return bytes(self.had[start : start + max(least, most)])

    def close(self) -> None:
        """It is opened again for its vocabulary, which then is there."""

    def _fetch(self, needed: int) -> None:
        start = len(self.had)
        left = min(self.size, start + self.allowance.bytes_left)
        stop = max(needed, min(start + self.step, left))
        self.step = min(2 * self.step, MOST_STEP_BYTES)
        self.had += self._part(start, stop)

    def _part(self, start: int, stop: int) -> bytes:
        for _ in range(TRIES - 1):
            try:
                return self._try(start, stop)
            except OmniError as error:
                if error.code != "hub_unreachable":
                    raise
        return self._try(start, stop)

    def _try(self, start: int, stop: int) -> bytes:
        self.allowance.take(stop - start, self.file)
        until = self.allowance.until
        return hub_bytes.read_part(
            self.repo, self.revision, self.file, start, stop, until
        )


def describe_at_hub(
    model: Model, repo: str, revision: str, files: Sequence[RepoFile]
) -> Model:
    """Fills the row from the headers of a GGUF at a hub; `files` are its shards in their order.

    Not saved. Raises OmniError.
    """

    def work() -> None:
        describe_header(model, _read(repo, revision, files))

    name = f"hub header {repo} {files[0].path}"
    try:
        in_time(work, name, DEADLINE_S + HANGING_S)
    except NoAnswer:
        raise hub_bytes.too_slow(files[0]) from None
    except GgufError as error:
        raise _not_usable(error) from None
    model.size_bytes = sum(file.size for file in files)
    return model


def _read(repo: str, revision: str, files: Sequence[RepoFile]) -> GgufHeader:
    allowance = Allowance(time.monotonic() + DEADLINE_S, MOST_HEADER_BYTES)
    sources = {
        Path(file.path): HubFile(
            repo,
            revision,
            file,
            allowance,
            SHARD_STEP_BYTES if number else FIRST_STEP_BYTES,
        )
        for number, file in enumerate(files)
    }
    return read_shards(tuple(sources), sources.__getitem__)


def _not_usable(error: GgufError) -> OmniError:
    fix = "Choose another file or repository; whoever made this one has to mend it."
    return OmniError(
        error.code,
        f"The file at the hub cannot be used. {error.text}",
        fix if error.fix == COPY_AGAIN else error.fix,
    )
