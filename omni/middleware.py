"""Rights to pages, policies of pages, and the one place that turns an OmniError into what the
caller can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import url_has_allowed_host_and_scheme

from omni.errors import OmniError
from omni.htmx import error_toast
from omni.roles.pages import PAGES, right_for
from omni.roles.rights import may

STATUS = {"not_found": 404, "forbidden": 403}
LOGGED_OUT = OmniError(
    "logged_out", "You are not logged in any longer.", "Log in again."
)


class AdminPolicyMiddleware:
    """The admin theme's Alpine.js evaluates the expressions in its templates, about 180 of them,
    and sets styles.

    Alpine's build for strict policies cannot read those, so /admin, and nothing else, allows eval.
    Scripts in the page itself stay forbidden there too: what somebody smuggles into a field is no
    script.
    """

    POLICY = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF, UNSAFE_INLINE]}

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.get_admin_response = csp_replace(self.POLICY)(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_admin = request.path.startswith(f"{settings.OMNI_PATH_PREFIX}/admin/")
        if is_admin:
            return self.get_admin_response(request)
        return self.get_response(request)


class SecureCookiesMiddleware:
    """Cookies that were set under TLS stay there, whatever the settings say."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.is_secure():
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response


class LogInMiddleware(LoginRequiredMiddleware):
    """Whoever is not logged in (any longer) logs in and comes back to the page that was open."""

    def handle_no_permission(
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseRedirect:
        if request.method in ("GET", "HEAD"):
            wanted = request.get_full_path()
        else:
            wanted = _page_it_came_from(request)
        return redirect_to_login(
            wanted,
            self.get_login_url(view_func),
            self.get_redirect_field_name(view_func),
        )

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        refused = super().process_view(request, view_func, view_args, view_kwargs)
        is_script = (
            "HX-Request" in request.headers
            or "application/json" in request.headers.get("Accept", "")
        )
        # A script would put the log-in page into the middle of the open one: it is told instead,
        # keeps what was
        # typed and opens the log-in page itself.
        if refused and is_script:
            return JsonResponse({"error": LOGGED_OUT.as_dict()}, status=401)
        return refused


def _page_it_came_from(request: HttpRequest) -> str:
    """An address that only takes forms cannot be opened again."""
    page = request.headers.get("Referer", "")
    is_ours = url_has_allowed_host_and_scheme(
        page, {request.get_host()}, require_https=request.is_secure()
    )
    if is_ours:
        return urlsplit(page)._replace(scheme="", netloc="").geturl()
    return reverse(settings.LOGIN_REDIRECT_URL)


class RightsMiddleware:
    """Holds every page against the table of rights; a page without a row there is nobody's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, arguments: Any, named: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        # The administration asks the same table by itself (omni.administration).
        if match is None or match.app_name == "admin":
            return None
        right = right_for(match.view_name, request.method or "GET")
        if right == "":
            page = PAGES[match.view_name]
            return HttpResponseNotAllowed(
                [
                    *(["GET", "HEAD"] if page.look else []),
                    *(["POST"] if page.act else []),
                ]
            )
        if right is None or not may(request.user, right):
            raise PermissionDenied
        return None


class VaryMiddleware:
    """A page and a part of it stand under one address: going back must not bring the part."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            patch_vary_headers(
                response, ("HX-Request", "HX-Boosted", "HX-History-Restore-Request")
            )
        return response


class OmniErrorMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        if not isinstance(error, OmniError):
            return None
        status = STATUS.get(error.code, 400)
        if request.headers.get("Accept", "").startswith("application/json"):
            return JsonResponse({"error": error.as_dict()}, status=status)
        return error_toast(request, error) or render(
            request, "errors/omni.html", {"error": error}, status=status
        )
