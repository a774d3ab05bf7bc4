"""Pages that belong to no app: health, the glossary, one's own password and the error pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import DisallowedHost
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware import csrf
from django.shortcuts import render
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from omni import markdown
from omni.errors import OmniError
from omni.forwarded import UNTRUSTED
from omni.htmx import error_toast
from omni.misdirected import WITHOUT_TLS, unknown_host, unknown_origin
from omni.origins import is_own, is_trusted
from omni.sockets import tokens


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """200 when pages can be served: the database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "database unreachable"}, status=503)
    return JsonResponse({"status": "ok"})


@login_not_required
@require_GET
@never_cache
def socket_token(request: HttpRequest) -> HttpResponse:
    """What a page says first on a socket. Only a page of this very origin can read it."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return JsonResponse(
            {"error": "Only the panel's own pages open sockets."}, status=403
        )
    page = request.headers.get("X-Page-Origin", "")
    # The socket itself would be refused, of which a browser tells its page nothing.
    if page and not _is_ours(request, page):
        return JsonResponse({"error": str(_unknown(request, page))}, status=403)
    if not request.user.is_authenticated:
        return JsonResponse({"error": "Log in first."}, status=401)
    return JsonResponse({"token": tokens.make(request.session.session_key or "")})


def _is_ours(request: HttpRequest, page: str) -> bool:
    """Whether a socket of a page with this origin would be let in."""
    scheme = request.scheme or "http"
    return is_own(page, scheme=scheme, host=request.get_host()) or (
        is_trusted(page, settings.CSRF_TRUSTED_ORIGINS)
    )


@require_GET
def glossary(request: HttpRequest) -> HttpResponse:
    """The words of the panel, from the file in which they stand for developers, too."""
    text = (settings.BASE_DIR / "docs" / "glossary.md").read_text()
    _title, _, body = text.partition("\n")
    return render(request, "glossary.html", {"body": markdown.render(body)})


class PasswordPage(PasswordChangeView):
    """Everybody's own password. The other log-ins of the same user end with it; this one goes
    on."""

    template_name = "registration/password.html"
    success_url = reverse_lazy("deployments:advice")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        messages.success(
            self.request,
            "Your password is changed. Everywhere else you are logged out.",
        )
        return response


def bad_request(
    request: HttpRequest, exception: Exception | None = None
) -> HttpResponse:
    if isinstance(exception, DisallowedHost):
        return _shown_alone(
            request, unknown_host(request.headers.get("Host", "")), status=400
        )
    return render(request, "errors/400.html", status=400)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form that did not come from the panel's own pages, as far as the panel can tell."""
    origin = request.headers.get("Origin", "")
    referer = request.headers.get("Referer", "")
    is_elsewhere = reason in _from_elsewhere(origin, referer)
    if is_elsewhere:
        error = _unknown(request, origin or referer)
    elif settings.BEHIND_TLS and not request.is_secure():
        error = WITHOUT_TLS
    else:
        error = STALE_FORM
    return _shown_alone(request, error, status=403)


def _from_elsewhere(origin: str, referer: str) -> set[str]:
    """Django's reasons that are about the page a form came from, as it fills them in; it gives no
    other sign of which one it was."""
    try:
        page = urlsplit(referer).geturl()
    except ValueError:
        page = ""  # a malformed one, which has a reason of its own
    return {
        csrf.REASON_BAD_ORIGIN % origin,
        csrf.REASON_BAD_REFERER % page,
        csrf.REASON_NO_REFERER,
        csrf.REASON_MALFORMED_REFERER,
        csrf.REASON_INSECURE_REFERER,
    }


def _unknown(request: HttpRequest, page: str) -> OmniError:
    scope = getattr(request, "scope", {})
    return unknown_origin(
        page,
        untrusted_proxy=scope.get(UNTRUSTED, ""),
        behind_tls=settings.BEHIND_TLS,
    )


def _shown_alone(request: HttpRequest, error: OmniError, status: int) -> HttpResponse:
    return error_toast(request, error) or render(
        request, "errors/omni.html", {"error": error}, status=status
    )


STALE_FORM = OmniError(
    "stale_form",
    "The form is older than your log-in, so it was not taken.",
    "Go back, reload the page and send it again. Nothing was changed.",
)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/403.html", status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "errors/404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    return render(request, "errors/500.html", status=500)
