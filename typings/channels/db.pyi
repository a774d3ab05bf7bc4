# What Omni uses of it; the package itself carries no types.
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

def database_sync_to_async(
    function: Callable[P, R],
) -> Callable[P, Coroutine[Any, Any, R]]: ...
