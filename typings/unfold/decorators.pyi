# What Omni uses of it; the package itself carries no types.
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

def display(
    *,
    description: str = "",
    ordering: str = "",
    label: Mapping[str, str] | bool = False,
) -> Callable[[F], F]: ...
