# What Omni uses of it; the package itself carries no types.
from typing import Any

class WebsocketDenier:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...
