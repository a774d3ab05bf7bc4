"""Pages for requests that are refused: what is wrong, which setting changes it, and the way on."""

from __future__ import annotations

import logging

import pytest
from django.test import Client, override_settings

from omni.misdirected import unknown_host, unknown_origin

LOGGED_IN = pytest.mark.django_db


@LOGGED_IN
def test_a_missing_page_has_the_navigation_for_who_is_logged_in(viewer: Client) -> None:
    answer = viewer.get("/nothing-here/")
    text = answer.content.decode()
    assert answer.status_code == 404
    assert all(
        f">{page}<" in text for page in ("Rig", "Models", "Plan", "Deployments", "Chat")
    )


@LOGGED_IN
def test_a_missing_page_shows_a_stranger_nothing_but_itself(anonymous: Client) -> None:
    text = anonymous.get("/static/nothing-here").content.decode()
    assert "Deployments" not in text


@LOGGED_IN
@pytest.mark.parametrize(
    "headers", [{}, {"HX-Request": "true"}], ids=["browser", "htmx"]
)
def test_an_unknown_name_of_the_panel_names_the_setting(
    anonymous: Client, headers: dict[str, str]
) -> None:
    text = anonymous.get(
        "/", headers={"Host": "omni.lan:8000", **headers}
    ).content.decode()
    assert "OMNI_ALLOWED_HOSTS=omni.lan " in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
@LOGGED_IN
def test_the_panel_always_answers_to_its_own_machine(
    anonymous: Client, host: str
) -> None:
    assert (
        anonymous.get("/healthz", headers={"Host": f"{host}:8000"}).status_code == 200
    )


@LOGGED_IN
@pytest.mark.parametrize(
    ("origin", "behind_tls", "settings_named"),
    [
        (
            "https://omni.lan",
            False,
            "OMNI_TRUSTED_ORIGINS=https://omni.lan and OMNI_BEHIND_TLS=1",
        ),
        ("https://omni.lan", True, "OMNI_TRUSTED_ORIGINS=https://omni.lan."),
        ("http://omni.lan:8080", False, "OMNI_TRUSTED_ORIGINS=http://omni.lan:8080."),
    ],
)
@pytest.mark.parametrize(
    "headers", [{}, {"HX-Request": "true"}], ids=["browser", "htmx"]
)
def test_a_form_from_another_address_names_the_settings(
    admin_user: object,
    origin: str,
    behind_tls: bool,
    settings_named: str,
    headers: dict[str, str],
) -> None:
    client = Client(enforce_csrf_checks=True)
    with override_settings(BEHIND_TLS=behind_tls):
        answer = client.post(
            "/login/", {"username": "ada"}, headers={"Origin": origin, **headers}
        )
    text = answer.content.decode()
    assert settings_named in text and "DEBUG" not in text


@LOGGED_IN
def test_a_form_older_than_the_log_in_says_so(admin_user: object) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.post(
        "/login/", {"username": "ada", "csrfmiddlewaretoken": "x" * 64}
    )
    assert answer.status_code == 403
    assert "older than your log-in" in answer.content.decode()


@LOGGED_IN
@override_settings(BEHIND_TLS=True)
def test_a_form_without_tls_where_tls_is_expected_names_the_setting(
    admin_user: object,
) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/login/", {"username": "ada"})
    assert answer.status_code == 403
    assert "OMNI_BEHIND_TLS=0" in answer.content.decode()


@pytest.mark.parametrize(
    ("proxy", "behind_tls", "line"),
    [
        ("127.0.0.1", False, "OMNI_TRUSTED_PROXIES=127.0.0.1 and OMNI_BEHIND_TLS=1."),
        ("::1", True, "OMNI_TRUSTED_PROXIES=::1."),
        ("10.20.30.40", True, "OMNI_TRUSTED_PROXIES=ADDRESS (the proxy's"),
        ("", True, "OMNI_TRUSTED_ORIGINS=https://omni.lan."),
    ],
)
def test_a_proxy_that_is_not_trusted_is_named_without_its_address_elsewhere(
    proxy: str, behind_tls: bool, line: str
) -> None:
    origin = "https://omni.lan"
    error = unknown_origin(origin, untrusted_proxy=proxy, behind_tls=behind_tls)
    assert line in str(error) and "10.20.30.40" not in str(error)


@LOGGED_IN
@pytest.mark.parametrize(
    ("page", "status"),
    [("http://testserver", 200), ("https://testserver", 403), ("", 200)],
)
def test_a_page_whose_sockets_would_be_refused_is_told_why(
    viewer: Client, page: str, status: int
) -> None:
    answer = viewer.get("/socket-token/", headers={"X-Page-Origin": page})
    assert answer.status_code == status
    assert ("OMNI_BEHIND_TLS=1" in str(answer.json())) is (status == 403)


@LOGGED_IN
@pytest.mark.parametrize("secure", [True, False])
def test_cookies_that_are_set_under_tls_are_for_tls(
    anonymous: Client, admin_user: object, secure: bool
) -> None:
    log_in = {"username": "ada", "password": "correct horse battery"}
    anonymous.post("/login/", log_in, secure=secure)
    assert {bool(each["secure"]) for each in anonymous.cookies.values()} == {secure}


@pytest.mark.parametrize("named", ["", "a b", "x" * 999, "<b>", "[::"])
def test_a_name_that_is_no_name_is_no_trouble(named: str) -> None:
    assert len(str(unknown_host(named))) < 700
    assert len(str(unknown_origin(named))) < 1200


@LOGGED_IN
@pytest.mark.parametrize(
    ("path", "status"), [("/deployments/new/", 403), ("/nothing-here/", 404)]
)
def test_a_refusal_is_one_line_of_the_log(
    viewer: Client, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    assert viewer.get(path).status_code == status
    records = [record for record in caplog.records if record.name == "django.request"]
    assert records and not any(record.exc_info for record in records)


def test_a_fault_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    fault = (ValueError, ValueError("a fault"), None)
    logging.getLogger("django.request").error(
        "Internal Server Error", exc_info=fault, extra={"status_code": 500}
    )
    assert caplog.records[-1].exc_info == fault
