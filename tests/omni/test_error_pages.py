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
