"""The library notices by itself what happens in its folders, with real files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from deployments.library import folders, watch
from deployments.library import reading as model_reading
from deployments.library.keeper import LibraryKeeper
from deployments.library.watch import LibraryWatch
from deployments.models import Deployment, Engine, LibraryFolder, Model
from deployments.planning.plan import Plan
from deployments.services.deployments import deployment_create, model_delete
from deployments.services.plans import plan_deployment
from deployments.supervision.host_agent import HostAgent
from gpus.models import Host
from tests.deployments.gguf_corpus import write_with_package

pytestmark = pytest.mark.django_db


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    for module in (folders, watch):
        monkeypatch.setattr(module, "library_changed", lambda: calls.append(1))
    return calls


def small(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_with_package(path)
    return path


def states() -> dict[str, str]:
    return dict(Model.objects.values_list("name", "state"))


def settle(watch: LibraryWatch) -> None:
    watch.check()
    watch.check()


def test_a_new_file_is_taken_up_once_it_rests(
    watch: LibraryWatch, models_folder: Path, announced: list[int]
) -> None:
    small(models_folder / "deep" / "a.gguf")
    assert not watch.check() and states() == {}
    assert watch.check() and states() == {"a": "ok"}
    assert not watch.check() and announced == [1]


def test_a_file_that_is_copied_is_shown_and_not_read_before_it_rests(
    watch: LibraryWatch,
    models_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = small(tmp_path / "whole.gguf").read_bytes()
    target = models_folder / "a.gguf"
    monkeypatch.setattr(
        model_reading, "read_header", lambda path: pytest.fail("read while it grows")
    )
    for part in (1000, 2000, 3000):
        target.write_bytes(content[:part])
        watch.check()
    model = Model.objects.get()
    assert (model.name, model.state, model.error) == (
        "a",
        "incomplete",
        "The file is still being written.",
    )
    target.write_bytes(content)
    watch.check()
    monkeypatch.undo()
    watch.check()
    model.refresh_from_db()
    assert (model.state, model.error, model.size_bytes) == ("ok", "", len(content))


def test_a_file_that_changes_is_read_anew(
    watch: LibraryWatch, models_folder: Path
) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    path.write_bytes(path.read_bytes()[:-8])
    settle(watch)
    assert states() == {"a": "broken"}


def test_a_file_that_goes_is_marked_at_once_and_one_that_returns_is_well(
    watch: LibraryWatch, models_folder: Path, announced: list[int]
) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    content = path.read_bytes()
    path.unlink()
    assert watch.check() and states() == {"a": "missing"}
    path.write_bytes(content)
    settle(watch)
    assert states() == {"a": "ok"} and len(announced) == 3


def test_a_moved_file_keeps_its_row_and_its_deployments(
    watch: LibraryWatch, models_folder: Path, engine: Engine
) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    model = Model.objects.get()
    deployment = deployment_create(
        name="uses-it",
        strategy="independent",
        engine=engine,
        members={"model": (model, ["CPU"])},
        settings={},
    )
    planned: list[str] = []

    def plan(row: Deployment) -> Plan:
        planned.append(row.bindings.get().model.path)
        return plan_deployment(row)

    agent = HostAgent(engine.host, plan=plan)
    for _ in range(2):
        assert agent.plans.of(deployment)
    new = models_folder / "elsewhere" / "b.gguf"
    new.parent.mkdir()
    path.rename(new)
    settle(watch)
    model.refresh_from_db()
    assert (model.name, model.path, model.state, model.shards) == (
        "a",
        str(new),
        "ok",
        [str(new)],
    )
    assert (
        Model.objects.count() == 1
        and Deployment.objects.get().bindings.get().model == model
    )
    moved = agent.plans.of(deployment)
    assert moved and str(new) in moved.instances[0].argv
    assert planned == [str(path), str(new)]


def test_a_file_moved_from_another_disk_arrives_slowly_and_keeps_its_row(
    watch: LibraryWatch, models_folder: Path
) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    before, content = Model.objects.get(), path.read_bytes()
    new = models_folder / "b.gguf"
    for part in (1000, 2000, len(content)):
        new.write_bytes(content[:part])
        watch.check()
    assert states() == {"a": "ok", "b": "incomplete"}
    path.unlink()
    settle(watch)
    after = Model.objects.get()
    assert (after.pk, after.path, after.state) == (before.pk, str(new), "ok")


def test_a_copy_is_a_model_of_its_own(watch: LibraryWatch, models_folder: Path) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    shutil.copy(path, models_folder / "b.gguf")
    settle(watch)
    assert states() == {"a": "ok", "b": "ok"}


def test_two_of_one_size_that_swap_names_are_told_apart(
    watch: LibraryWatch, models_folder: Path
) -> None:
    path = small(models_folder / "a.gguf")
    other = path.with_name("b.gguf")
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    other.write_bytes(content)
    settle(watch)
    kept = {m.fingerprint: m.pk for m in Model.objects.all()}
    assert len(kept) == 2
    folder = models_folder / "new"
    folder.mkdir()
    path.rename(folder / "b.gguf")
    other.rename(folder / "a.gguf")
    settle(watch)
    assert {m.fingerprint: m.pk for m in Model.objects.all()} == kept


def test_shards_that_move_and_go(watch: LibraryWatch, models_folder: Path) -> None:
    shards = write_with_package(models_folder / "big.gguf", split_tensors=2)
    settle(watch)
    pk = Model.objects.get().pk
    folder = models_folder / "new"
    folder.mkdir()
    moved = [shard.rename(folder / shard.name) for shard in shards]
    settle(watch)
    assert [(m.pk, m.state, m.path) for m in Model.objects.all()] == [
        (pk, "ok", str(moved[0]))
    ]
    content = moved[-1].read_bytes()
    moved[-1].unlink()
    assert watch.check()
    model = Model.objects.get()
    assert model.state == "incomplete" and moved[-1].name in model.error
    moved[-1].write_bytes(content)
    settle(watch)
    assert states() == {"big": "ok"}


def test_a_folder_that_is_not_mounted_for_a_while(
    watch: LibraryWatch, models_folder: Path
) -> None:
    small(models_folder / "a.gguf")
    settle(watch)
    away = models_folder.rename(models_folder.with_name("unplugged"))
    assert watch.check() and states() == {"a": "missing"}
    assert LibraryFolder.objects.get().error == "The folder is not there."
    away.rename(models_folder)
    settle(watch)
    assert states() == {"a": "ok"} and LibraryFolder.objects.get().error == ""


def test_nothing_new_means_nothing_read_and_nothing_said(
    watch: LibraryWatch,
    models_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    announced: list[int],
) -> None:
    small(models_folder / "a.gguf")
    folders.scan([models_folder])
    announced.clear()
    monkeypatch.setattr(
        model_reading, "read_header", lambda path: pytest.fail("read again")
    )
    for _ in range(3):
        assert not watch.check()
    assert announced == []


def test_a_model_that_was_removed_stays_removed_until_its_file_changes(
    watch: LibraryWatch, models_folder: Path
) -> None:
    path = small(models_folder / "a.gguf")
    settle(watch)
    model_delete(model=Model.objects.get())
    watch.check()
    assert states() == {}
    os.utime(path)
    settle(watch)
    assert states() == {"a": "ok"}


def test_the_agent_looks_every_now_and_then(
    watch: LibraryWatch,
    models_folder: Path,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(models_folder / "a.gguf")
    keeper = LibraryKeeper(host)
    keeper.tick()
    keeper.tick()
    assert states() == {}
    keeper.next_watch = 0
    keeper.tick()
    assert states() == {"a": "ok"}
