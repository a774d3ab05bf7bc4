"""The download page: what each role sees and may do, and what the hub's answers look like on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone
from huggingface_hub import constants

from deployments.library import downloads, folders
from deployments.models import Download, Model
from gpus.models import Device, Host
from omni.units import GIB
from tests.deployments.gguf_corpus import write_with_package
from tests.deployments.local_hub import COMMIT, LocalHub, Repo
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
REPO = "some-org/Tiny-GGUF"
POSTS = ("start/", "{pk}/pause/", "{pk}/resume/", "{pk}/cancel/", "{pk}/forget/")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    repos = {
        REPO: Repo(
            {
                "t-Q4_0.gguf": b"x" * 4000,
                "t-F16.gguf": b"x" * 9000,
                "mmproj-F16.gguf": b"y" * 100,
            }
        ),
        "some-org/Gated": Repo({"g-Q4_0.gguf": b"x"}, gated="auto"),
        "some-org/Weights": Repo({"model.safetensors": b"x"}),
        "some-org/Half": Repo({"h-Q4_0-00001-of-00002.gguf": b"x"}),
    }
    with LocalHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def row(host: Host) -> Download:
    return Download.objects.create(
        host=host,
        repo=REPO,
        revision=COMMIT,
        label="Q4_0",
        folder=str(settings.OMNI_HOME.models / REPO),
        files=[
            {"path": "t-Q4_0.gguf", "size": 4000, "sha256": "0" * 64, "blob_id": ""}
        ],
        total_bytes=4000,
    )


def page(client: Client, query: str = "", **headers: str) -> str:
    answer = client.get(f"/models/download/{query}", headers=headers)
    assert answer.status_code == 200
    return squeezed(answer.content.decode())


def triggers(answer: Any) -> dict[str, Any]:
    return json.loads(answer["HX-Trigger"])


# --- who may --------------------------------------------------------------------------------------
def test_a_viewer_sees_the_list_and_asks_for_nothing(
    row: Download, viewer: Client, hub: LocalHub
) -> None:
    text = page(viewer)
    assert "Tiny-GGUF" in text and 'name="repo"' not in text and "Pause" not in text
    assert viewer.get(f"/models/download/?repo={REPO}").status_code == 403
    assert not hub.requests


def test_only_who_manages_the_library_may_act(
    row: Download, viewer: Client, operator: Client
) -> None:
    for path in POSTS:
        for client in (viewer, operator):
            assert (
                client.post(f"/models/download/{path.format(pk=row.pk)}").status_code
                == 403
            )
    assert Download.objects.get().state == "queued"


def test_the_models_page_leads_here(admin: Client, viewer: Client, host: Host) -> None:
    assert 'href="/models/download/"' in admin.get("/models/").content.decode()
    assert 'href="/models/download/"' not in viewer.get("/models/").content.decode()


# --- looking --------------------------------------------------------------------------------------
def test_choices_with_sizes_and_what_they_fit_in(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    Device.objects.create(host=host, name="CUDA0", kind="cuda", memory_bytes=GIB + 5000)
    text = page(admin, f"?repo={hub.url}/{REPO}/tree/main", **HTMX)
    assert "<html" not in text
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    assert ["Q4_0" in rows[0], "F16" in rows[1]] == [True, True]
    assert (
        "should fit CUDA0" in rows[0]
        and "largest that should fit" in rows[0]
        and " checked" in rows[0]
    )
    assert (
        "larger than CUDA0" in rows[1]
        and "should fit CPU" in rows[1]
        and " checked" not in rows[1]
    )
    assert "RPC0" not in text
    assert "3.91 KiB" in rows[0] and "apache-2.0" in text
    assert 'value="mmproj-F16.gguf" selected' in text


def test_a_pasted_file_is_the_one_that_is_ticked(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", page(admin, f"?repo={REPO}:f16"))[1:]
    assert [" checked" in row for row in rows] == [False, True]


REFUSALS = {
    "nonsense": "is no repository",
    "some-org/Nothing": "There is no repository some-org/Nothing",
    "some-org/Weights": "No GGUF in some-org/Weights",
    "some-org/Half": "1 shard missing",
    "some-org/Gated": "make a token there and start Omni with HF_TOKEN",
}


def test_what_cannot_be_taken_says_why(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    for repo, says in REFUSALS.items():
        assert says in page(admin, f"?repo={repo}")


def test_a_hub_that_is_away_offers_another_try(
    admin: Client, host: Host, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    text = page(admin, f"?repo={REPO}")
    assert "http://127.0.0.1:9 cannot be reached" in text and "Try again</a>" in text


def test_what_does_not_fit_on_the_disk_cannot_be_ticked(
    admin: Client, host: Host, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        downloads, "free_bytes", lambda folder: downloads.RESERVE_BYTES + 5000
    )
    rows = re.findall(r"<tr>(.*?)</tr>", page(admin, f"?repo={REPO}"))[1:]
    assert ["no room on the disk" in row and " disabled" in row for row in rows] == [
        False,
        True,
    ]


def test_the_token_is_never_on_the_page(
    admin: Client, host: Host, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "start Omni with HF_TOKEN set" in page(admin)
    monkeypatch.setenv("HF_TOKEN", "secret-token-value")
    text = page(admin, f"?repo={REPO}")
    assert (
        "HF_TOKEN is set and is sent along" in text and "secret-token-value" not in text
    )


def test_going_back_shows_a_whole_page(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    answer = admin.get(
        "/models/download/", headers=HTMX | {"HX-History-Restore-Request": "true"}
    )
    assert b"<html" in answer.content and "HX-Request" in answer["Vary"]
    assert admin.get("/models/download/list/")["Location"] == "/models/download/"


# --- acting ---------------------------------------------------------------------------------------
FORM = {
    "repo": REPO,
    "revision": COMMIT,
    "choice": "t-Q4_0.gguf",
    "projector": "mmproj-F16.gguf",
}


def test_a_download_is_asked_for(admin: Client, host: Host, hub: LocalHub) -> None:
    answer = admin.post("/models/download/start/", FORM, headers=HTMX)
    assert answer.status_code == 204 and triggers(answer)["acted"] == {
        "news": ["downloads-changed"]
    }
    row = Download.objects.get()
    assert (row.state, row.label, row.total_bytes) == (
        "queued",
        "Q4_0 + projector F16",
        4100,
    )
    assert row.folder == str(settings.OMNI_HOME.models / "some-org" / "Tiny-GGUF")
    assert row.requested_by and row.requested_by.username == "ada"
    assert (
        admin.post(
            "/models/download/start/", FORM | {"choice": "t-F16.gguf"}
        ).status_code
        == 302
    )


WRONG_FORMS: list[tuple[dict[str, str], str]] = [
    ({"choice": "gone.gguf"}, "no such file any more"),
    ({"choice": "", "projector": ""}, "Nothing was chosen"),
    ({"folder": "/etc"}, "/etc is no folder of the library"),
    ({"repo": "x"}, "is no repository"),
]


def test_what_is_asked_for_wrongly_changes_nothing(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    for change, says in WRONG_FORMS:
        answer = admin.post("/models/download/start/", FORM | change, headers=HTMX)
        assert says in answer.content.decode() and answer["HX-Retarget"] == "#toasts"
    assert not Download.objects.exists()


def test_pause_resume_cancel_and_off_the_list(admin: Client, row: Download) -> None:
    for action, state in (
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
    ):
        assert (
            admin.post(f"/models/download/{row.pk}/{action}/", headers=HTMX).status_code
            == 204
        )
        assert Download.objects.get().state == state
    assert (
        b"is cancelled by now"
        in admin.post(f"/models/download/{row.pk}/pause/", headers=HTMX).content
    )
    assert admin.post(f"/models/download/{row.pk}/forget/").status_code == 302
    assert not Download.objects.exists()


BUTTONS = {
    "queued": ["Pause", "Cancel"],
    "running": ["Pause", "Cancel"],
    "paused": ["Resume", "Cancel"],
    "failed": ["Retry", "Cancel"],
    "done": ["Off the list"],
    "cancelled": ["Off the list"],
}


def test_each_state_has_its_buttons(admin: Client, row: Download) -> None:
    for state, buttons in BUTTONS.items():
        Download.objects.update(
            state=state,
            done_bytes=1000,
            rate_bps=100,
            error="It broke.",
            fix="Mend it.",
        )
        text = squeezed(
            admin.get("/models/download/list/", headers=HTMX).content.decode()
        )
        assert (
            re.findall(r"<button[^>]*>(?:<svg.*?</svg>)?([^<]+)<span", text) == buttons
        )
        assert "It broke." in text and "Mend it." in text
        assert ("100 B/s, 30 s left" in text) is (state == "running")


def test_a_finished_one_leads_to_its_model(admin: Client, row: Download) -> None:
    path = settings.OMNI_HOME.models / "t-Q4_0.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_with_package(path)
    model = folders.register(path)
    path.unlink()
    Download.objects.update(state="done", folder=str(path.parent))
    assert Model.objects.get() == model
    assert f'href="/models/{model.name}/"' in page(admin)


def test_without_an_agent_the_page_says_so(admin: Client, row: Download) -> None:
    assert "has not reported for a while" in page(admin)
    Host.objects.update(agent_seen_at=timezone.now())
    assert "has not reported for a while" not in page(admin)
