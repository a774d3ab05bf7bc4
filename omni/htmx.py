"""What htmx asks for: a part of a page to swap in, or the whole page.

The only place that tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django_htmx.middleware import HtmxDetails

from omni.errors import OmniError


class HtmxHttpRequest(HttpRequest):
    """What a view gets once all middleware has seen the request: somebody is logged in."""

    htmx: HtmxDetails
    user: User


def is_htmx(request: HttpRequest) -> bool:
    """Some requests are refused before the middleware that adds `htmx` has seen them."""
    return bool(getattr(request, "htmx", "HX-Request" in request.headers))


def error_toast(request: HttpRequest, error: OmniError) -> HttpResponse | None:
    """The error as a toast on the page that is open; None for a request that wants a page."""
    if not is_htmx(request):
        return None
    # 200 with a retarget: htmx 2 throws the body of an error status away.
    response = render(request, "_error_toast.html", {"error": error})
    response["HX-Retarget"], response["HX-Reswap"] = "#toasts", "beforeend"
    return response


def wants_part(request: HtmxHttpRequest) -> bool:
    """Whether only the part that is swapped in is asked for; going back in the history wants the
    whole page."""
    asked = request.htmx
    return bool(asked and not asked.boosted and not asked.history_restore_request)


def render_page_or_part(
    request: HtmxHttpRequest, page: str, part: str, context: Mapping[str, Any]
) -> HttpResponse:
    """The template `part` for htmx, `page` around it for everybody else."""
    return render(request, part if wants_part(request) else page, dict(context))


def go_to(request: HttpRequest, to: str, *args: str) -> HttpResponse:
    """To another page, also from a form that htmx has sent."""
    if not is_htmx(request):
        return redirect(to, *args)
    response = HttpResponse(status=204)
    response["HX-Redirect"] = reverse(to, args=args)
    return response
