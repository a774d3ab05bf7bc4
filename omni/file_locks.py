"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock; False where there is no such file.

    Raises OSError.
    """
    try:
        with path.open("rb") as lock:
            # Shared: whoever looks at the same time is not in the way.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
