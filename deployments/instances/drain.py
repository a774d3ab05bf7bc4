"""Which deployments have requests on their way, known to every process of this OMNI_HOME.

Each deployment has a door: a file. Whoever passes a request on holds a shared lock on it; the agent
takes the exclusive lock before it ends an engine. So an engine is never ended under a request that
the agent could not see, and no request is sent to one that is being ended. Locks go with their
process: one that is killed leaves none.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Requests to an engine that ends break off at once; what they leave behind is written within this
# time.
JUST_THEN_S = 2.0


class DoorShut(Exception):
    """The deployment's engines are being ended."""


class Entrance:
    """The side of those who pass requests on; one for each process, used from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside: dict[int, tuple[IO[bytes], int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def passing(self, deployment: int) -> Iterator[None]:
        """Raises DoorShut when no request may pass now."""
        self._enter(deployment)
        try:
            yield
        finally:
            self._leave(deployment)

    def _enter(self, deployment: int) -> None:
        with self._lock:
            file, count = self._inside.get(deployment, (None, 0))
            if file is None:
                file = _door(self.folder, deployment).open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    raise DoorShut from None
                os.utime(file.fileno())
            self._inside[deployment] = (file, count + 1)

    def _leave(self, deployment: int) -> None:
        with self._lock:
            file, count = self._inside.pop(deployment)
            if count > 1:
                self._inside[deployment] = (file, count - 1)
                return
            with suppress(OSError):
                os.utime(file.fileno())
            file.close()


class Doors:
    """The agent's side: shuts doors while nobody is inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shut: dict[int, IO[bytes]] = {}

    def shut(self, deployment: int) -> bool:
        """True: nobody is inside, and nobody comes in until it is opened.

        False: requests are on their way.
        """
        if deployment in self._shut:
            return True
        file = _door(self.folder, deployment).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._shut[deployment] = file
        return True

    def is_busy(self, deployment: int) -> bool:
        """Whether requests are on their way; whoever comes just while this is looked at has to ask
        again."""
        if not _door(self.folder, deployment).exists():
            return False
        was_shut = deployment in self._shut
        if not self.shut(deployment):
            return True
        if not was_shut:
            self.open(deployment)
        return False

    def open(self, deployment: int) -> None:
        file = self._shut.pop(deployment, None)
        if file:
            file.close()

    def shut_ones(self) -> set[int]:
        return set(self._shut)

    def used_ns(self, deployment: int) -> int:
        """When a request last came or went, by the file's clock: whether it changes tells, not how
        far off it is."""
        try:
            return _door(self.folder, deployment).stat().st_mtime_ns
        except OSError:
            return 0

    def was_used_at(self, deployment: int, at_s: float) -> bool:
        """Whether requests were on their way then: some still are, or the last one went just
        then."""
        return (
            self.is_busy(deployment)
            or abs(self.used_ns(deployment) / 1e9 - at_s) < JUST_THEN_S
        )

    def remove(self, deployment: int) -> None:
        """The deployment is gone."""
        self.open(deployment)
        _door(self.folder, deployment).unlink(missing_ok=True)


def _door(folder: Path, deployment: int) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{deployment}.door"
