"""How many connections there may be, and how long and how large what comes over one of them: the
limits of both web servers."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Protocol, TypeVar

# A request's line and headers, and one that is still to come on a connection that is kept.
HEAD_S = 20.0
IDLE_S = 60.0
# A body has this long, and longer the larger it is: slower than this nobody is.
BODY_S = 30.0
SLOWEST_BYTES_PER_S = 50_000
# One whose length nobody knows.
CHUNKED_BODY_S = 300.0
LONGEST_LINE = 16 << 10
LONGEST_HEAD = 2 * LONGEST_LINE
# After a refusal so much longer is read, so that the client gets to see it.
LINGER_S = 2.0
# A client that takes nothing of its answer for so long is dropped.
HTTP_STALL_S = 120.0
# What is on its way when a server is ended may go on for so long.
DRAIN_S = 3.0
# Descriptors for other things than clients, and what one client may take: its own and one to an
# engine.
OTHER_FILES = 200
FILES_PER_CLIENT = 2
MOST_CONNECTIONS = 4096


class Connection(Protocol):
    """`idle_since_s` is None while a request is on its way over it."""

    idle_since_s: float | None


C = TypeVar("C", bound=Connection)


def room_for_connections() -> int:
    """Raises the limit of open files as far as it goes; how many clients fit in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OTHER_FILES + FILES_PER_CLIENT * MOST_CONNECTIONS
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if reachable > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
        soft = reachable
    return max(16, min(MOST_CONNECTIONS, (soft - OTHER_FILES) // FILES_PER_CLIENT))


def longest_idle(connections: Iterable[C], newest: C) -> C:
    """Which one makes room: the one that has been idle longest, else the one that came last."""
    idle = [
        one for one in connections if one.idle_since_s is not None and one is not newest
    ]
    return min(idle, key=lambda one: one.idle_since_s or 0.0, default=newest)


def body_within_s(length: int | None) -> float:
    """How long a body of so many bytes may take to arrive; None: nobody knows how many."""
    if length is None:
        return CHUNKED_BODY_S
    return BODY_S + length / SLOWEST_BYTES_PER_S


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    """An answer as it goes over the connection, which is closed behind it."""
    reason = HTTPStatus(status).phrase
    named = {
        **headers,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Server": "omni",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return (
        f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode("latin-1", "replace") + body
    )
