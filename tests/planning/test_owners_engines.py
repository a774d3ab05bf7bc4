"""The owner's 96 and 32 GB under engines other than llama.cpp: what each makes of unequal cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.engines import get_flavour
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
    Verdict,
)
from deployments.strategies import get_strategy
from deployments.strategies.on_engine import plan_on_engine
from omni.errors import OmniError
from tests.deployments.engine_help import help_of, words_of
from tests.deployments.gguf_corpus import write_stub
from tests.deployments.model_folders import (
    AWQ,
    EXL3,
    QWEN3_32B,
    folder_member,
    write_folder,
)
from tests.planning.owners_rig import (
    CPU,
    OWNERS_RIG,
    RTX_5090,
    RTX_PRO_6000,
    codes,
    member,
    reason,
)
from tests.planning.stand_ins import F32, Q4_K, Q6_K, Tensor, qwen25_coder_32b

RECORDED = {
    "ik_llama.cpp": "ik_llama_cpp_help",
    "vllm": "vllm_flags",
    "tabbyapi": "tabbyapi_flags",
}
BOTH = (RTX_PRO_6000, RTX_5090)


def plan(
    flavour: str,
    strategy: str,
    members: Mapping[str, Member],
    without: frozenset[str] = frozenset(),
    **settings: Any,
) -> Plan:
    flags = get_flavour(flavour).parse_flags(help_of(RECORDED[flavour])) - without
    engine = EngineFacts(flavour, flavour, f"/opt/{flavour}/main.py", flags)
    request = PlanRequest(
        strategy,
        engine,
        members,
        settings,
        alias="m",
        host_devices=OWNERS_RIG,
        api_key_file="/k",
        slots_folder="/s",
    )
    return plan_on_engine(get_strategy(strategy), request)


def qwen3_32b(path: Path) -> Path:
    """Qwen3-32B Q4_K_M: 64 layers, 64 heads of 128, of which 8 for keys and values."""
    n, n_ff, wide = 5120, 25600, 64 * 128
    keys: dict[str, Any] = {
        "general.architecture": "qwen3",
        "general.name": "Qwen3 32B",
        "general.file_type": 15,
        "qwen3.block_count": 64,
        "qwen3.context_length": 40960,
        "qwen3.embedding_length": n,
        "qwen3.feed_forward_length": n_ff,
        "qwen3.attention.head_count": 64,
        "qwen3.attention.head_count_kv": 8,
        "qwen3.attention.key_length": 128,
        "qwen3.attention.value_length": 128,
        "qwen3.vocab_size": 151936,
    }
    tensors: list[Tensor] = [("token_embd.weight", (n, 151936), Q4_K)]
    for blk in (f"blk.{layer}." for layer in range(64)):
        tensors += [
            (blk + "attn_norm.weight", (n,), F32),
            (blk + "ffn_norm.weight", (n,), F32),
            (blk + "attn_q.weight", (n, wide), Q4_K),
            (blk + "attn_k.weight", (n, 1024), Q4_K),
            (blk + "attn_v.weight", (n, 1024), Q6_K),
            (blk + "attn_output.weight", (wide, n), Q4_K),
            (blk + "attn_q_norm.weight", (128,), F32),
            (blk + "attn_k_norm.weight", (128,), F32),
            (blk + "ffn_gate.weight", (n, n_ff), Q4_K),
            (blk + "ffn_up.weight", (n, n_ff), Q4_K),
            (blk + "ffn_down.weight", (n_ff, n), Q6_K),
        ]
    tensors += [("output_norm.weight", (n,), F32), ("output.weight", (n, 151936), Q6_K)]
    return write_stub(path, keys, tensors)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Member:
    return member(qwen3_32b(tmp_path_factory.mktemp("owner") / "qwen3.gguf"), *BOTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Member:
    """The same model as a folder of safetensors, quantised by AWQ, as vLLM loads it."""
    path = tmp_path_factory.mktemp("owner") / "Qwen3-32B-AWQ"
    return folder_member(
        write_folder(path, QWEN3_32B, dtype="F16", quantization_config=AWQ), *BOTH
    )


@pytest.fixture(scope="module")
def exl3(tmp_path_factory: pytest.TempPathFactory) -> Member:
    """The same in ExLlama's format, as TabbyAPI loads it."""
    path = tmp_path_factory.mktemp("owner") / "Qwen3-32B"
    return folder_member(
        write_folder(path, QWEN3_32B, dtype="F16", quantization_config=EXL3), *BOTH
    )


