# What Omni uses of it; the package itself carries no types.
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

class Signal:
    def connect(self, receiver: F) -> F: ...

worker_init: Signal
worker_shutting_down: Signal
