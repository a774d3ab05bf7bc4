# What Omni uses of it; the package itself carries no types.
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

class Interface: ...

class Attribute:
    def __init__(self, doc: str = "") -> None: ...

def implementer(*interfaces: Any) -> Callable[[C], C]: ...
