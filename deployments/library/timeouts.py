"""Work on a file system that may never answer: a dead network mount, a FUSE file that blocks.

A thread that hangs in the kernel cannot be ended. It is left behind, and nobody begins the same
work again before it has come back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Far longer than a disk takes to wake up and to list what people have.
FOLDER_TIMEOUT_S = 120.0
FILE_TIMEOUT_S = 60.0
MOST_HANGING = 16

_hanging: dict[str, threading.Thread] = {}


class NoAnswer(Exception):
    """The file system did not answer in time."""


def in_time(work: Callable[[], T], name: str, timeout_s: float) -> T:
    """What the work returns or raises.

    Raises NoAnswer when it takes too long, and at once while it still hangs.
    """
    for known in [known for known, thread in _hanging.items() if not thread.is_alive()]:
        del _hanging[known]
    if name in _hanging or len(_hanging) >= MOST_HANGING:
        raise NoAnswer(name)
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name=f"reads {name[-80:]}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        _hanging[name] = thread
        raise NoAnswer(name)
    if failed:
        raise failed[0]
    return found[0]