def deeper(found: Member, times: int) -> Member:
    return replace(found, shape=replace(found.shape, layers=found.shape.layers * times))


def value_of(found: Plan, flag: str) -> str:
    argv = found.instances[0].argv
    return argv[argv.index(flag) + 1]


# --- ik_llama.cpp ---------------------------------------------------------------------------------
def test_graph_split_of_a_large_dense_model_is_cut_by_memory(qwen3: Member) -> None:
    found = plan(
        "ik_llama.cpp", "graph_split", {"model": deeper(qwen3, 5)}, context=4096
    )
    assert (found.verdict, value_of(found, "-sm"), value_of(found, "-ts")) == (
        Verdict.VIABLE,
        "graph",
        "3,1",
    )
    assert value_of(found, "-dev") == "CUDA0,CUDA1"
    assert found.instances[0].env["CUDA_VISIBLE_DEVICES"] == "GPU-pro,GPU-5090"
    flags = {word for word in found.instances[0].argv if re.match(r"--?[A-Za-z]", word)}
    assert flags <= words_of("ik_llama_cpp_accepted")
    big, small = found.devices[:2]
    assert big.weights_bytes == pytest.approx(3 * small.weights_bytes, rel=0.06)


def test_graph_split_of_an_architecture_it_does_not_know_is_refused(
    tmp_path: Path,
) -> None:
    coder = member(qwen25_coder_32b(tmp_path / "coder.gguf"), *BOTH)
    found = plan("ik_llama.cpp", "graph_split", {"model": coder}, context=4096)
    assert found.verdict == Verdict.NOT_VIABLE
    assert "does not know the architecture qwen2" in reason(found, "arch_refused")


def test_graph_split_over_other_than_cuda_says_so_and_has_no_command(
    qwen3: Member,
) -> None:
    remote = DeviceFacts("RPC0", "rpc", 32 << 30, endpoint="127.0.0.1:1")
    found = plan(
        "ik_llama.cpp",
        "graph_split",
        {"model": replace(qwen3, devices=(RTX_PRO_6000, remote))},
    )
    assert (found.verdict, found.instances) == (Verdict.NOT_VIABLE, ())
    assert "RPC0 is not" in reason(found, "needs_cuda")


def test_its_tensor_parallelism_is_another_strategy(qwen3: Member) -> None:
    found = plan("ik_llama.cpp", "tensor_split", {"model": qwen3})
    assert (found.verdict, found.instances, codes(found)) == (
        Verdict.NOT_VIABLE,
        (),
        ["strategy_not_for_engine"],
    )
    layers = plan("ik_llama.cpp", "layer_split", {"model": qwen3}, context=4096)
    assert value_of(layers, "-sm") == "layer" and layers.verdict != Verdict.NOT_VIABLE


def test_a_flag_that_the_binary_lacks_is_refused_at_plan_time_with_the_nearest(
    qwen3: Member,
) -> None:
    with pytest.raises(OmniError, match="has no flag -sm") as refused:
        plan(
            "ik_llama.cpp",
            "graph_split",
            {"model": qwen3},
            frozenset({"-sm"}),
            context=4096,
        )
    assert refused.value.fix.startswith("The nearest one it has is -s")


def test_a_cache_in_its_own_formats_is_between_the_usual_ones(qwen3: Member) -> None:
    sizes = [
        plan(
            "ik_llama.cpp",
            "layer_split",
            {"model": qwen3},
            context=32768,
            kv_cache_k=kind,
            kv_cache_v=kind,
        )
        for kind in ("q5_1", "q6_0", "q8_kv", "q8_0")
    ]
    totals = [sum(device.kv_bytes for device in found.devices) for found in sizes]
    assert totals == sorted(totals) and len(set(totals)) == 4


