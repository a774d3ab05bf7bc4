"""Files that are no text model, or that this machine's engines cannot read: named, and offered for
what they are."""

from __future__ import annotations

import os
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from deployments.formats.ggml_types import GGML_TYPES, WITHDRAWN
from deployments.formats.kinds import TITLES, USES, Kind, article
from deployments.library import folders
from deployments.models import Engine, Model
from deployments.services.deployments import deployment_create
from deployments.services.plans import plan_on, rig_facts
from deployments.web.views.library import PAGE_LENGTH
from omni.errors import OmniError
from tests.deployments.gguf_corpus import header, tensor, write_stub, write_with_package
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db

Q4_K, IQ2_K = 12, 137
W = [("token_embd.weight", (256, 4), Q4_K)]
VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{n}" for n in range(300)],
}

FILES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "projector": ({"general.architecture": "clip", "general.type": "mmproj"}, W),
    "adapter": ({"general.architecture": "llama", "general.type": "adapter"}, W),
    "control_vector": ({"general.architecture": "controlvector"}, W),
    "imatrix": ({"general.type": "imatrix"}, W),
    "vocabulary": ({"general.architecture": "llama", **VOCABULARY}, []),
    "other": ({"general.architecture": "whisper"}, W),
    "draft": ({"general.architecture": "eagle3"}, W),
}


def stub(
    folder: Path, name: str, metadata: dict[str, Any], tensors: list[Any]
) -> Model:
    write_stub(folder / f"{name}.gguf", metadata, tensors)
    folders.scan([folder])
    return Model.objects.get(name=name)


# --- what no engine serves by itself --------------------------------------------------------------
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_no_engine_serves_is_named_and_not_offered(
    models_folder: Path, engine: Engine, kind: str, admin: Client
) -> None:
    found = stub(models_folder, f"a-{kind.replace('_', '-')}", *FILES[kind])
    assert (found.kind, found.state) == (kind, "ok")

    listed = admin.get("/models/").content.decode()
    assert (
        TITLES[Kind(kind)].lower() in listed.lower()
        and f"?model={found.name}" not in listed
    )
    page = unescape(admin.get(f"/models/{found.name}/").content.decode())
    assert USES[Kind(kind)] in page and f"?model={found.name}" not in page
    assert found.name not in admin.get("/deployments/quick/").content.decode()
    assert f"/models/{found.name}/advice/" not in page

    with pytest.raises(OmniError) as refused:
        deployment_create(
            name="x",
            strategy="independent",
            engine=engine,
            members={"model": (found, ["CPU"])},
            settings={},
        )
    assert refused.value.code == "wrong_kind" and refused.value.fix
    planned = plan_on(
        rig_facts(engine.host),
        name="x",
        strategy="independent",
        engine=engine,
        members={"model": (found, ["CPU"])},
        settings={},
        extra_args=(),
    )
    assert planned.verdict == "not_viable" and "wrong_kind" in [
        reason.code for reason in planned.reasons
    ]


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "draft"])
def test_a_file_that_cannot_draft_is_never_advised_as_a_draft(
    models_folder: Path, kind: str, viewer: Client
) -> None:
    """Its vocabulary is the target's, and it is much smaller."""
    metadata, tensors = FILES[kind]
    stub(models_folder, "tiny", {**VOCABULARY, **metadata}, tensors)
    large = [*W, *((f"blk.{n}.ffn_up.weight", (256, 512), Q4_K) for n in range(4))]
    target = stub(
        models_folder, "target", {"general.architecture": "llama", **VOCABULARY}, large
    )
    page = viewer.get(f"/models/{target.name}/advice/").content.decode()
    assert "tiny" not in page and "times as fast" not in page


def test_a_vocabulary_cannot_be_a_draft(
    models_folder: Path, engine: Engine, model: Model
) -> None:
    words = stub(models_folder, "words", *FILES["vocabulary"])
    with pytest.raises(OmniError, match="vocabulary only and cannot be the draft"):
        deployment_create(
            name="x",
            strategy="speculative",
            engine=engine,
            members={"target": (model, ["CPU"]), "draft": (words, ["CPU"])},
            settings={},
        )


def test_every_kind_has_its_words() -> None:
    assert set(TITLES) == set(USES) == set(Kind)
    assert [
        article(kind) for kind in (Kind.EMBEDDING, Kind.PROJECTOR, Kind.VOCABULARY)
    ] == [
        "an embedding model",
        "a projector",
        "vocabulary only",
    ]


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_what_gives_no_text_is_not_drafted_for(
    models_folder: Path, engine: Engine, kind: str
) -> None:
    pooling = 4 if kind == "reranker" else 2
    found = stub(
        models_folder,
        "bert",
        {"general.architecture": "bert", "bert.pooling_type": pooling},
        W,
    )
    assert found.kind == kind and found.is_deployable
    for strategy, role in (("speculative", "target"), ("prefill_decode", "prefill")):
        members = {role: (found, ["CPU"])} | (
            {"decode": (found, ["RPC0"])} if role == "prefill" else {}
        )
        planned = plan_on(
            rig_facts(engine.host),
            name="x",
            strategy=strategy,
            engine=engine,
            members=members,
            settings={},
            extra_args=(),
        )
        assert (
            planned.verdict == "not_viable" and planned.reasons[0].code == "wrong_kind"
        )


