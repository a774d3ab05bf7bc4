# What Omni uses of it; the package itself carries no types.
from typing import Any

class RedisChannelLayer:
    async def receive(self, channel: str) -> Any: ...