# --- vLLM -----------------------------------------------------------------------------------------
def test_vllm_wastes_what_the_larger_card_has_more(folder: Member) -> None:
    found = plan("vllm", "tensor_split", {"model": folder}, context=8192)
    assert found.verdict == Verdict.CAUTION
    text = reason(found, "equal_shares_waste")
    assert (
        "can use 2 × 31.8 GiB = 63.7 GiB and wastes 63.8 GiB, most of it on CUDA0"
        in text
    )
    assert (
        value_of(found, "--tensor-parallel-size"),
        found.settings["tensor_split"],
    ) == (
        "2",
        "1,1",
    )
    assert "even_split_wastes" not in codes(found)
    equal = plan(
        "vllm",
        "tensor_split",
        {"model": replace(folder, devices=(RTX_5090, twin(RTX_5090)))},
        context=8192,
    )
    assert "equal_shares_waste" not in codes(equal)


def twin(card: DeviceFacts) -> DeviceFacts:
    return replace(card, name="CUDA2", gpu_uuid="GPU-twin")


def test_what_needs_the_memory_of_the_larger_card_does_not_fit_under_vllm(
    folder: Member,
) -> None:
    found = plan("vllm", "tensor_split", {"model": deeper(folder, 5)}, context=4096)
    assert found.verdict == Verdict.NOT_VIABLE
    assert "CUDA1 would have to hold" in reason(found, "does_not_fit")


@pytest.mark.parametrize(
    ("strategy", "changes", "settings", "code"),
    [
        ("tensor_split", {"devices": (RTX_5090, CPU)}, {}, "needs_cuda"),
        (
            "tensor_split",
            {"devices": (RTX_5090, twin(RTX_5090), RTX_PRO_6000)},
            {},
            "heads_not_divisible",
        ),
        ("tensor_split", {}, {"tensor_split": "3,1"}, "shares_ignored"),
        ("tensor_split", {}, {"gpu_layers": 10}, "partial_offload"),
        ("independent", {}, {}, "one_card"),
        ("layer_split", {}, {}, "strategy_not_for_engine"),
        ("graph_split", {}, {}, "strategy_not_for_engine"),
    ],
)
def test_what_vllm_cannot_do_is_a_reason_before_there_is_a_process(
    folder: Member,
    strategy: str,
    changes: dict[str, Any],
    settings: dict[str, Any],
    code: str,
) -> None:
    found = plan("vllm", strategy, {"model": replace(folder, **changes)}, **settings)
    assert (found.verdict, found.instances) == (Verdict.NOT_VIABLE, ())
    assert code in codes(found)
    assert next(r for r in found.reasons if r.code == code).fix


def test_vllm_on_one_card_is_independent(folder: Member) -> None:
    found = plan(
        "vllm",
        "independent",
        {"model": replace(folder, devices=(RTX_PRO_6000,))},
        context=8192,
    )
    assert found.verdict == Verdict.VIABLE
    assert value_of(found, "--tensor-parallel-size") == "1"


@pytest.mark.parametrize(
    ("flavour", "kind", "code", "says"),
    [
        (
            "vllm",
            "gguf",
            "gguf_for_other_engine",
            "qwen3 is a GGUF file, and vLLM loads folders with safetensors",
        ),
        ("vllm", "awq", "", ""),
        (
            "vllm",
            "exl3",
            "format_for_other_engine",
            "Qwen3-32B is EXL3, which vLLM does not read",
        ),
        ("tabbyapi", "gguf", "gguf_for_other_engine", "TabbyAPI loads folders"),
        (
            "tabbyapi",
            "awq",
            "format_for_other_engine",
            "Qwen3-32B-AWQ is AWQ, which TabbyAPI does not read",
        ),
        ("tabbyapi", "exl3", "", ""),
        ("ik_llama.cpp", "gguf", "", ""),
        (
            "ik_llama.cpp",
            "awq",
            "folder_for_other_engine",
            "is a folder with safetensors, and ik_llama.cpp loads GGUF",
        ),
    ],
)
def test_an_engine_that_does_not_load_the_format_says_so_and_has_no_command(
    qwen3: Member,
    folder: Member,
    exl3: Member,
    flavour: str,
    kind: str,
    code: str,
    says: str,
) -> None:
    given = {"gguf": qwen3, "awq": folder, "exl3": exl3}[kind]
    found = plan(
        flavour,
        "independent",
        {"model": replace(given, devices=(RTX_PRO_6000,))},
        context=8192,
    )
    if not code:
        assert found.verdict == Verdict.VIABLE and len(found.instances) == 1
        return
    assert (found.verdict, found.instances) == (Verdict.NOT_VIABLE, ())
    assert (
        says in reason(found, code)
        and next(r for r in found.reasons if r.code == code).fix
    )


