"""Database work for asyncio code that must be cancellable.

asgiref's sync_to_async finishes the call and returns as if nothing had happened when it is
cancelled while its thread runs: the cancellation is lost, and with it a Stop or a client that hung
up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Generic, ParamSpec, TypeVar

from django.db import close_old_connections, connections

P = ParamSpec("P")
R = TypeVar("R")


# For the processes that look at the database every second or two.
KEEP_CONNECTION_S = 60


def keep_connections() -> None:
    """The threads of this process use a connection for a while, not for one unit of work.

    To open one costs several times what an idle tick asks of it. Whoever calls this calls `let_go`
    after each unit of work.
    """
    for options in connections.settings.values():
        options |= {"CONN_MAX_AGE": KEEP_CONNECTION_S, "CONN_HEALTH_CHECKS": True}


def let_go() -> None:
    """The end of a unit of work: closes what is old enough, and at once what had an error."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close()
    close_old_connections()


class DatabaseChanges:
    """Tells whether anybody wrote to the database since the last look, by reading a counter.

    For one thread. SQLite counts: `data_version` what other connections committed, `total_changes`
    the rows that this one wrote. Other databases have no such counter: there every look says yes.
    Every `at_least_every_s` it says yes too, so that whoever asks never relies on it alone.
    """

    def __init__(
        self, at_least_every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.at_least_every_s = at_least_every_s
        self.clock = clock
        self._seen: tuple[object, int, int] | None = None
        self._due_s = float("-inf")
        self._not_counted = 0

    @contextmanager
    def look(self) -> Iterator[bool]:
        """Yields whether there is something to do; what then fails is to be done again."""
        now_s = self.clock()
        counted = self._count()
        has_changed = counted is None or counted != self._seen
        is_due = has_changed or now_s >= self._due_s
        yield is_due
        if is_due:
            self._seen = counted
            self._due_s = now_s + self.at_least_every_s

    @contextmanager
    def not_counting(self) -> Iterator[None]:
        """What this connection writes inside is no news to this thread."""
        before = self._count()
        yield
        after = self._count()
        if before and after and before[0] is after[0]:
            self._not_counted += after[2] - before[2]

    def _count(self) -> tuple[object, int, int] | None:
        database = connections["default"]
        if database.vendor != "sqlite":
            return None
        database.ensure_connection()
        own = database.connection
        # Without the wrapper, which is most of its cost: this is what an idle process does.
        [version] = own.execute("PRAGMA data_version").fetchone()
        return own, version, own.total_changes - self._not_counted


class ReadOnChange(Generic[R]):
    """Calls `read` when somebody has written to the database, and returns what it gave last where
    nobody has. For one thread."""

    def __init__(self, read: Callable[[], R], at_least_every_s: float = 5.0) -> None:
        self._read = read
        self._changes = DatabaseChanges(at_least_every_s)
        self._last: tuple[R] | None = None

    def __call__(self) -> R:
        with self._changes.look() as is_due:
            if is_due or self._last is None:
                self._last = (self._read(),)
        return self._last[0]


class DatabasePool:
    """A few threads of their own, so that nothing else waits behind this work, nor this behind
    other."""

    def __init__(self, name: str, threads: int) -> None:
        self._executor = ThreadPoolExecutor(
            max_workers=threads, thread_name_prefix=name
        )

    def __call__(self, function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The function as a coroutine; cancelled, it stops waiting while the thread finishes by
        itself."""

        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            work = partial(_connected, function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, work
            )

        return call


def _connected(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    close_old_connections()
    try:
        return function(*args, **kwargs)
    finally:
        close_old_connections()
