"""Whatever lies in a library folder: it is named, nothing waits for it, and the models beside it
are found."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from deployments.library import folders
from deployments.library import reading as model_reading
from deployments.library import rows as model_rows
from deployments.library import timeouts as folder_timeouts
from deployments.library import walk as folder_walk
from deployments.library.keeper import WATCH_AT_LEAST_EVERY_S, pause_s
from deployments.library.watch import LibraryWatch
from deployments.models import LibraryFolder, Model
from omni.errors import OmniError
from tests.deployments.gguf_corpus import write_with_package

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(60)]


def link_loop(folder: Path) -> None:
    (folder / "loop.gguf").symlink_to("loop-2.gguf")
    (folder / "loop-2.gguf").symlink_to("loop.gguf")


def socket_file(folder: Path) -> None:
    """Made by a short name: addresses are at most 108 bytes."""
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(folder)
            made.bind("ear.gguf")
        finally:
            os.fchdir(here)
            os.close(here)


def device(folder: Path) -> None:
    """The real one where it can be made, else a link to one."""
    try:
        os.mknod(folder / "zero.gguf", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        (folder / "zero.gguf").symlink_to("/dev/zero")


def bad_folder_name(folder: Path) -> None:
    # Renamed when it is written: the writer logs its path, and what is logged goes from process to
    # process.
    below = folder / "named-later"
    below.mkdir()
    write_with_package(below / "inside.gguf")
    below.rename(Path(os.fsdecode(os.fsencode(folder) + b"/b\xe9d")))


def deep_folders(folder: Path) -> None:
    deep = folder.joinpath(*(f"d{n}" for n in range(folder_walk.MAX_DEPTH + 2)))
    deep.mkdir(parents=True)
    write_with_package(deep / "deep.gguf")


def long_path(folder: Path) -> None:
    deep = folder.joinpath("x" * 200, "y" * 200, "z" * 200)
    deep.mkdir(parents=True)
    write_with_package(deep / "long.gguf")


def linked_folder(folder: Path) -> None:
    (folder / "self.gguf").symlink_to(folder)


# What lies there → what is said of it.
ENTRIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link loop": (link_loop, "loop.gguf: a link that leads back to itself."),
    "a link to itself": (
        lambda f: (f / "me.gguf").symlink_to("me.gguf"),
        "me.gguf: a link that leads back to itself.",
    ),
    "a link to nothing": (
        lambda f: (f / "lost.gguf").symlink_to("gone"),
        "lost.gguf: a link to a file that is not",
    ),
    "a link to its own folder": (linked_folder, "self.gguf: a link to a folder"),
    "a name that is not UTF-8": (
        lambda f: Path(os.fsdecode(os.fsencode(f) + b"/b\xffd.gguf")).write_bytes(
            b"GGUF"
        ),
        "b?d.gguf: the name is not UTF-8; rename it.",
    ),
    "a folder whose name is not UTF-8": (
        bad_folder_name,
        "b?d: the folder's name is not UTF-8; rename it.",
    ),
    "a pipe": (lambda f: os.mkfifo(f / "pipe.gguf"), "pipe.gguf: a pipe, not a file."),
    "a pipe among safetensors": (
        lambda f: os.mkfifo(f / "w.safetensors"),
        "w.safetensors: a pipe, not a file.",
    ),
    "a link to a pipe": (
        lambda f: (os.mkfifo(f / "pipe"), (f / "to.gguf").symlink_to("pipe")),
        "to.gguf: a pipe, not a file.",
    ),
    "a socket": (socket_file, "ear.gguf: a socket, not a file."),
    "a device": (device, "zero.gguf: a device, not a file."),
    "a folder named like a model": (
        lambda f: (f / "dir.gguf").mkdir(),
        "dir.gguf: a folder, not a file",
    ),
    "folders too deep": (
        deep_folders,
        f"it lies more than {folder_walk.MAX_DEPTH} folders deep.",
    ),
    "a path that is too long": (long_path, "the path is longer than 500 characters."),
}


@pytest.fixture(params=ENTRIES, ids=lambda name: name)
def entry(request: pytest.FixtureRequest, models_folder: Path) -> str:
    """The good models lie before and behind it, and below a folder of their own."""
    make, says = ENTRIES[request.param]
    for name in ("a.gguf", "zz.gguf", "below/m.gguf"):
        (models_folder / name).parent.mkdir(exist_ok=True)
        write_with_package(models_folder / name)
    make(models_folder)
    return says


def good_models() -> list[tuple[str, str]]:
    return sorted(Model.objects.values_list("name", "state"))


ALL_GOOD = [("a", "ok"), ("m", "ok"), ("zz", "ok")]


def test_a_scan_names_the_entry_and_finds_the_rest(
    models_folder: Path, entry: str
) -> None:
    report = folders.scan([models_folder])
    assert any(entry in text for text in report.skipped), report.skipped
    assert good_models() == ALL_GOOD
    assert folders.scan().skipped == report.skipped


def test_the_watch_names_the_entry_and_finds_the_rest(
    watch: LibraryWatch, entry: str
) -> None:
    watch.check()
    watch.check()
    assert any(entry in text for text in LibraryFolder.objects.get().skipped)
    assert good_models() == ALL_GOOD
    assert not watch.check() and not watch.is_unsettled


def test_the_command_and_the_page_show_the_entry(
    models_folder: Path, entry: str, capsys: pytest.CaptureFixture[str], viewer: Client
) -> None:
    call_command("scan", models_folder)
    assert entry in capsys.readouterr().out
    page = viewer.get("/models/")
    assert page.status_code == 200
    text = page.content.decode().replace("&#x27;", "'")
    assert entry in text


def test_a_model_folder_with_a_link_loop_among_its_files_is_read(
    models_folder: Path,
) -> None:
    from tests.deployments.model_folders import write_folder

    folder = write_folder(models_folder / "tiny")
    (folder / "extra.json").symlink_to("extra.json")
    os.mkfifo(folder / "notes.txt")
    (model,) = folders.scan([models_folder]).models
    assert (model.name, model.state) == ("tiny", "ok")
    assert not [path for path in model.shards if "extra" in path or "notes" in path]


@pytest.mark.parametrize("name", ["pipe.gguf", "config.json"])
def test_a_pipe_that_takes_a_models_place_is_not_waited_for(
    watch: LibraryWatch, models_folder: Path, name: str
) -> None:
    path = models_folder / name
    write_with_package(path)
    watch.check()
    watch.check()
    path.unlink()
    os.mkfifo(path)
    watch.check()
    folders.scan()
    assert "ok" not in Model.objects.values_list("state", flat=True)
    with pytest.raises(OmniError, match="no file or folder"):
        folders.scan([path])


def test_a_file_that_vanishes_during_the_look_is_passed_over(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_with_package(models_folder / name)
    real = model_reading.read_header

    def read(path: Path) -> object:
        (models_folder / "b.gguf").unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(model_reading, "read_header", read)
    folders.scan([models_folder])
    assert [state for _, state in good_models()] == ["ok", "missing"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        RecursionError(),
        MemoryError(),
        OSError(5, "I/O"),
        KeyError("x"),
    ],
)
def test_a_file_that_breaks_its_reader_has_a_row_that_says_so(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("a.gguf", "b.gguf", "c.gguf"):
        write_with_package(models_folder / name)
    real = model_reading.read_header

    def read(path: Path) -> object:
        if path.name == "b.gguf":
            raise error
        return real(path)

    monkeypatch.setattr(model_reading, "read_header", read)
    folders.scan([models_folder])
    assert good_models() == [("a", "ok"), ("b", "broken"), ("c", "ok")]
    assert type(error).__name__ in Model.objects.get(name="b").error


# --- what never answers ---------------------------------------------------------------------------
@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What holds a reader up until it is set."""
    held = threading.Event()
    monkeypatch.setattr(folder_timeouts, "_hanging", {})
    yield held
    held.set()


