"""Addresses and forms that nobody types: an answer with a status, never a server error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from omni.numbers import LARGEST, whole_number

HOSTILE = [
    "",
    "x",
    "-1",
    "9" * 5_000,
    "9" * 19,
    "²",
    "٣",
    "1e999",
    "\x00",
    "'",
    "<script>",
    "../" * 50,
    "%",
    "a" * 20_000,
]
PAGES = {
    "/": ("pick",),
    "/answer/": ("pick",),
    "/answer/rig.yaml": ("key",),
    "/answer/running/": ("pick",),
    "/history/": ("subject",),
    "/history/points.json": ("subject", "from", "to"),
    "/history/points.csv": ("subject", "from", "to"),
    "/models/": ("q", "arch", "quant", "state", "sort"),
    "/models/download/": ("q",),
    "/plan/": ("model", "device", "strategy", "context", "parallel", "fixed", "show"),
    "/plan/accuracy/": ("page",),
    "/plan/presets/": ("model", "device", "context"),
    "/deployments/": ("q",),
    "/chat/": ("q", "current"),
    "/devices/across/": ("part",),
    "/login/": ("next",),
}
PATHS = [
    "/chat/99999999999999999999999/",
    f"/chat/{'9' * 5000}/",
    f"/models/{'x' * 5000}/",
    f"/deployments/{'x' * 5000}/",
    f"/cards/{'x' * 5000}/",
    "/cards/%00/",
    "/models/%00/",
    "/%ff",
    "//evil.example/",
    "/admin/%00",
    f"/admin/deployments/deployment/{'9' * 5000}/change/",
    "/admin/deployments/deployment/x/change/",
    "/admin/deployments/deployment/?engine__host__name=x&q=%00",
    "/admin/deployments/deployment/?p=" + "9" * 5000,
]


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "names"), PAGES.items())
def test_a_parameter_that_cannot_be_is_no_server_error(
    admin: Client, path: str, names: tuple[str, ...]
) -> None:
    admin.raise_request_exception = False
    for name in names:
        for value in HOSTILE:
            status = admin.get(path, {name: value}).status_code
            assert status < 500, (name, value[:40])


@pytest.mark.django_db
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:60])
def test_an_address_that_cannot_be_is_no_server_error(admin: Client, path: str) -> None:
    admin.raise_request_exception = False
    assert admin.get(path).status_code < 500


@pytest.mark.django_db
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:20]))
def test_a_form_field_that_cannot_be_is_no_server_error(
    admin: Client, anonymous: Client, value: str
) -> None:
    anonymous.raise_request_exception = admin.raise_request_exception = False
    assert (
        anonymous.post("/login/", {"username": value, "password": value}).status_code
        < 500
    )
    fields = {"old_password": value, "new_password1": value, "new_password2": value}
    assert admin.post("/password/", fields).status_code < 500
    assert admin.post("/rig-file/", {"text": value, "agreed": value}).status_code < 500
    assert (
        admin.post(
            "/servers/add/", {"name": value, "address": value, "key": value}
        ).status_code
        < 500
    )
    assert (
        admin.post("/chat/new/", {"deployment": value, "beside": value}).status_code
        < 500
    )


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/login/", "/socket-token/", "/admin/", "/healthz"]
)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::", ""],
)
def test_a_name_that_is_pointed_here_reaches_no_page(
    admin: Client, path: str, host: str
) -> None:
    """DNS rebinding: a page of evil.example, whose name is made to lead to this machine."""
    admin.raise_request_exception = False
    assert admin.get(path, headers={"host": host}).status_code in (400, 404, 421)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("7", 7), (7, 7), ("0", 0), (str(LARGEST), LARGEST), (LARGEST, LARGEST),
        (str(LARGEST + 1), None), (LARGEST + 1, None), ("9" * 5000, None), (1 << 200, None),
        ("-1", None), (-1, None), ("²", None), ("٣", None), ("", None), (" 1", None), (True, None),
        (1.0, None), (None, None),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_whole_number_from_outside(given: object, number: int | None) -> None:
    assert whole_number(given) == number


# --- one's own password ---------------------------------------------------------------------------
@pytest.mark.django_db
def test_everybody_changes_their_own_password_and_stays_logged_in(
    viewer: Client, viewer_user: User
) -> None:
    from tests.conftest import PASSWORD

    elsewhere = Client()
    elsewhere.force_login(
        viewer_user, backend="django.contrib.auth.backends.ModelBackend"
    )
    assert "/password/" in viewer.get("/").content.decode()

    new = "another horse, another battery"
    weak = {"old_password": PASSWORD, "new_password1": "vera", "new_password2": "vera"}
    assert "too short" in viewer.post("/password/", weak).content.decode()
    wrong = {"old_password": "wrong", "new_password1": new, "new_password2": new}
    assert viewer.post("/password/", wrong).status_code == 200
    viewer_user.refresh_from_db()
    assert viewer_user.check_password(PASSWORD)

    done = viewer.post("/password/", {**wrong, "old_password": PASSWORD}, follow=True)
    assert "Your password is changed" in done.content.decode()
    viewer_user.refresh_from_db()
    assert viewer_user.check_password(new)
    assert viewer.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302


# --- bodies ---------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 4, 5, 500])
def test_what_is_sent_to_a_page_never_lies_in_a_temporary_folder(
    admin: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    count: int,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "nowhere")
    admin.raise_request_exception = False
    size = min(900_000, 3_600_000 // count)
    sent = {
        f"file{n or ''}": SimpleUploadedFile("rig.yaml", b"#" * size)
        for n in range(count)
    }
    assert admin.post("/rig-file/", sent).status_code in (200, 400)


@pytest.mark.django_db
def test_more_fields_than_a_form_has_are_refused(admin: Client) -> None:
    admin.raise_request_exception = False
    assert (
        admin.post("/rig-file/", {f"k{n}": "x" for n in range(5_000)}).status_code
        == 400
    )
