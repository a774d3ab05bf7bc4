# What Omni uses of it; the package itself carries no types.
from collections.abc import Sequence
from typing import Any

class URLRouter:
    def __init__(self, routes: Sequence[Any]) -> None: ...
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