def test_a_file_that_blocks_is_left_and_not_opened_again(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch, stuck: threading.Event
) -> None:
    for name in ("a.gguf", "b.gguf", "c.gguf"):
        write_with_package(models_folder / name)
    opened: list[str] = []
    real = model_reading.read_header

    def read(path: Path) -> object:
        opened.append(path.name)
        if path.name == "b.gguf":
            stuck.wait(30)
        return real(path)

    monkeypatch.setattr(model_reading, "read_header", read)
    monkeypatch.setattr(model_rows, "FILE_TIMEOUT_S", 0.2)
    folders.scan([models_folder])
    assert good_models() == [("a", "ok"), ("b", "broken"), ("c", "ok")]
    assert "gives no answer" in Model.objects.get(name="b").error
    folders.scan()
    assert opened.count("b.gguf") == 1


def test_a_folder_that_blocks_holds_up_no_other(
    models_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stuck: threading.Event,
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_with_package(other / "a.gguf")
    for path in (models_folder, other):
        LibraryFolder.objects.create(path=str(path))
    real = folders.model_paths

    def paths(root: Path, *rest: object) -> Iterator[tuple[Path, Path]]:
        if root == models_folder:
            stuck.wait(30)
        yield from real(root, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "model_paths", paths)
    monkeypatch.setattr(folders, "FOLDER_TIMEOUT_S", 0.2)
    report = folders.scan()
    assert [model.name for model in report.models] == ["a"]
    assert "gives no answer" in LibraryFolder.objects.get(path=str(models_folder)).error


def test_very_many_entries_are_looked_at_up_to_a_limit(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_walk, "MAX_ENTRIES", 20)
    for number in range(30):
        (models_folder / f"n{number:02}.txt").touch()
    skipped = folder_walk.Skipped()
    (listing,) = folder_walk.walk(models_folder, skipped)
    assert len(listing.names) == 20 and "more than 20 files" in skipped.texts[0]


def test_of_very_many_that_are_passed_over_the_first_are_named(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_walk, "MAX_SKIPPED", 3)
    for number in range(5):
        (models_folder / f"{number}.gguf").symlink_to("nothing")
    assert folders.scan([models_folder]).skipped[3:] == ["and 2 more."]


@pytest.mark.parametrize(
    ("took_s", "is_unsettled", "pause"),
    [
        (0.0, False, 10.0),
        (0.1, False, 10.0),
        (0.1, True, 4.0),
        (2.0, False, 40.0),
        (2.0, True, 40.0),
        (90.0, False, WATCH_AT_LEAST_EVERY_S),
        (3600.0, True, WATCH_AT_LEAST_EVERY_S),
    ],
)
def test_the_next_look_is_never_far(
    took_s: float, is_unsettled: bool, pause: float
) -> None:
    assert pause_s(took_s, is_unsettled) == pause


# --- folders that are named -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "/tmp/\udcff",
        "~nobody-of-this-name/models",
        "/" + "x" * 300,
        "/" + "y/" * 300,
        "\n",
    ],
)
def test_a_folder_that_cannot_be_is_refused(path: str) -> None:
    with pytest.raises(OmniError) as refused:
        folders.folder_add(path)
    assert refused.value.code == "bad_folder"
    str(refused.value).encode()


def test_a_folder_that_is_a_link_loop_is_refused_and_one_that_becomes_one_is_said_so(
    watch: LibraryWatch, models_folder: Path
) -> None:
    loop = models_folder / "loop"
    loop.symlink_to("loop")
    with pytest.raises(OmniError, match="There is no"):
        folders.folder_add(str(loop))
    with pytest.raises(OmniError, match="no file or folder"):
        folders.scan([loop])
    LibraryFolder.objects.create(path=str(loop))
    watch.check()
    assert LibraryFolder.objects.get(path=str(loop)).error == "The folder is not there."


def test_the_whole_machine_is_no_library() -> None:
    with pytest.raises(OmniError, match="not a place for models"):
        folders.scan([Path("/")])
