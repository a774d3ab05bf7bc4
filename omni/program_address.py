"""The address that programs are given: the one home of what pages write about it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port


def program_root(request: HttpRequest) -> str:
    """What /v1 is appended to, as the browser that asks reached the panel; Anthropic's clients are
    given this."""
    if _came_directly(request):
        host, _ = split_domain_port(request.get_host())
        return f"http://{host}:{settings.OMNI_GATEWAY_PORT}"
    return panel_root(request)


def program_address(request: HttpRequest) -> str:
    """The base of the OpenAI-compatible API, such as https://omni.lan/omni/v1."""
    return f"{program_root(request)}/v1"


def panel_root(request: HttpRequest) -> str:
    """Where the panel is, which answers programs too."""
    return f"{request.scheme}://{request.get_host()}{settings.OMNI_PATH_PREFIX}"


def _came_directly(request: HttpRequest) -> bool:
    """Whether there is a gateway beside the panel that is reached as the panel was: a proxy has an
    address of its own, and leads to what it was told to."""
    if not settings.OMNI_GATEWAY_PORT or settings.OMNI_PATH_PREFIX:
        return False
    _, port = split_domain_port(request.get_host())
    return not request.is_secure() and port == request.META.get("SERVER_PORT")
