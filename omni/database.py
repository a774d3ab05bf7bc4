"""Database work for asyncio code that must be cancellable.

asgiref's sync_to_async finishes the call and returns as if nothing had happened when it is
cancelled while its thread runs: the cancellation is lost, and with it a Stop or a client that hung
up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

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
