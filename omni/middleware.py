"""Rights to pages, policies of pages, and the one place that turns an OmniError into what the caller can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import render

from omni.errors import OmniError
from omni.roles import PAGES, may, right_for

STATUS = {"not_found": 404, "forbidden": 403}


class AdminPolicyMiddleware:
    """The admin theme's Alpine.js evaluates the expressions in its templates, about 180 of them, and sets styles.

    Alpine's build for strict policies cannot read those, so /admin, and nothing else, allows eval. Scripts in the
    page itself stay forbidden there too: what somebody smuggles into a field is no script.
    """

    POLICY = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF, UNSAFE_INLINE]}

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith("/admin/"):
            response._csp_replace = self.POLICY  # type: ignore[attr-defined]
        return response


class RightsMiddleware:
    """Holds every page against the table of rights; a page without a row there is nobody's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, arguments: Any, named: Any) -> HttpResponse | None:
        match = request.resolver_match
        # The administration asks the same table by itself (omni.administration).
        if match is None or match.app_name == "admin":
            return None
        right = right_for(match.view_name, request.method or "GET")
        if right == "":
            page = PAGES[match.view_name]
            return HttpResponseNotAllowed([*(["GET", "HEAD"] if page.look else []), *(["POST"] if page.act else [])])
        if right is None or not may(request.user, right):
            raise PermissionDenied
        return None


class OmniErrorMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OmniError):
            return None
        status = STATUS.get(error.code, 400)
        if request.headers.get("Accept", "").startswith("application/json"):
            return JsonResponse({"error": error.as_dict()}, status=status)
        if request.htmx:  # type: ignore[attr-defined]
            # 200 with a retarget: htmx 2 throws the body of an error status away.
            response = render(request, "_error_toast.html", {"error": error})
            response["HX-Retarget"], response["HX-Reswap"] = "#toasts", "beforeend"
            return response
        return render(request, "errors/omni.html", {"error": error}, status=status)
