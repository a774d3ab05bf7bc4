"""The page of the rig file: who may see and change what, and that nothing typed is lost."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import yaml
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from deployments.models import Deployment, Engine, Model
from deployments.rig.apply import apply
from deployments.rig.export import rig_text
from deployments.rig.lines import ShownLine, diff_lines, excerpt
from deployments.rig.schema import rig_schema
from deployments.rig.words import Problem
from tests.deployments.test_apply import WHOLE, everything
from tests.helpers import squeezed

PAGE = "/rig-file/"


def shown(response: object) -> str:
    return html.unescape(response.content.decode())  # type: ignore[attr-defined]


def typed(page: str) -> str:
    """What stands in the text area."""
    return (
        page.partition("<textarea")[2].partition(">\n")[2].partition("</textarea>")[0]
    )


def digest(page: str) -> str:
    found = re.search(r'name="agreed" value="([0-9a-f]{64})"', page)
    assert found, "there is no Apply button"
    return found[1]


def test_what_there_is_is_shown_and_can_be_downloaded_by_everybody(
    host: object, viewer: Client
) -> None:
    apply(WHOLE)
    page = viewer.get(PAGE)
    assert rig_text() in shown(page) and "<textarea" not in shown(page)
    download = viewer.get(PAGE + "rig.yaml")
    assert download.content.decode() == rig_text()
    assert (
        "attachment" in download["Content-Disposition"]
        and "testhost-rig.yaml" in download["Content-Disposition"]
    )
    assert viewer.get(PAGE + "schema.json").json() == rig_schema()
    assert PAGE in shown(viewer.get("/deployments/"))


def test_a_viewer_may_not_preview_or_apply(host: object, viewer: Client) -> None:
    assert viewer.post(PAGE, {"text": WHOLE}).status_code == 403
    assert viewer.post(PAGE, {"text": WHOLE, "agreed": "x"}).status_code == 403


def test_a_preview_changes_nothing_and_apply_does_what_it_showed(
    host: object, admin: Client
) -> None:
    before = everything()
    page = shown(admin.post(PAGE, {"text": WHOLE.replace("\n", "\r\n"), "start": "on"}))
    assert everything() == before
    for said in (
        "makes 5 changes",
        "deployment helper added",
        "deployment helper started",
        "<ins>+deployments:</ins>",
    ):
        assert said in squeezed(page)
    assert typed(page) == WHOLE
    done = admin.post(
        PAGE, {"text": WHOLE, "start": "on", "agreed": digest(page)}, follow=True
    )
    assert (
        "Applied: engine mine added; model small added; deployment helper added"
        in shown(done)
    )
    assert Deployment.objects.get().desired == "running"
    assert Deployment.objects.get().created_by == User.objects.get(username="ada")


def test_apply_of_another_text_than_was_previewed_shows_what_that_would_change(
    host: object, admin: Client
) -> None:
    agreed = digest(shown(admin.post(PAGE, {"text": WHOLE})))
    before = everything()
    other = WHOLE.replace("2048", "4096")
    page = shown(admin.post(PAGE, {"text": other, "agreed": agreed}))
    assert everything() == before
    assert "another than when the changes were shown" in page and typed(page) == other
    assert digest(page) != agreed


def test_mistakes_are_shown_at_their_lines_and_the_text_stays(
    host: object, admin: Client
) -> None:
    bad = WHOLE.replace("{model: small}", "{model: <b>smal}").replace(
        "[RPC1]", "[RPC9]"
    )
    response = admin.post(PAGE, {"text": bad})
    page = shown(response)
    assert "2 mistakes; nothing was changed" in page
    assert 'data-go-line="8"' in page and 'data-go-line="9"' in page
    assert (
        "There is no model '<b>smal'." in page
        and "<b>smal" not in response.content.decode()
    )
    assert typed(page) == bad
    assert 'data-go-line="7"' not in page


def test_a_chosen_file_takes_the_place_of_the_text(host: object, admin: Client) -> None:
    file = SimpleUploadedFile("rig.yaml", WHOLE.encode())
    assert typed(shown(admin.post(PAGE, {"text": "old", "file": file}))) == WHOLE


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"#" * 4_000_001])
def test_a_file_that_cannot_be_read_is_said_and_the_text_stays(
    host: object, admin: Client, content: bytes
) -> None:
    page = shown(
        admin.post(
            PAGE, {"text": WHOLE, "file": SimpleUploadedFile("rig.yaml", content)}
        )
    )
    assert "rig.yaml is" in page and "Choose another file." in page
    assert typed(page) == WHOLE


# --- rights ---------------------------------------------------------------------------------------
def test_an_operator_may_change_deployments_of_what_is_known(
    host: object, operator: Client
) -> None:
    apply(WHOLE)
    edited = rig_text().replace("2048", "4096")
    page = shown(operator.post(PAGE, {"text": edited}))
    operator.post(PAGE, {"text": edited, "agreed": digest(page)})
    assert Deployment.objects.get().settings["context"] == 4096


def test_an_operator_may_not_name_programs_files_or_routes_and_none_is_touched(
    host: object, operator: Client, tmp_path: Path
) -> None:
    trace = tmp_path / "was-run"
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    text = WHOLE.replace(
        "path: " + WHOLE.split("path: ")[1].split("}")[0], f"path: {program}", 1
    )
    page = shown(operator.post(PAGE, {"text": text}))
    for said in (
        "Only an administrator may add or change the engine mine.",
        "You may not add or change the model small of the library.",
        "Only an administrator may add or change the route fast.",
    ):
        assert said in page
    assert (
        not trace.exists()
        and not Engine.objects.exists()
        and not Model.objects.exists()
    )


def test_a_right_that_was_given_counts(
    host: object, operator: Client, operator_user: User
) -> None:
    names = ("add_engine", "manage_library", "add_route")
    operator_user.user_permissions.add(*Permission.objects.filter(codename__in=names))
    said = shown(operator.post(PAGE, {"text": WHOLE}))
    assert "Only an administrator may add or change the engine mine." in said, (
        "an engine is a program"
    )
    assert "You may not" not in said


# --- what is shown --------------------------------------------------------------------------------
def test_an_excerpt_has_the_lines_around_each_mistake() -> None:
    text = "".join(f"line {n}\n" for n in range(1, 21))
    lines = excerpt(
        text,
        [
            Problem(1, "one"),
            Problem(10, "ten"),
            Problem(10, "ten too"),
            Problem(25, "past"),
        ],
    )
    assert [line.number for line in lines] == [1, 2, 3, 8, 9, 10, 11, 12, 25]
    assert [line.number for line in lines if line.follows_gap] == [8, 25]
    assert lines[5] == ShownLine(10, "line 10", ("ten", "ten too"))
    assert (lines[-1].text, lines[-1].problems) == ("", ("past",))


def test_a_diff_is_told_apart_line_by_line() -> None:
    diff = "--- rig now\n+++ rig after\n@@ -1 +1 @@\n-a\n+b\n c\n"
    assert diff_lines(diff) == [
        ("place", "@@ -1 +1 @@"),
        ("removed", "-a"),
        ("added", "+b"),
        ("same", " c"),
    ]
    assert diff_lines("") == []


def test_the_download_is_yaml_that_lists_what_there_is(
    host: object, admin: Client
) -> None:
    apply(WHOLE)
    assert list(yaml.safe_load(admin.get(PAGE + "rig.yaml").content)) == [
        "engines",
        "models",
        "deployments",
        "routes",
    ]