@pytest.mark.parametrize(
    "flag", ["--embeddings", "--embedding", "--reranking", "--rerank"]
)
def test_the_flags_of_a_kind_are_the_kinds_and_nobody_elses(
    engine: Engine, model: Model, flag: str
) -> None:
    with pytest.raises(OmniError, match="Omni sets .* itself"):
        deployment_create(
            name="x",
            strategy="independent",
            engine=engine,
            members={"model": (model, ["CPU"])},
            settings={},
            extra_args=[flag],
        )


# --- what this machine's engines cannot read ------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "says", "fix"),
    [
        *((number, "too old", "newer file") for number in WITHDRAWN),
        (43, "newer than the 42", "Update Omni"),
        (95, "newer than the 42", "Update Omni"),
        (96, "neither llama.cpp nor ik_llama.cpp", "another format"),
        (9999, "neither llama.cpp nor ik_llama.cpp", "another format"),
    ],
)
def test_a_number_format_that_is_not_known_says_whether_it_is_too_old_or_too_new(
    models_folder: Path, number: int, says: str, fix: str
) -> None:
    assert number not in GGML_TYPES
    path = models_folder / "odd.gguf"
    path.write_bytes(header([], [tensor("w", (32,), number, 0)]) + bytes(4096))
    (found,) = folders.scan([models_folder]).models
    assert found.state == "broken" and f"has the type {number}" in found.error
    assert (
        says in found.error
        and fix in found.error
        and "copy the file again" not in found.error
    )


def test_a_file_for_the_other_byte_order_is_named(models_folder: Path) -> None:
    write_with_package(models_folder / "s390x.gguf", big_endian=True)
    (found,) = folders.scan([models_folder]).models
    assert (
        found.state == "broken"
        and "big-endian" in found.error
        and "little-endian file" in found.error
    )


def test_formats_that_only_ik_llama_cpp_reads_are_refused_by_llama_cpp(
    models_folder: Path, engine: Engine
) -> None:
    found = stub(
        models_folder,
        "ik",
        {"general.architecture": "llama"},
        [("token_embd.weight", (256, 4), IQ2_K)],
    )
    planned = plan_on(
        rig_facts(engine.host),
        name="x",
        strategy="independent",
        engine=engine,
        members={"model": (found, ["CPU"])},
        settings={},
        extra_args=(),
    )
    assert planned.verdict == "not_viable" and "format_for_other_engine" in [
        r.code for r in planned.reasons
    ]


def test_an_architecture_that_the_engine_does_not_have_is_not_viable(
    models_folder: Path, engine: Engine
) -> None:
    found = stub(models_folder, "new", {"general.architecture": "brand-new-arch"}, W)
    engine.refresh_from_db()
    planned = plan_on(
        rig_facts(engine.host),
        name="x",
        strategy="independent",
        engine=engine,
        members={"model": (found, ["CPU"])},
        settings={},
        extra_args=(),
    )
    assert planned.verdict == "not_viable"
    (reason,) = [reason for reason in planned.reasons if reason.code == "unknown_arch"]
    assert "brand-new-arch" in reason.text and "newer build" in reason.fix


@pytest.mark.parametrize(
    ("arch", "tensors", "why"),
    [
        ("brand-new-arch", W, "No engine here has the architecture brand-new-arch"),
        (
            "llama",
            [("token_embd.weight", (256, 4), IQ2_K)],
            "Only ik_llama.cpp reads its number formats",
        ),
    ],
)
def test_a_model_that_no_engine_here_loads_has_no_deploy_button_but_the_reason(
    models_folder: Path,
    engine: Engine,
    admin: Client,
    arch: str,
    tensors: list[Any],
    why: str,
) -> None:
    found = stub(models_folder, "new", {"general.architecture": arch}, tensors)
    fine = stub(models_folder, "known", {"general.architecture": "llama"}, W)
    for address in ("/models/", f"/models/{found.name}/", "/deployments/quick/"):
        page = admin.get(address).content.decode()
        assert why in page, address
        assert f"?model={found.name}" not in page.replace(
            f"/plan/?model={found.name}", ""
        ), address
        assert f"/models/{found.name}/deploy" not in page, address
    assert why not in admin.get(f"/models/{fine.name}/").content.decode()


