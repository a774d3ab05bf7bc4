"""vLLM's command line, checked against what its source takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.engines.base import Command, ServerSpec
from deployments.engines.vllm import Vllm, memory_share
from deployments.models import Engine
from deployments.planning.plan import (
    KEY,
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    PlanRequest,
)
from deployments.services.defaults import default_engine
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.engine_help import help_of
from tests.deployments.model_folders import folder_member, write_folder

GB = 1 << 30
CARDS = (
    DeviceFacts("CUDA0", "cuda", 96 * GB, None, gpu_uuid="GPU-a"),
    DeviceFacts("CUDA1", "cuda", 32 * GB, 30 * GB, gpu_uuid="GPU-b"),
)
FLAGS = Vllm().parse_flags(help_of("vllm_flags"))
# What the program itself listed when it was asked.
LISTED = Vllm().parse_flags(help_of("vllm_0_32_cpu_flags"))
CPU = DeviceFacts("CPU", "cpu", 24 * GB)


@pytest.fixture
def spec() -> ServerSpec:
    engine = EngineFacts("v", "vllm", "/opt/vllm/bin/vllm", FLAGS)
    return ServerSpec(
        engine, "/m/--qwen", CARDS, alias="-a", context_tokens=8192, api_key_file="/k"
    )


def made(spec: ServerSpec, **changes: Any) -> Command:
    return Vllm().command(replace(spec, **changes))


def value_of(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def test_a_folder_is_served_on_a_unix_socket_with_one_rank_for_each_card(
    spec: ServerSpec,
) -> None:
    command = made(spec, settings={"parallel": 4})
    assert command.argv[:3] == ("/opt/vllm/bin/vllm", "serve", "/m/--qwen")
    assert not {"--host", "--port"} & set(command.argv)
    expected = {
        "--uds": SOCKET,
        "--served-model-name": "-a",
        "--tensor-parallel-size": "2",
    }
    # Each request has a quarter of the context, which is what --max-model-len means.
    expected |= {
        "--max-model-len": "2048",
        "--max-num-seqs": "4",
        "--kv-cache-dtype": "auto",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    words = {
        word
        for word in command.argv[3:]
        if re.match(r"--[a-z]", word) and word != "--qwen"
    }
    assert words <= FLAGS


def test_the_key_is_in_the_environment_and_only_as_a_placeholder(
    spec: ServerSpec,
) -> None:
    assert "VLLM_API_KEY" not in made(spec).env, "nobody else reaches its socket"
    old = replace(spec, engine=replace(spec.engine, flags=FLAGS - {"--uds"}))
    command = made(old)
    assert (
        value_of(command, "--host") == "127.0.0.1"
        and value_of(command, "--port") == PORT
    )
    assert command.env["VLLM_API_KEY"] == KEY
    assert not {"--api-key", "/k", KEY} & set(command.argv)
    assert "VLLM_API_KEY" not in made(old, api_key_file="").env
    assert (command.env["VLLM_NO_USAGE_STATS"], command.env["HF_HUB_OFFLINE"]) == (
        "1",
        "1",
    )


def test_cards_by_uuid_where_the_version_can_read_them_else_by_number_in_bus_order(
    spec: ServerSpec,
) -> None:
    old, new = (
        made(spec),
        made(spec, engine=replace(spec.engine, flags=FLAGS | {"--device-ids"})),
    )
    assert old.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert new.env["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert old.env["CUDA_DEVICE_ORDER"] == new.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_fullest_card_decides_the_share(spec: ServerSpec) -> None:
    share = memory_share(CARDS)
    assert 0.85 < share < 30 / 32
    assert value_of(made(spec), "--gpu-memory-utilization") == f"{share:.2f}"
    assert memory_share((DeviceFacts("CUDA0", "cuda"),)) == 0.9
    assert memory_share((replace(CARDS[1], free_bytes=0),)) == 0.01


def test_every_flag_that_is_used_is_one_the_program_itself_lists(
    spec: ServerSpec,
) -> None:
    engine = replace(spec.engine, flags=LISTED)
    commands = [
        made(spec, engine=engine, settings={"parallel": 2, "batch": 512}),
        made(spec, engine=replace(engine, build="0.32.0+cpu"), devices=(CPU,)),
    ]
    for command in commands:
        assert {
            word
            for word in command.argv[3:]
            if word.startswith("--") and word != "--qwen"
        } <= LISTED
    # But for these, what was read in the source is what the program has.
    assert {
        "--disable-uvicorn-access-log",
        "--no-disable-uvicorn-access-log",
        "-h",
        "--help",
    } >= FLAGS - LISTED


@pytest.mark.parametrize(
    ("kv_bytes", "taken"), [(0, 64 << 20), (1, 128 << 20), (200 << 20, 320 << 20)]
)
def test_a_build_for_the_cpu_is_told_the_size_of_its_cache(
    spec: ServerSpec, kv_bytes: int, taken: int
) -> None:
    engine = replace(spec.engine, flags=LISTED, build="0.32.0+cpu")
    command = made(spec, engine=engine, devices=(CPU,), kv_bytes=kv_bytes)
    assert value_of(command, "--kv-cache-memory-bytes") == str(taken)
    assert (
        "--gpu-memory-utilization" not in command.argv
        and "CUDA_VISIBLE_DEVICES" not in command.env
    )
    assert value_of(command, "--tensor-parallel-size") == "1"


@pytest.mark.parametrize(
    ("build", "devices", "code"),
    [
        ("0.32.0", CARDS[:1], None),
        ("0.32.0", (CPU,), "needs_cuda"),
        ("0.32.0+cpu", (CPU,), None),
        ("0.32.0+cpu", CARDS[:1], "needs_cpu"),
        ("0.32.0+cpu", (CPU, CARDS[0]), "needs_cpu"),
    ],
)
def test_a_build_computes_on_what_it_was_built_for(
    spec: ServerSpec,
    build: str,
    devices: tuple[DeviceFacts, ...],
    code: str | None,
    tmp_path: Path,
) -> None:
    engine = replace(spec.engine, build=build)
    given = folder_member(write_folder(tmp_path / "tiny"), *devices)
    reasons = Vllm().reasons(PlanRequest("independent", engine, {"model": given}))
    assert [reason.code for reason in reasons if reason.severity == "error"] == (
        [code] if code else []
    )


@pytest.mark.parametrize(
    ("kind", "dtype"), [("f16", "auto"), ("bf16", "auto"), ("q8_0", "fp8")]
)
def test_formats_of_the_cache(spec: ServerSpec, kind: str, dtype: str) -> None:
    assert (
        value_of(
            made(spec, settings={"kv_cache_k": kind, "kv_cache_v": kind}),
            "--kv-cache-dtype",
        )
        == dtype
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"settings": {"kv_cache_k": "q4_0", "kv_cache_v": "q4_0"}},
            "no KV cache with keys in q4_0",
        ),
        ({"settings": {"kv_cache_k": "q8_0"}}, "values in f16"),
        ({"extra_args": ("--top-k 3",)}, "no flag --top-k"),
        ({"extra_args": ("--api-key x",)}, "refused"),
        (
            {"devices": (DeviceFacts("GPU0", "cuda", gpu_uuid="GPU-a"),)},
            "takes cards by number",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(
    spec: ServerSpec, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(OmniError, match=says):
        made(spec, **changes)


def test_a_flag_that_a_version_lacks_is_named_with_the_nearest(
    spec: ServerSpec,
) -> None:
    with pytest.raises(OmniError, match="no flag --max-num-seqs") as refused:
        made(spec, engine=replace(spec.engine, flags=FLAGS - {"--max-num-seqs"}))
    assert refused.value.fix == "The nearest one it has is --max-num-batched-tokens."


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("INFO 11-23 10:00:00 import\n0.11.0\n", "0.11.0"),
        ("0.9.2rc1+cu128", "0.9.2rc1+cu128"),
        ("", ""),
    ],
)
def test_its_version_stands_alone_on_a_line(text: str, version: str) -> None:
    assert Vllm().parse_version(text) == version


def test_both_spellings_of_a_flag_are_read() -> None:
    assert {
        "-tp",
        "--tensor-parallel-size",
        "--no-enforce-eager",
        "-q",
        "--disable-log-stats",
    } <= FLAGS
    assert not {flag for flag in FLAGS if not re.fullmatch(r"-{1,2}[a-z][a-z-]*", flag)}


@pytest.mark.django_db
def test_a_library_of_gguf_files_is_served_by_what_loads_them(
    host: Host, engine: Engine
) -> None:
    Engine.objects.create(
        host=host, name="a", path="/a", flavour="vllm", flags=sorted(FLAGS)
    )
    engine.delete()
    assert default_engine(host).flavour == "vllm"
    own = Engine.objects.create(
        host=host, name="b", path="/b", flavour="ik_llama.cpp", flags=["-m"]
    )
    assert default_engine(host) == own
