"""The folders through which KV caches go from one engine to another: private, and empty most of the
time."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from gpus.host import memory
from omni.errors import OmniError

_NAME = re.compile(r"kv-(\d+)-[0-9a-f]{16}")


def make(folder: Path) -> None:
    """What is in it are conversations: nobody else may read them. Raises OmniError
    (slots_folder)."""
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(each)
    except OSError as error:
        text = f"The folder {folder} for handed-over KV caches cannot be made: {error}."
        raise OmniError(
            "slots_folder", text, "Make room or correct its permissions."
        ) from None
    sweep(folder)


def _check_own(folder: Path) -> None:
    """In a place where everybody may write, such as /dev/shm, somebody may have been there
    before."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} is a link or a file")
    if found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def new_name() -> str:
    """Of a file that this process answers for."""
    return f"kv-{os.getpid()}-{secrets.token_hex(8)}"


def sweep(folder: Path) -> int:
    """Removes what processes left behind that are gone; returns the bytes of what stays."""
    left_bytes = 0
    with suppress(OSError):
        for path in folder.iterdir():
            owner = _NAME.match(path.name)
            with suppress(OSError):
                if owner and not Path(f"/proc/{owner[1]}").exists():
                    path.unlink()
                else:
                    left_bytes += path.lstat().st_size
    return left_bytes


def sweep_all(parent: Path) -> None:
    """Every deployment's folder: of a gateway that was killed in the middle nobody else hears."""
    with suppress(OSError):
        if parent.lstat().st_uid != os.getuid():
            return
        for folder in parent.iterdir():
            # A link leads to what is not Omni's.
            if folder.is_dir() and not folder.is_symlink():
                sweep(folder)


def remove(folder: Path) -> None:
    """With what is in it: the deployment does not run any more."""
    with suppress(OSError):
        if folder.is_symlink() or folder.parent.is_symlink():
            return
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@dataclass(frozen=True)
class Room:
    free_bytes: int
    taken_bytes: int
    limit_bytes: int


def room(folder: Path) -> Room:
    """What may still be written there. Raises OSError."""
    usage = shutil.disk_usage(folder)
    # A file system in memory promises more than there is.
    free_bytes = min(usage.free, memory()[1])
    limit_bytes = settings.OMNI_HANDOVER_LIMIT_MIB << 20 or usage.total // 2
    return Room(free_bytes, sweep(folder), limit_bytes)