# --- names like a shard's -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["x-00001-of-00005.gguf", "x-00002-of-00005.gguf", "x-00005-of-00005.gguf"]
)
def test_a_whole_model_that_is_named_like_a_shard_is_whole(
    models_folder: Path, name: str
) -> None:
    write_stub(models_folder / name, {"general.architecture": "llama"}, W)
    (found,) = folders.scan([models_folder]).models
    assert (found.state, found.name, found.shards) == (
        "ok",
        name.removesuffix(".gguf"),
        [str(models_folder / name)],
    )


def test_whole_models_named_like_shards_of_one_are_models_of_their_own(
    models_folder: Path,
) -> None:
    for number in (1, 2):
        write_stub(
            models_folder / f"x-0000{number}-of-00002.gguf",
            {"general.architecture": "llama"},
            W,
        )
    assert [found.state for found in folders.scan([models_folder]).models] == [
        "ok",
        "ok",
    ]


def test_a_shard_whose_others_are_missing_is_still_incomplete(
    models_folder: Path,
) -> None:
    keys = {"general.architecture": "llama", "split.no": 1, "split.count": 5}
    write_stub(models_folder / "x-00002-of-00005.gguf", keys, W)
    (found,) = folders.scan([models_folder]).models
    assert found.state == "incomplete" and "4 of 5 shards are missing" in found.error


# --- one file at several places -------------------------------------------------------------------
def test_links_and_copies_of_one_file_are_said_to_be_one(
    models_folder: Path, viewer: Client
) -> None:
    path = models_folder / "one.gguf"
    write_with_package(path)
    os.link(path, models_folder / "hard.gguf")
    (models_folder / "soft.gguf").symlink_to(path)
    shutil.copy(path, models_folder / "copy.gguf")
    write_with_package(models_folder / "stranger.gguf", tensors=(0, 1))
    folders.scan([models_folder])
    assert (
        viewer.get("/models/").content.decode().count("The same file lies at 4 places")
        == 4
    )
    page = viewer.get("/models/one/").content.decode()
    for words in (
        "second name (hard link)",
        "a link to the same file",
        "a copy, which takes its space again",
    ):
        assert page.count(words) == 1
    assert (
        "stranger" not in page
        and "more than once" not in viewer.get("/models/stranger/").content.decode()
    )


# --- many -----------------------------------------------------------------------------------------
def many(count: int) -> None:
    Model.objects.bulk_create(
        Model(
            name=f"m{n:04}",
            path=f"/m/{n}.gguf",
            facts={"big": "x" * 1000},
            quant="Q4_K",
            arch="llama",
        )
        for n in range(count)
    )


@pytest.mark.parametrize(
    "address", ["/models/", "/models/?page=2", "/models/?q=m00", "/deployments/quick/"]
)
def test_pages_ask_as_much_of_many_models_as_of_few(
    admin: Client, address: str, django_assert_max_num_queries: Any
) -> None:
    many(PAGE_LENGTH * 3)
    with django_assert_max_num_queries(30):
        assert admin.get(address).status_code == 200


def test_a_page_shows_a_hundred_and_leads_to_the_others(viewer: Client) -> None:
    many(PAGE_LENGTH + 5)
    first, second = (
        squeezed(viewer.get(f"/models/?page={n}&q=m0").content.decode()) for n in (1, 2)
    )
    assert (
        first.count('scope="row"><a') == PAGE_LENGTH
        and second.count('scope="row"><a') == 5
    )
    assert (
        'rel="next"' in first
        and "page=2" in first
        and 'rel="prev"' in second
        and 'rel="next"' not in second
    )
    assert "1 to 100 of 105 that match, 105 models" in first


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=99999999999999999999",
        "page=x",
        "q=%00",
        "kind=%00",
        "kind=nothing",
    ],
)
def test_an_odd_query_is_no_fault(viewer: Client, query: str) -> None:
    many(3)
    assert viewer.get(f"/models/?{query}").status_code == 200


def test_kinds_can_be_filtered(models_folder: Path, viewer: Client) -> None:
    stub(models_folder, "eyes", *FILES["projector"])
    stub(models_folder, "plain", {"general.architecture": "llama"}, W)
    page = viewer.get("/models/?kind=projector").content.decode()
    assert "/models/eyes/" in page and "/models/plain/" not in page


def test_a_scan_of_many_asks_the_database_for_many_at_a_time(
    models_folder: Path, django_assert_max_num_queries: Any
) -> None:
    for number in range(60):
        write_stub(
            models_folder / f"m{number}.gguf",
            {"general.architecture": "llama", "general.name": str(number)},
            W,
        )
    with django_assert_max_num_queries(30):
        folders.scan([models_folder])
    with django_assert_max_num_queries(20):
        folders.scan([models_folder])
