"""The one place that turns an OmniError into what the caller can read."""

from __future__ import annotations

from collections.abc import Callable

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from omni.errors import OmniError

STATUS = {"not_found": 404, "forbidden": 403}


class AdminPolicyMiddleware:
    """The admin theme's Alpine.js evaluates expressions and sets styles: its pages get a wider policy."""

    POLICY = {"script-src": [SELF, UNSAFE_EVAL, UNSAFE_INLINE], "style-src": [SELF, UNSAFE_INLINE]}

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith("/admin/"):
            response._csp_replace = self.POLICY  # type: ignore[attr-defined]
        return response


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
