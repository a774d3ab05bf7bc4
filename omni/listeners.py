"""Who listens on a port of this machine: a port belongs to whoever was quickest, so it is asked
before it is used."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
LISTENS = "0A"
# This process may open no more files: what it cannot see is not gone.
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)


def listening_inodes(table: str, port: int) -> set[str]:
    """The sockets that listen on this port, in the words of proc(5), net/tcp: the inodes of all of
    them."""
    found = set()
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 10 or columns[3] != LISTENS:
            continue
        if int(columns[1].rpartition(":")[2], 16) == port:
            found.add(columns[9])
    return found


def own_listener(pid: int, ticks: int | None, port: int) -> str | None:
    """The socket that listens there, if it is of this process or a descendant of it, and of nobody
    else.

    It is looked for in the network namespace of the process. `ticks` is when that began, in clock
    ticks since boot: a pid alone may have changed hands. Raises OSError where it cannot be looked.
    """
    try:
        inodes = listening_inodes((PROC / str(pid) / "net" / "tcp").read_text(), port)
        if len(inodes) != 1 or (ticks is not None and _ticks(pid) != ticks):
            return None
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise
        return None
    except ValueError:
        return None
    [inode] = inodes
    if any(_holds(member, inode) for member in _tree(pid)):
        return inode
    return None


def _tree(pid: int) -> Iterator[int]:
    """The process first, then its children, then theirs."""
    waiting = [pid]
    while waiting:
        at = waiting.pop(0)
        yield at
        for children in (PROC / str(at) / "task").glob("*/children"):
            with _gone_meanwhile():
                waiting += map(int, children.read_text().split())


def _holds(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with _gone_meanwhile():
        for entry in (PROC / str(pid) / "fd").iterdir():
            with _gone_meanwhile():
                if str(entry.readlink()) == wanted:
                    return True
    return False


def _ticks(pid: int) -> int:
    return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])


@contextmanager
def _gone_meanwhile() -> Iterator[None]:
    """A process, or a file of its, may go while it is looked at."""
    try:
        yield
    except ValueError:
        pass
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise
