"""Downloads with the real client from a real server on this machine: whole, broken off, gated,
wrong, too large."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError
from huggingface_hub import constants

from deployments.library import downloads, fetching, hub, hub_bytes, hub_files
from deployments.library.fetching import Fetching, part_path
from deployments.library.keeper import LibraryKeeper
from deployments.models import Download, LibraryFolder, Model
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.gguf_corpus import write_with_package
from tests.deployments.local_hub import COMMIT, LocalHub, Repo
from tests.helpers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
REPO = "some-org/Tiny-GGUF"
PAYLOAD_BYTES = 600_000


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that the library reads, with a tail that makes it worth interrupting."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_with_package(path)
    return path.read_bytes() + os.urandom(PAYLOAD_BYTES)


@pytest.fixture
def local_hub(gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    repos = {
        REPO: Repo(
            {
                "tiny-Q4_K_M.gguf": gguf,
                "tiny-Q8_0.gguf": gguf + b"more",
                "README.md": b"# Tiny",
            }
        ),
        "some-org/Gated": Repo({"g-Q4_0.gguf": gguf}, gated="manual"),
        "some-org/Wrong": Repo(
            {"w-Q4_0.gguf": gguf}, listed_sha256={"w-Q4_0.gguf": "0" * 64}
        ),
    }
    with LocalHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(fetching, "FIRST_WAIT_S", 0.01)
        monkeypatch.setattr(fetching, "TICK_S", 0.02)
        yield running


@pytest.fixture
def host() -> Iterator[Host]:
    folder = settings.OMNI_HOME.models
    folder.mkdir(parents=True, exist_ok=True)
    LibraryFolder.objects.create(path=str(folder))
    yield Host.objects.get_or_create(name=settings.OMNI_HOST_NAME)[0]
    shutil.rmtree(folder)


Ask = Callable[..., Download]


@pytest.fixture
def ask(local_hub: LocalHub, host: Host) -> Ask:
    def ask(repo: str = REPO, label: str = "") -> Download:
        info = hub.repo_info(repo)
        found = hub_files.choices(info.files)
        picked = [c for c in found if c.label == label] or found[:1]
        return downloads.download_request(host=host, info=info, picked=picked)

    return ask


def fresh(row: Download) -> Download:
    return Download.objects.get(pk=row.pk)


def path_of(row: Download) -> Path:
    return Path(row.folder) / row.files[0]["path"]


# --- asking ---------------------------------------------------------------------------------------
def test_a_repository_is_listed_with_sizes_checksums_and_licence(
    local_hub: LocalHub, gguf: bytes
) -> None:
    info = hub.repo_info(REPO)
    assert (info.repo, info.revision, info.licence, info.gated) == (
        REPO,
        COMMIT,
        "apache-2.0",
        "",
    )
    sizes = {
        file.path: (file.size, len(file.sha256), len(file.blob_id))
        for file in info.files
    }
    assert sizes["tiny-Q4_K_M.gguf"] == (len(gguf), 64, 0)
    assert sizes["README.md"] == (6, 0, 40)


@pytest.mark.parametrize(
    ("repo", "revision", "code", "says"),
    [
        ("some-org/Nothing", "", "hub_not_found", "A private one needs HF_TOKEN"),
        (REPO, "v9", "hub_not_found", "no revision v9"),
        ("not a repo", "", "bad_repo", "Write owner/name"),
    ],
)
def test_what_cannot_be_had_is_said_with_a_way_out(
    local_hub: LocalHub, repo: str, revision: str, code: str, says: str
) -> None:
    with pytest.raises(OmniError) as refused:
        hub.repo_info(repo, revision)
    assert refused.value.code == code and says in str(refused.value)


def test_a_hub_that_is_away_busy_or_not_to_be_asked(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    for status in (503, 429, 401):
        local_hub.status = status
        with pytest.raises(OmniError) as refused:
            hub.repo_info(REPO)
        codes.append(refused.value.code)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OmniError, match="cannot be reached") as refused:
        hub.repo_info(REPO)
    assert refused.value.retry
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OmniError, match="HF_HUB_OFFLINE is set"):
        hub.repo_info(REPO)
    assert codes[:2] == ["hub_busy", "hub_busy"]


def test_a_mirror_that_lists_no_sizes_is_not_trusted_with_a_download(
    local_hub: LocalHub,
) -> None:
    local_hub.repos[REPO].has_sizes = False
    with pytest.raises(OmniError, match="does not say how large its files are"):
        hub.repo_info(REPO)


def test_a_moment_without_the_database_stops_nothing(
    ask: Ask, gguf: bytes, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ask()
    real, refused = Fetching._rows, []

    def rows(self: Fetching, *states: str) -> Any:
        if states == (Download.State.RUNNING,) and not refused:
            refused.append(1)
            raise DatabaseError("database is locked")
        return real(self, *states)

    monkeypatch.setattr(Fetching, "_rows", rows)
    Fetching(row).run()
    assert refused and fresh(row).state == "done" and path_of(row).read_bytes() == gguf


# --- fetching -------------------------------------------------------------------------------------
def test_a_download_lands_in_the_library(
    ask: Ask, gguf: bytes, local_hub: LocalHub
) -> None:
    row = ask()
    Fetching(row).run()
    row = fresh(row)
    assert (row.state, row.error, row.done_bytes) == ("done", "", len(gguf))
    assert (
        path_of(row)
        == settings.OMNI_HOME.models / "some-org" / "Tiny-GGUF" / "tiny-Q4_K_M.gguf"
    )
    assert path_of(row).read_bytes() == gguf
    model = Model.objects.get(path=str(path_of(row)))
    assert (model.state, model.name) == ("ok", "tiny-q4_k_m")
    assert [path.name for path in path_of(row).parent.iterdir()] == ["tiny-Q4_K_M.gguf"]
    assert local_hub.ranges_asked() == [""]


def test_several_files_and_one_that_git_keeps_itself_are_checked_too(
    host: Host, local_hub: LocalHub
) -> None:
    files = {"README.md": b"# Tiny", "sub/config.json": b"{}"}
    local_hub.repos["some-org/Plain"] = Repo(files)
    info = hub.repo_info("some-org/Plain")
    row = Download.objects.create(
        host=host,
        repo=info.repo,
        revision=info.revision,
        label="x",
        folder=str(settings.OMNI_HOME.models / "p"),
        files=[file.as_dict() for file in info.files],
        total_bytes=8,
    )
    Fetching(row).run()
    assert fresh(row).state == "done"
    assert {path: Path(row.folder, path).read_bytes() for path in files} == files


def test_a_connection_that_is_cut_goes_on_where_it_stopped(
    ask: Ask, gguf: bytes, local_hub: LocalHub
) -> None:
    local_hub.cut_after, local_hub.cuts = 100_000, 3
    row = ask()
    Fetching(row).run()
    assert fresh(row).state == "done" and path_of(row).read_bytes() == gguf
    starts = [
        int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        for asked in local_hub.ranges_asked()
    ]
    assert starts == sorted(set(starts)) and len(starts) == 4
    assert local_hub.sent_bytes == len(gguf)


def test_a_server_without_ranges_begins_anew(
    ask: Ask, gguf: bytes, local_hub: LocalHub
) -> None:
    local_hub.cut_after, local_hub.cuts, local_hub.ranges = 100_000, 1, False
    row = ask()
    Fetching(row).run()
    assert fresh(row).state == "done" and path_of(row).read_bytes() == gguf


def test_a_hub_that_stays_away_fails_and_keeps_what_is_there(
    ask: Ask, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_TRIES", 2)
    local_hub.cut_after, local_hub.cuts = 100_000, 1
    row = ask()
    monkeypatch.setattr(
        hub_bytes,
        "opened",
        _once(hub_bytes.opened, lambda: setattr(local_hub, "status", 503)),
    )
    Fetching(row).run()
    row = fresh(row)
    assert (row.state, row.error_code) == ("failed", "hub_busy")
    assert row.done_bytes == 100_000 and row.fix
    local_hub.status = 0
    downloads.download_resume(download=row)
    Fetching(fresh(row)).run()
    assert fresh(row).state == "done" and local_hub.sent_bytes == row.total_bytes


def _once(function: Any, afterwards: Callable[[], None]) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def wrapped(*args: Any) -> Iterator[Any]:
        try:
            with function(*args) as stream:
                yield stream
        finally:
            afterwards()

    return wrapped


def test_pause_and_resume_fetch_no_byte_twice(
    ask: Ask, host: Host, gguf: bytes, local_hub: LocalHub
) -> None:
    local_hub.rate_bps = 400_000
    row = ask()
    keeper = LibraryKeeper(host)
    keeper.tend_downloads()
    wait_until(lambda: fresh(row).done_bytes > 60_000, 5, "nothing comes")
    assert fresh(row).rate_bps > 0
    downloads.download_pause(download=row)
    wait_until(
        lambda: not any(thread.is_alive() for thread, _ in keeper.threads.values()), 5
    )
    part = part_path(Path(row.folder), Fetching(row).files[0])
    had = part.stat().st_size
    assert (fresh(row).state, fresh(row).done_bytes, had) == ("paused", had, had)
    assert not Model.objects.exists()
    keeper.tend_downloads()
    assert not keeper.threads
    local_hub.rate_bps = 0
    downloads.download_resume(download=row)
    keeper.tend_downloads()
    wait_until(lambda: fresh(row).state == "done", 5)
    assert path_of(row).read_bytes() == gguf
    assert local_hub.ranges_asked() == ["", f"bytes={had}-"]


def test_a_restarted_agent_goes_on(
    ask: Ask, host: Host, gguf: bytes, local_hub: LocalHub
) -> None:
    local_hub.rate_bps = 400_000
    row = ask()
    first = LibraryKeeper(host)
    first.tend_downloads()
    wait_until(lambda: fresh(row).done_bytes > 60_000, 5)
    first.end()
    assert fresh(row).state == "running"
    local_hub.rate_bps = 0
    second = LibraryKeeper(host)
    second.tend_downloads()
    wait_until(lambda: fresh(row).state == "done", 5)
    assert path_of(row).read_bytes() == gguf
    assert len(local_hub.ranges_asked()) == 2 and local_hub.ranges_asked()[1] != ""


def test_cancelling_removes_what_came(
    ask: Ask, host: Host, local_hub: LocalHub
) -> None:
    local_hub.rate_bps = 400_000
    row = ask()
    keeper = LibraryKeeper(host)
    keeper.tend_downloads()
    wait_until(lambda: fresh(row).done_bytes > 0, 5)
    downloads.download_cancel(download=row)
    wait_until(lambda: keeper.tend_downloads() or fresh(row).is_swept, 5)
    assert (fresh(row).state, fresh(row).done_bytes) == ("cancelled", 0)
    assert list(settings.OMNI_HOME.models.iterdir()) == []
    with pytest.raises(OmniError, match="is cancelled by now"):
        downloads.download_resume(download=row)


def test_downloads_of_one_repository_take_turns(
    ask: Ask, host: Host, local_hub: LocalHub
) -> None:
    first, second = ask(label="Q4_K_M"), ask(label="Q8_0")
    keeper = LibraryKeeper(host)
    keeper.tend_downloads()
    assert list(keeper.threads) == [first.pk]
    wait_until(lambda: keeper.tend_downloads() or fresh(second).state == "done", 5)
    assert Model.objects.count() == 2


# --- what must not be taken -----------------------------------------------------------------------
def test_a_wrong_checksum_is_an_error_and_nothing_is_registered(ask: Ask) -> None:
    row = ask("some-org/Wrong")
    Fetching(row).run()
    row = fresh(row)
    assert (row.state, row.error_code) == ("failed", "bad_checksum")
    assert "w-Q4_0.gguf" in row.error and row.fix
    assert not Model.objects.exists() and list(Path(row.folder).iterdir()) == []


def test_a_gated_repository_says_how_to_get_in(
    ask: Ask, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.repo_info("some-org/Gated").gated == "manual"
    row = ask("some-org/Gated")
    Fetching(row).run()
    row = fresh(row)
    assert (row.state, row.error_code) == ("failed", "hub_gated")
    assert (
        "start Omni with HF_TOKEN" in row.fix
        and f"{local_hub.url}/some-org/Gated" in row.fix
    )
    monkeypatch.setenv("HF_TOKEN", "somebody-else")
    Fetching(row).run()
    downloads.download_resume(download=row)
    Fetching(fresh(row)).run()
    assert "with the account that HF_TOKEN belongs to" in fresh(row).fix
    monkeypatch.setenv("HF_TOKEN", local_hub.token)
    downloads.download_resume(download=row)
    Fetching(fresh(row)).run()
    assert fresh(row).state == "done"


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    ask: Ask, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", local_hub.token)
    local_hub.cdn = local_hub.url.replace("127.0.0.1", "localhost")
    row = ask("some-org/Gated")
    Fetching(row).run()
    assert fresh(row).state == "done"
    tokens = {
        request.path.split("/")[1]: request.token for request in local_hub.requests
    }
    assert tokens == {"api": local_hub.token, "some-org": local_hub.token, "blobs": ""}


def test_another_file_in_its_place_is_not_overwritten(ask: Ask, gguf: bytes) -> None:
    row = ask()
    path_of(row).parent.mkdir(parents=True)
    path_of(row).write_bytes(b"mine")
    Fetching(row).run()
    assert (
        fresh(row).error_code == "file_exists" and path_of(row).read_bytes() == b"mine"
    )
    path_of(row).write_bytes(gguf)
    downloads.download_resume(download=fresh(row))
    Fetching(fresh(row)).run()
    assert fresh(row).state == "done"


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    ask: Ask, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        downloads, "free_bytes", lambda folder: downloads.RESERVE_BYTES + 1000
    )
    with pytest.raises(OmniError, match="are still to come, and .* are free"):
        ask()
    assert not Download.objects.exists() and not local_hub.file_requests()


def test_a_disk_that_fills_up_stops_it_and_loses_nothing(
    ask: Ask, gguf: bytes, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ask()
    real = downloads.free_bytes
    monkeypatch.setattr(
        downloads,
        "free_bytes",
        lambda folder: (
            downloads.RESERVE_BYTES - 1 if local_hub.sent_bytes else real(folder)
        ),
    )
    local_hub.rate_bps = 2_000_000
    Fetching(row).run()
    row = fresh(row)
    assert (row.state, row.error_code) == ("failed", "disk_full")
    assert 0 < row.done_bytes < row.total_bytes
    monkeypatch.setattr(downloads, "free_bytes", real)
    downloads.download_resume(download=row)
    Fetching(fresh(row)).run()
    assert fresh(row).state == "done" and path_of(row).read_bytes() == gguf
    assert local_hub.ranges_asked()[-1] == f"bytes={row.done_bytes}-"


def test_the_same_thing_is_not_downloaded_twice_at_a_time(ask: Ask) -> None:
    row = ask()
    with pytest.raises(OmniError, match="is being downloaded already"):
        ask()
    with pytest.raises(OmniError, match="is not over"):
        downloads.download_forget(download=row)
    downloads.download_cancel(download=row)
    ask()
    downloads.download_forget(download=fresh(row))
    assert Download.objects.count() == 1


def test_names_that_lead_out_of_the_folder_are_no_choice(
    host: Host, local_hub: LocalHub, gguf: bytes
) -> None:
    local_hub.repos["some-org/Evil"] = Repo(
        {"../../evil-Q4_0.gguf": gguf, "ok-Q4_0.gguf": gguf}
    )
    found = hub_files.choices(hub.repo_info("some-org/Evil").files)
    assert [choice.key for choice in found] == ["ok-Q4_0.gguf"]


def test_no_more_than_two_messages_a_second_per_download(
    ask: Ask, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TICK_S", 0.5)
    sent: list[dict[str, Any]] = []
    lock = threading.Lock()

    def publish(group: str, message: dict[str, Any]) -> None:
        with lock:
            sent.append(message)

    monkeypatch.setattr(fetching, "publish", publish)
    local_hub.rate_bps = 1_200_000
    row = ask()
    began = time.monotonic()
    Fetching(row).run()
    took_s = time.monotonic() - began
    assert fresh(row).state == "done"
    progress = [message for message in sent if message["type"] == "download.progress"]
    # The first and the last one come besides.
    assert (
        2 <= len(progress) <= took_s * 2 + 2
        and progress[-1]["done_bytes"] == row.total_bytes
    )
