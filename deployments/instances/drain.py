"""Which deployments have requests on their way, known to every process of this OMNI_HOME.

Each deployment has a drain lock: a file. Whoever passes a request on holds it shared; the agent
takes it exclusively before it ends an engine. So an engine is never ended under a request that
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


class Draining(Exception):
    """The deployment's engines are being ended."""


class RequestLocks:
    """The side of those who pass requests on; one for each process, used from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[int, tuple[IO[bytes], int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def held(self, deployment: int) -> Iterator[None]:
        """Raises Draining when no request may pass now."""
        self._acquire(deployment)
        try:
            yield
        finally:
            self._release(deployment)

    def _acquire(self, deployment: int) -> None:
        with self._lock:
            file, count = self._held.get(deployment, (None, 0))
            if file is None:
                file = _opened(self.folder, deployment)
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    raise Draining from None
                os.utime(file.fileno())
            self._held[deployment] = (file, count + 1)

    def _release(self, deployment: int) -> None:
        with self._lock:
            file, count = self._held.pop(deployment)
            if count > 1:
                self._held[deployment] = (file, count - 1)
                return
            with suppress(OSError):
                os.utime(file.fileno())
            file.close()


class DrainLocks:
    """The agent's side: takes the lock of a deployment while it has no request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._acquired: dict[int, IO[bytes]] = {}

    def acquire(self, deployment: int) -> bool:
        """True: no request is on its way, and none passes until it is released.

        False: requests are on their way.
        """
        if deployment in self._acquired:
            return True
        file = _opened(self.folder, deployment)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._acquired[deployment] = file
        return True

    def is_busy(self, deployment: int) -> bool:
        """Whether requests are on their way; whoever comes just while this is looked at has to ask
        again."""
        if not _lock_path(self.folder, deployment).exists():
            return False
        was_acquired = deployment in self._acquired
        if not self.acquire(deployment):
            return True
        if not was_acquired:
            self.release(deployment)
        return False

    def release(self, deployment: int) -> None:
        file = self._acquired.pop(deployment, None)
        if file:
            file.close()

    def acquired(self) -> set[int]:
        return set(self._acquired)

    def last_used_ns(self, deployment: int) -> int:
        """When a request last came or went, by the file's clock: whether it changes tells, not how
        far off it is."""
        try:
            return _lock_path(self.folder, deployment).stat().st_mtime_ns
        except OSError:
            return 0

    def was_in_use_at(self, deployment: int, at_s: float) -> bool:
        """Whether requests were on their way then: some still are, or the last one went just
        then."""
        return (
            self.is_busy(deployment)
            or abs(self.last_used_ns(deployment) / 1e9 - at_s) < JUST_THEN_S
        )

    def remove(self, deployment: int) -> None:
        """The deployment is gone."""
        self.release(deployment)
        _lock_path(self.folder, deployment).unlink(missing_ok=True)


def _lock_path(folder: Path, deployment: int) -> Path:
    return folder / f"{deployment}.lock"


def _opened(folder: Path, deployment: int) -> IO[bytes]:
    """Its folder is made when it is missed: this is asked for every request."""
    path = _lock_path(folder, deployment)
    try:
        return path.open("ab", buffering=0)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.open("ab", buffering=0)
