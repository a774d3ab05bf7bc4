"""Folders with safetensors in the library: found, watched, shown, deployed on what loads them and
on nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from deployments.engines.vllm import Vllm
from deployments.library import folders
from deployments.library import reading as model_reading
from deployments.library.watch import LibraryWatch
from deployments.models import Deployment, Engine, Model
from deployments.planning.settings import SETTINGS
from deployments.services import one_click
from deployments.services.deployments import deployment_create
from deployments.services.plans import plan_deployment
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.engine_help import help_of
from tests.deployments.gguf_corpus import write_with_package
from tests.deployments.model_folders import write_folder

pytestmark = pytest.mark.django_db


@pytest.fixture
def vllm(host: Host) -> Engine:
    """As vLLM for the CPU describes itself."""
    flags = sorted(Vllm().parse_flags(help_of("vllm_0_32_cpu_flags")))
    return Engine.objects.create(
        host=host,
        name="vllm",
        flavour="vllm",
        path="/opt/vllm/bin/vllm",
        build="0.32.0+cpu",
        flags=flags,
    )


@pytest.fixture
def tiny(models_folder: Path) -> Model:
    (found,) = folders.scan([write_folder(models_folder / "Tiny-0.5B")]).models
    return found


def states() -> dict[str, str]:
    return dict(Model.objects.values_list("name", "state"))


def settle(watch: LibraryWatch) -> None:
    watch.check()
    watch.check()


# --- scan -----------------------------------------------------------------------------------------
def test_a_folder_is_one_model_beside_files(models_folder: Path) -> None:
    folder = write_folder(models_folder / "org" / "Tiny-0.5B", shards=2)
    write_folder(models_folder / ".cache" / "hidden")
    (models_folder / "notes").mkdir()
    (models_folder / "notes" / "config.json").write_text("{}")
    write_with_package(folder / "also.gguf")
    report = folders.scan([models_folder])
    assert {(m.name, m.format, m.state) for m in report.models} == {
        ("tiny-0-5b", "folder", "ok"), ("also", "gguf", "ok"),
    }  # fmt: skip
    model = Model.objects.get(format="folder")
    assert (model.path, model.arch, model.quant, model.n_layer) == (
        str(folder),
        "llama",
        "BF16",
        2,
    )
    assert model.size_bytes == sum(
        path.stat().st_size for path in folder.glob("*.safetensors")
    )
    assert str(
        folder / "model-00001-of-00002.safetensors"
    ) in model.shards and "also.gguf" not in str(model.shards)


@pytest.mark.parametrize("named", ["", "config.json", "model.safetensors"])
def test_the_folder_or_a_file_of_it_may_be_named(
    models_folder: Path, named: str
) -> None:
    folder = write_folder(models_folder / "tiny")
    (found,) = folders.scan([folder / named]).models
    assert (found.path, found.format, found.state) == (str(folder), "folder", "ok")


def test_a_link_out_of_the_library_is_not_followed(
    models_folder: Path, tmp_path: Path
) -> None:
    folder, outside = (
        write_folder(models_folder / "tiny"),
        tmp_path / "elsewhere.safetensors",
    )
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    report = folders.scan([models_folder])
    assert (
        not report.models and "link to a file outside the library" in report.skipped[0]
    )


@pytest.mark.parametrize(
    ("file", "content", "state", "says"),
    [
        ("config.json", b"{", "broken", "config.json: it is not valid JSON"),
        (
            "config.json",
            b'{"num_hidden_layers": "two"}',
            "broken",
            "num_hidden_layers is 'two'",
        ),
        (
            "model-00002-of-00002.safetensors",
            None,
            "incomplete",
            "1 of 2 shards are missing",
        ),
        (
            "model-00002-of-00002.safetensors",
            b"short",
            "broken",
            "model-00002-of-00002.safetensors: it has 5 bytes",
        ),
        ("model.safetensors.index.json", b"{}", "broken", "has no weight_map"),
    ],
)
def test_a_broken_folder_is_shown_with_the_cause(
    models_folder: Path,
    operator: Client,
    file: str,
    content: bytes | None,
    state: str,
    says: str,
) -> None:
    path = write_folder(models_folder / "tiny", shards=2) / file
    path.unlink() if content is None else path.write_bytes(content)
    (model,) = folders.scan([models_folder]).models
    assert model.state == state and says in model.error
    for address in ("/models/", "/models/tiny/"):
        page = operator.get(address)
        assert (
            page.status_code == 200
            and model.error.split("'")[0].strip() in page.content.decode()
        )
    write_folder(models_folder / "tiny", shards=2)
    assert [m.state for m in folders.scan([models_folder]).models] == ["ok"]


# --- watch ----------------------------------------------------------------------------------------
def test_a_folder_that_is_copied_is_taken_up_once_all_of_it_rests(
    watch: LibraryWatch, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(models_folder / "tiny")
    watch.check()
    assert states() == {}
    monkeypatch.setattr(
        model_reading, "read_folder", lambda path: pytest.fail("read while it grows")
    )
    for size in (1000, 2000):
        os.truncate(folder / "model.safetensors", size)
        watch.check()
    assert (
        states() == {"tiny": "incomplete"}
        and "still being written" in Model.objects.get().error
    )
    monkeypatch.undo()
    write_folder(folder)
    settle(watch)
    assert states() == {"tiny": "ok"}
    assert not watch.check()


def test_a_changed_config_is_read_anew(
    watch: LibraryWatch, models_folder: Path
) -> None:
    folder = write_folder(models_folder / "tiny")
    settle(watch)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": 4096})
    )
    settle(watch)
    assert Model.objects.get().n_ctx_train == 4096


def test_a_moved_folder_keeps_its_row_and_its_deployments(
    watch: LibraryWatch, models_folder: Path, vllm: Engine
) -> None:
    folder = write_folder(models_folder / "tiny")
    settle(watch)
    model = Model.objects.get()
    deployment_create(
        name="uses-it",
        strategy="independent",
        engine=vllm,
        members={"model": (model, ["CPU"])},
        settings={},
    )
    folder.rename(models_folder / "renamed")
    settle(watch)
    model.refresh_from_db()
    assert (model.path, model.state) == (str(models_folder / "renamed"), "ok")
    assert Model.objects.count() == 1
    assert plan_deployment(Deployment.objects.get()).instances[0].argv[2] == model.path


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lose_shard(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()


@pytest.mark.parametrize(
    ("lose", "state", "says"),
    [
        (shutil.rmtree, "missing", "There is no folder"),
        (lose_config, "incomplete", "config.json: it is missing"),
        (lose_shard, "incomplete", "1 of 2 shards are missing"),
    ],
)
@pytest.mark.parametrize("by", ["watch", "scan"])
def test_what_goes_is_noticed_and_what_returns_is_well(
    watch: LibraryWatch, models_folder: Path, lose: Any, state: str, says: str, by: str
) -> None:
    folder = write_folder(models_folder / "tiny", shards=2)
    settle(watch)
    lose(folder)
    watch.check() if by == "watch" else folders.scan()
    assert states() == {"tiny": state} and says in Model.objects.get().error
    write_folder(folder, shards=2)
    settle(watch) if by == "watch" else folders.scan()
    assert states() == {"tiny": "ok"}


# --- pages ----------------------------------------------------------------------------------------
def test_the_model_page_shows_its_facts_and_no_advice_on_gguf_files(
    operator: Client, tiny: Model
) -> None:
    text = operator.get(f"/models/{tiny.name}/").content.decode()
    for word in (
        "Folder with safetensors",
        "LlamaForCausalLM",
        "groups of heads share",
        "BF16",
        "512 tokens",
    ):
        assert word in text
    assert (
        "advice" not in text.replace("advised", "") and "Vision projector" not in text
    )
    part = operator.get(f"/models/{tiny.name}/advice/").content.decode()
    assert "this model is a folder" in part and "Quantising this file again" not in part


def test_the_plan_page_takes_the_engine_and_devices_that_can_load_it(
    operator: Client, tiny: Model, engine: Engine, vllm: Engine
) -> None:
    page = operator.get(f"/plan/?model={tiny.name}")
    text = page.content.decode()
    assert page.status_code == 200 and f'<option value="{vllm.pk}" selected>' in text
    assert "serve" in text and "cannot do layer_split" in text
    refused = operator.get(
        f"/plan/?model={tiny.name}&engine={engine.pk}"
    ).content.decode()
    assert (
        "is a folder with safetensors, and llama.cpp loads GGUF files only" in refused
    )
    assert operator.get(f"/plan/presets/?model={tiny.name}").status_code == 200


def typed(model: Model, engine: Engine) -> dict[str, Any]:
    defaults = {f"setting_{key}": setting.default for key, setting in SETTINGS.items()}
    chosen = {
        "strategy": "independent",
        "model": model.name,
        "devices": ["CPU"],
        "engine": engine.pk,
    }
    return defaults | chosen | {"name": "tiny", "extra_args": ""}


def test_the_form_offers_the_fitting_engine_and_refuses_the_other(
    operator: Client, tiny: Model, engine: Engine, vllm: Engine
) -> None:
    text = operator.get(f"/deployments/new/?model={tiny.name}").content.decode()
    assert f'<option value="{vllm.pk}" selected>' in text
    refused = operator.post("/deployments/new/", typed(tiny, engine))
    assert (
        refused.status_code == 200
        and "loads GGUF files only" in refused.content.decode()
    )
    assert not Deployment.objects.exists()
    assert operator.post("/deployments/new/", typed(tiny, vllm)).status_code == 302
    assert Deployment.objects.get().engine == vllm


def test_a_quick_deployment_takes_what_loads_it_or_says_what_is_missing(
    tiny: Model, engine: Engine, host: Host
) -> None:
    with pytest.raises(OmniError, match="no engine on this host loads such") as refused:
        one_click.deploy(model=tiny)
    assert "OMNI_ENGINES" in refused.value.fix and not Deployment.objects.exists()


def test_a_quick_deployment_runs_on_the_engines_own_kind_of_device(
    tiny: Model, engine: Engine, vllm: Engine
) -> None:
    made = one_click.deploy(model=tiny)
    assert (made.engine, made.bindings.get().devices) == (vllm, ["CPU"])


# --- rig files ------------------------------------------------------------------------------------
def rig(path: Path, model: Path, engine: str) -> str:
    path.write_text(
        f"models: [{{name: tiny, path: {model}}}]\ndeployments: [{{name: d, {engine} models: tiny,"
        " devices: CPU, settings: {context: 256}}]\n"
    )
    return str(path)


def test_a_rig_file_names_the_folder_and_export_gives_it_again(
    models_folder: Path,
    tmp_path: Path,
    engine: Engine,
    vllm: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_folder(models_folder / "tiny")
    # Without an engine the first that loads the model is taken; a slash at the end is the same
    # folder.
    call_command("apply", rig(tmp_path / "rig.yml", Path(f"{folder}/"), ""))
    assert (Deployment.objects.get().engine, Model.objects.get().path) == (
        vllm,
        str(folder),
    )
    folders.scan([models_folder])
    assert Model.objects.count() == 1
    capsys.readouterr()
    call_command("export")
    assert f"path: {folder}}}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("named", "says"),
    [("engine: llama.cpp,", "line 2: .*loads GGUF files only"), ("engine: vllm,", "")],
)
def test_a_rig_file_with_the_wrong_engine_is_refused_at_its_line(
    models_folder: Path,
    tmp_path: Path,
    engine: Engine,
    vllm: Engine,
    named: str,
    says: str,
) -> None:
    file = rig(tmp_path / "rig.yml", write_folder(models_folder / "tiny"), named)
    if not says:
        call_command("apply", file)
        assert Deployment.objects.exists()
        return
    with pytest.raises(CommandError, match=says):
        call_command("apply", file)
    assert not Deployment.objects.exists() and not Model.objects.exists()
