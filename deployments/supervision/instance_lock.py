"""Whose the files of an instance are: its lock, held from before a start writes the first of them
until the engine has ended.

The agent that starts an engine takes the lock and hands it to the runner. Another agent that finds
it held writes and removes nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from deployments.supervision.refusals import refusals
from omni.errors import OmniError
from omni.file_locks import is_locked


def instances_folder(run: Path) -> Path:
    folder = run / "instances"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def lock_path(run: Path, instance: int) -> Path:
    return instances_folder(run) / f"{instance}.lock"


def is_held(run: Path, instance: int) -> bool:
    """Whether an engine of this instance is being started or its runner lives, with or without its
    record."""
    return is_locked(lock_path(run, instance))


@contextmanager
def held_for_start(run: Path, instance: int) -> Iterator[int]:
    """The lock as a file descriptor; a runner that inherits it holds it until it ends.

    Raises OmniError: already_running while another process holds it, no_room, no_process.
    """
    with refusals():
        lock = acquire(run, instance)
    if lock is None:
        text = f"Instance {instance} runs already."
        raise OmniError("already_running", text, "Stop it first.")
    try:
        yield lock
    finally:
        os.close(lock)


def acquire(run: Path, instance: int) -> int | None:
    """The lock as a file descriptor, to be closed; None while another process holds it.

    Raises OSError.
    """
    path = lock_path(run, instance)
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        is_current = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_current = _is_file_of(lock, path)
        except BlockingIOError:
            return None
        finally:
            if not is_current:
                os.close(lock)
        if is_current:
            return lock
        # Whoever held it has removed the file: it says nothing any more.


def _is_file_of(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, for whoever reads it at the same time; readable for this user alone.

    Raises OSError.
    """
    draft = path.with_name(f"{path.name}.{token_hex(4)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
