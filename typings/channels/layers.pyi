# What Omni uses of it; the package itself carries no types.
from typing import Any

def get_channel_layer(alias: str = "default") -> Any: ...
