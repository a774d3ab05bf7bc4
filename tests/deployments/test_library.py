"""The library: which files become models, under which names, and what is said of broken ones."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from deployments.library import folders, model_files
from deployments.library import reading as model_reading
from deployments.library import rows as model_rows
from deployments.models import Deployment, LibraryFolder, Model
from omni.errors import OmniError
from tests.deployments.conftest import values_of
from tests.deployments.gguf_corpus import smollm2, write_stub, write_with_package

pytestmark = pytest.mark.django_db


def small(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_with_package(path)
    return path


def names(report: folders.ScanReport) -> dict[str, str]:
    return {model.name: model.state for model in report.models}


def test_every_gguf_below_a_folder_is_registered(models_folder: Path) -> None:
    small(models_folder / "a.gguf")
    small(models_folder / "deep" / "er" / "B Model.Q4_K.GGUF")
    (models_folder / "notes.txt").write_text("no model")
    small(models_folder / ".cache" / "hidden.gguf")
    report = folders.scan([models_folder])
    assert names(report) == {"a": "ok", "b-model-q4_k": "ok"}
    assert LibraryFolder.objects.get(path=str(models_folder)).scanned_at


def test_the_row_that_other_tests_begin_with_is_the_one_that_registering_makes(
    model: Model,
) -> None:
    made = Model.objects.get(pk=model.pk)
    Model.objects.all().delete()
    registered = Model.objects.get(pk=folders.register(smollm2()).pk)
    assert values_of(made) == values_of(registered)


def test_the_facts_of_the_real_model_are_kept() -> None:
    model = folders.register(smollm2())
    assert (model.arch, model.quant, model.n_layer, model.n_ctx_train) == (
        "llama",
        "Q4_1",
        30,
        8192,
    )
    assert (model.n_params, model.size_bytes) == (134_515_008, smollm2().stat().st_size)
    assert model.facts["attention"] == "GQA"


def test_shards_are_one_model_and_a_missing_one_is_named(models_folder: Path) -> None:
    shards = write_with_package(models_folder / "big.gguf", split_tensors=2)
    assert len(shards) > 1
    (model,) = folders.scan([models_folder]).models
    assert (model.name, model.state, len(model.shards)) == ("big", "ok", len(shards))
    shards[-1].unlink()
    os.utime(shards[0])
    (model,) = folders.scan([models_folder]).models
    assert (model.state, model.name) == ("incomplete", "big")
    assert shards[-1].name in model.error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "broken.gguf"),
        (b"not a model at all", "broken.gguf"),
        (b"GGUF\x03\x00\x00\x00", "broken.gguf"),
    ],
)
def test_a_broken_file_is_registered_with_its_cause(
    models_folder: Path, content: bytes, says: str
) -> None:
    (models_folder / "broken.gguf").write_bytes(content)
    (model,) = folders.scan([models_folder]).models
    assert model.state == "broken"
    assert says in model.error


def test_a_truncated_file_is_broken_and_well_again_when_it_is_whole(
    models_folder: Path,
) -> None:
    path = small(models_folder / "a.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    (model,) = folders.scan([models_folder]).models
    assert model.state == "broken" and "truncated" in model.error
    path.write_bytes(whole)
    (again,) = folders.scan([models_folder]).models
    assert (again.pk, again.state, again.error) == (model.pk, "ok", "")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (
            {"llama.block_count": 4_000_000_000},
            "block_count is 4000000000, not at most 10000",
        ),
        ({"llama.block_count": "many"}, "block_count is 'many', not a whole number"),
        (
            {"llama.block_count": 2, "llama.attention.head_count": "nine"},
            "head_count is 'nine'",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_broken_and_takes_no_memory(
    models_folder: Path, metadata: dict[str, object], says: str
) -> None:
    path = models_folder / "odd.gguf"
    write_stub(
        path,
        {"general.architecture": "llama", **metadata},
        [("token_embd.weight", (32, 32), 0)],
    )
    (model,) = folders.scan([models_folder]).models
    assert model.state == "broken" and says in model.error


def test_an_unchanged_file_is_not_read_again(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(models_folder / "a.gguf")
    folders.scan([models_folder])
    monkeypatch.setattr(
        model_reading, "read_header", lambda path: pytest.fail(f"{path} was read again")
    )
    assert names(folders.scan([models_folder])) == {"a": "ok"}


def test_a_first_look_reads_a_file_once_for_its_fingerprint_and_once_for_its_header(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [small(models_folder / f"{name}.gguf") for name in "abc"]
    read: list[tuple[str, Path]] = []

    def counted(module: ModuleType, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path: (read.append((name, path)), real(path))[1]
        )

    counted(model_files, "fingerprint")
    counted(model_reading, "read_header")
    folders.scan([models_folder])
    assert sorted(read) == sorted(
        (name, path) for name in ("fingerprint", "read_header") for path in paths
    )


def test_a_fingerprint_is_taken_again_where_the_file_has_changed_since(
    models_folder: Path,
) -> None:
    path = small(models_folder / "a.gguf")
    before = model_files.mark_of(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert model_files.mark_of(path, before) == model_files.mark_of(path) != before


def test_one_new_row_that_the_database_refuses_keeps_no_other_out(
    models_folder: Path,
) -> None:
    paths = [small(models_folder / f"{name}.gguf") for name in "abc"]
    rows = model_rows.Rows()
    assert "b" not in rows._taken
    # Another scan gives the name away after this one has looked which are free.
    other = Model.objects.create(name="b", path=str(models_folder / "elsewhere.gguf"))
    assert [found.model.name for found in rows.register(paths)] == ["a", "b-2", "c"]
    assert Model.objects.get(name="b").pk == other.pk


def test_a_file_that_goes_is_marked_and_one_that_comes_back_is_well(
    models_folder: Path,
) -> None:
    path = small(models_folder / "a.gguf")
    folders.scan([models_folder])
    kept = path.read_bytes()
    path.unlink()
    folders.scan([models_folder])
    assert Model.objects.get().state == "missing"
    path.write_bytes(kept)
    folders.scan([models_folder])
    assert Model.objects.get().state == "ok"


def test_equal_names_are_told_apart_and_reserved_ones_avoided(
    models_folder: Path,
) -> None:
    for folder in ("x", "y"):
        small(models_folder / folder / "same.gguf")
    small(models_folder / "scan.gguf")
    assert set(names(folders.scan([models_folder]))) == {"same", "same-2", "scan-2"}


def test_a_link_out_of_the_library_is_not_followed(
    models_folder: Path, tmp_path: Path
) -> None:
    outside = small(tmp_path / "outside" / "secret.gguf")
    (models_folder / "link.gguf").symlink_to(outside)
    (models_folder / "folder").symlink_to(outside.parent)
    report = folders.scan([models_folder])
    assert report.models == []
    assert [text for text in report.skipped if "link.gguf" in text]
    folders.folder_add(str(outside.parent))
    assert set(names(folders.scan([models_folder]))) == {"link"}


def test_a_file_may_be_named_and_a_path_must_exist(models_folder: Path) -> None:
    path = small(models_folder / "a.gguf")
    small(models_folder / "b.gguf")
    assert names(folders.scan([path])) == {"a": "ok"}
    assert not LibraryFolder.objects.exists()
    with pytest.raises(OmniError, match="There is no .*/nope"):
        folders.scan([models_folder / "nope"])


def test_a_folder_that_went_away_is_said_so(models_folder: Path) -> None:
    folder = folders.folder_add(str(models_folder))
    models_folder.rmdir()
    report = folders.scan()
    folder.refresh_from_db()
    assert folder.error == "The folder is not there."
    assert report.skipped == [f"{models_folder}: The folder is not there."]


@pytest.mark.parametrize(
    "path", ["", "relative", "/no/such/folder", "/", "/etc", "/proc", "a\0b"]
)
def test_a_folder_must_be_a_place_for_models(path: str) -> None:
    with pytest.raises(OmniError) as refused:
        folders.folder_add(path)
    assert refused.value.code == "bad_folder"
    assert refused.value.fix


def test_a_folder_is_added_once_whatever_its_spelling(models_folder: Path) -> None:
    folders.folder_add(str(models_folder))
    with pytest.raises(OmniError, match="in the library already"):
        folders.folder_add(f"{models_folder}/../{models_folder.name}/")


def test_removing_a_folder_takes_its_models_and_leaves_the_files(
    models_folder: Path,
) -> None:
    path = small(models_folder / "a.gguf")
    folder = folders.folder_add(str(models_folder))
    folders.scan()
    assert folders.folder_remove(folder) == 1
    assert not Model.objects.exists() and path.exists()


def test_a_folder_whose_models_are_used_stays(deployment: Deployment) -> None:
    folder = folders.folder_add(str(smollm2().parent))
    with pytest.raises(OmniError, match="are used by small"):
        folders.folder_remove(folder)
    assert LibraryFolder.objects.exists() and Model.objects.exists()