def test_bytes_of_a_folder_are_those_of_its_tensors_and_of_the_usual_cache(
    folder: Member,
) -> None:
    found = plan(
        "vllm",
        "independent",
        {"model": replace(folder, devices=(RTX_PRO_6000,))},
        context=8192,
    )
    (card,) = found.devices
    assert card.weights_bytes == folder.facts.size_bytes == folder.shape.weights_bytes
    # 64 layers × keys and values × 8 heads × 128 × 8192 tokens × 2 bytes.
    assert card.kv_bytes == 64 * 2 * 8 * 128 * 8192 * 2
    halved = plan("vllm", "tensor_split", {"model": folder}, context=8192).devices
    assert [use.kv_bytes for use in halved[:2]] == [card.kv_bytes // 2] * 2
    vectors = sum(
        t.n_bytes
        for kind in folder.shape.layer_kinds()
        for t in kind.tensors
        if len(t.shape) < 2
    )
    assert halved[0].weights_bytes == pytest.approx(
        (card.weights_bytes + vectors) / 2, rel=1e-4
    )
    eight = plan(
        "vllm",
        "independent",
        {"model": replace(folder, devices=(RTX_PRO_6000,))},
        context=8192,
        kv_cache_k="q8_0",
        kv_cache_v="q8_0",
        flash_attention="on",
    )
    assert (
        value_of(eight, "--kv-cache-dtype") == "fp8"
        and eight.devices[0].kv_bytes < 0.6 * card.kv_bytes
    )


@pytest.mark.parametrize(
    ("card", "context", "verdict", "code"),
    [
        (RTX_PRO_6000, 40960, Verdict.VIABLE, "bytes_of_folder"),
        (RTX_5090, 8192, Verdict.VIABLE, "bytes_of_folder"),
        (replace(RTX_5090, total_bytes=29 << 30), 40960, Verdict.CAUTION, "tight_fit"),
        (
            replace(RTX_5090, total_bytes=16 << 30),
            8192,
            Verdict.NOT_VIABLE,
            "does_not_fit",
        ),
    ],
)
def test_whole_or_not_at_all(
    folder: Member, card: DeviceFacts, context: int, verdict: Verdict, code: str
) -> None:
    found = plan(
        "vllm",
        "independent",
        {"model": replace(folder, devices=(card,))},
        context=context,
    )
    assert found.verdict == verdict and code in codes(found)
    assert (
        "layers_on_host" not in codes(found) and found.settings["gpu_layers"] == "all"
    )
    assert not [use for use in found.devices if use.name == "CPU" and use.weights_bytes]


# --- TabbyAPI -------------------------------------------------------------------------------------
def test_tabbyapi_divides_by_gigabytes(exl3: Member) -> None:
    found = plan(
        "tabbyapi", "tensor_split", {"model": exl3}, context=8192, tensor_split="3,1"
    )
    model = found.instances[0].files["config.yml"]["model"]
    assert model["tensor_parallel"] is True and model["gpu_split"]
    assert found.instances[0].argv[-2:] == ("--config", "config.yml")


def test_drafting_by_tabbyapi_names_both_folders(exl3: Member) -> None:
    small = replace(
        exl3,
        name="small",
        path="/models/Qwen3-0.6B",
        devices=(RTX_5090,),
        shape=replace(exl3.shape, layers=exl3.shape.layers[:2]),
        facts=replace(exl3.facts, n_params=10**9),
    )
    found = plan(
        "tabbyapi",
        "speculative",
        {"target": replace(exl3, devices=(RTX_PRO_6000,)), "draft": small},
    )
    config = found.instances[0].files["config.yml"]
    assert config["model"]["model_name"] == "Qwen3-32B"
    assert config["draft_model"]["draft_model_name"] == "Qwen3-0.6B"
    assert "gpu_split" not in config
