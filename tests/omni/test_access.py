"""Nothing answers without log-in except what must: health and static files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

# socket-token/ and metrics answer 401 instead of a page: a script and a scraper ask for them.
OPEN = {"healthz", "login/", "static/", "socket-token/", "metrics"}
# Django's log-out answers everybody with a redirect to the log-in page.
SAMPLE = {"str": "x", "slug": "some-name", "int": "1", "path": "x", "uuid": "0" * 32}


def paths(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Every route of the panel with its parameters filled in; the admin's own are one entry."""
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if route.startswith("admin/"):
            yield "admin/"
        elif isinstance(pattern, URLResolver):
            yield from paths(pattern, route)
        elif isinstance(pattern, URLPattern):
            for kind, value in SAMPLE.items():
                while f"<{kind}:" in route:
                    start = route.index(f"<{kind}:")
                    route = route[:start] + value + route[route.index(">", start) + 1 :]
            yield route


def all_paths() -> list[str]:
    return sorted({path for path in paths(get_resolver()) if path not in OPEN})


@pytest.mark.django_db
@pytest.mark.parametrize("path", all_paths())
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_stranger_is_sent_to_log_in(
    anonymous: Client, path: str, method: str
) -> None:
    response = getattr(anonymous, method)(f"/{path}")
    assert response.status_code == 302
    assert "/login/" in response["Location"]


@pytest.mark.django_db
def test_a_scraper_that_is_not_known_is_told_so(anonymous: Client) -> None:
    assert anonymous.get("/metrics").status_code == 401
    assert anonymous.post("/metrics").status_code in (401, 405)


@pytest.mark.django_db
def test_health_needs_no_log_in(anonymous: Client) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/chat/completions",
        "/v1/completions",
        "/tokenize",
        "/v1/nothing",
    ],
)
@pytest.mark.django_db(transaction=True)
async def test_the_gateway_asks_for_a_key(path: str) -> None:
    from asgiref.testing import ApplicationCommunicator

    from omni.asgi import application

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [],
        "query_string": b"",
        "client": ("127.0.0.1", 1),
    }
    caller = ApplicationCommunicator(application, scope)
    await caller.send_input({"type": "http.request", "body": b"", "more_body": False})
    start = await caller.receive_output(5)
    body = await caller.receive_output(5)
    assert start["status"] == 401
    assert b'"error"' in body["body"]


@pytest.mark.django_db
def test_a_form_without_csrf_token_is_refused(admin_user: object) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")  # type: ignore[arg-type]
    assert client.post("/deployments/some-name/start/").status_code == 403


@pytest.mark.django_db
def test_pages_carry_a_content_security_policy_without_inline_code(
    admin: Client,
) -> None:
    policy = admin.get("/")["Content-Security-Policy"]
    assert "unsafe-inline" not in policy and "unsafe-eval" not in policy
    assert "script-src 'self' 'nonce-" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.django_db
def test_a_name_is_locked_after_many_wrong_passwords(
    anonymous: Client, viewer_user: object
) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        response = anonymous.post("/login/", {"username": "vera", "password": "wrong"})
    assert response.status_code == 429
    assert b"Too many attempts" in response.content
