"""Who listens on a port of this machine: a port belongs to whoever was quickest, so it is asked
before it is used."""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omni import sock_diag

PROC = Path("/proc")
LISTENS = "0A"
# This process may open no more files: what it cannot see is not gone.
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
MOST_REMEMBERED = 1024


def listening_inodes(port: int, pid: int, address: str | None = None) -> set[int]:
    """The IPv4 sockets that listen on this port in the network namespace of this process: the
    inodes of all of them; with an address, of those that are bound to exactly this one.

    Raises OSError.
    """
    if _is_beside_us(pid):
        try:
            return sock_diag.listening_inodes(port, address)
        except OSError as error:
            if error.errno in NO_MORE_FILES:
                raise
    # It is elsewhere, or a sandbox refuses the question.
    table = (PROC / str(pid) / "net" / "tcp").read_text()
    return inodes_in_table(table, port, address)


def _is_beside_us(pid: int) -> bool:
    """Whether it has the network namespace that this process has."""
    try:
        own = (PROC / "self" / "ns" / "net").stat()
        other = (PROC / str(pid) / "ns" / "net").stat()
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise
        return False
    return own.st_ino == other.st_ino


def inodes_in_table(table: str, port: int, address: str | None = None) -> set[int]:
    """The same out of the words of proc(5), net/tcp."""
    wanted = address and bytes(reversed(socket.inet_aton(address))).hex().upper()
    found = set()
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 10 or columns[3] != LISTENS:
            continue
        bound, _, at = columns[1].rpartition(":")
        if int(at, 16) == port and wanted in (None, bound):
            found.add(int(columns[9]))
    return found


def own_listener(pid: int, ticks: int | None, port: int) -> str | None:
    """The socket that listens there, if it is of this process or a descendant of it, and of nobody
    else.

    It is looked for in the network namespace of the process. `ticks` is when that began, in clock
    ticks since boot: a pid alone may have changed hands. Raises OSError where it cannot be looked.
    """
    try:
        inodes = listening_inodes(port, pid)
        if len(inodes) != 1 or (ticks is not None and _ticks(pid) != ticks):
            return None
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise
        return None
    except ValueError:
        return None
    [inode] = inodes
    if _is_known(pid, ticks, inode) or any(_holds(m, inode) for m in _tree(pid)):
        _remember(pid, ticks, inode)
        return str(inode)
    return None


# Whose a socket was found to be: it is nobody else's as long as it listens and its process lives.
_holders: OrderedDict[tuple[int, int], int] = OrderedDict()


def _is_known(pid: int, ticks: int | None, inode: int) -> bool:
    return ticks is not None and _holders.get((pid, ticks)) == inode


def _remember(pid: int, ticks: int | None, inode: int) -> None:
    if ticks is None:
        return
    _holders[pid, ticks] = inode
    if len(_holders) > MOST_REMEMBERED:
        _holders.popitem(last=False)


def _tree(pid: int) -> Iterator[int]:
    """The process first, then its children, then theirs."""
    waiting = [pid]
    while waiting:
        at = waiting.pop(0)
        yield at
        for children in (PROC / str(at) / "task").glob("*/children"):
            with _gone_meanwhile():
                waiting += map(int, children.read_text().split())


def _holds(pid: int, inode: int) -> bool:
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
