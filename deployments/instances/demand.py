"""What requests wait for, known to every process of this OMNI_HOME.

A mark for each deployment that is loaded because requests ask for it, not because a person started
it; and how many requests wait, from every process that has some. The counts of a process that has
died do not count: they are locked as long as it lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

MOST_BYTES = 1 << 20


class Demand:
    """Which deployments are wanted by requests, and how many wait for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ask(self, deployment: int) -> None:
        """Requests wait for it; since when is kept when that is known already."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self._mark(deployment).touch(exist_ok=False)

    def asked_for_s(self, deployment: int) -> float | None:
        """For how long requests have wanted it; None where no request does."""
        try:
            asked_s = self._mark(deployment).stat().st_mtime
        except OSError:
            return None
        return max(0.0, time.time() - asked_s)

    def clear(self, deployment: int) -> None:
        self._mark(deployment).unlink(missing_ok=True)

    def _mark(self, deployment: int) -> Path:
        return self.folder / f"{deployment}.asked"

    def waiting(self) -> Counter[int]:
        """By deployment, how many requests wait in all processes; about half a second old."""
        total: Counter[int] = Counter()
        for path in self.folder.glob("*.waiting"):
            total.update(_counts(path))
        return total


class WaitingCounts:
    """The counts of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None
        self._path = folder
        self._written: dict[int, int] = {}

    def write(self, waiting: Mapping[int, int]) -> None:
        """Does nothing when they are as before."""
        if dict(waiting) == self._written:
            return
        if self._file is None:
            self._file = self._open()
        text = json.dumps(waiting).encode() + b"\n"
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))
        self._written = dict(waiting)

    def _open(self) -> int:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, name = mkstemp(suffix=".waiting", dir=self.folder)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._path = Path(name)
        if self._path.exists():
            return file
        # Whoever counted just then took it for one that was left over.
        os.close(file)
        return self._open()

    def close(self) -> None:
        """Nobody waits any more."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None
            self._written = {}


def _counts(path: Path) -> dict[int, int]:
    """Nothing of a process that has ended; its file goes away."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                line = file.read(MOST_BYTES).partition(b"\n")[0]
                return {int(pk): int(n) for pk, n in json.loads(line or b"{}").items()}
            path.unlink(missing_ok=True)
    except (OSError, ValueError):
        pass
    return {}
