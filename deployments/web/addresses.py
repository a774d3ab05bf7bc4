"""Where the panel can be asked by what runs beside it."""

from __future__ import annotations

from django.http import HttpRequest


def gateway_address(request: HttpRequest) -> str:
    """Where the panel listens: where this request came in, whatever proxy stands before it.

    Its run asks the deployments there, from this machine.
    """
    host = str(request.META["SERVER_NAME"])
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{request.META['SERVER_PORT']}"
