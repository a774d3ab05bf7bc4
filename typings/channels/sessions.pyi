# What Omni uses of it; the package itself carries no types.
from typing import Any

def SessionMiddlewareStack(inner: Any) -> Any: ...
