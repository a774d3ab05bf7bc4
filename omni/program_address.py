"""The address that programs are given: the one home of what pages write about it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def program_root(request: HttpRequest) -> str:
    """What /v1 is appended to, as the browser that asks reached the panel; Anthropic's clients are
    given this."""
    return f"{request.scheme}://{request.get_host()}{settings.OMNI_PATH_PREFIX}"


def program_address(request: HttpRequest) -> str:
    """The base of the OpenAI-compatible API, such as https://omni.lan/omni/v1."""
    return f"{program_root(request)}/v1"
