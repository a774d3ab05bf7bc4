"""TabbyAPI's configuration, checked against the fields its source has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from deployments.engines.base import Command, DraftSpec, ServerSpec
from deployments.engines.tabbyapi import TabbyApi
from deployments.planning.plan import KEY, PORT, DeviceFacts, EngineFacts, filled
from omni.errors import OmniError
from tests.deployments.engine_help import help_of

GB = 1 << 30
CARDS = (
    DeviceFacts("CUDA0", "cuda", 96 * GB, None, gpu_uuid="GPU-a"),
    DeviceFacts("CUDA1", "cuda", 32 * GB, None, gpu_uuid="GPU-b"),
)
FLAGS = TabbyApi().parse_flags(help_of("tabbyapi_flags"))


@pytest.fixture
def spec() -> ServerSpec:
    engine = EngineFacts("t", "tabbyapi", "/opt/tabbyAPI/main.py", FLAGS)
    return ServerSpec(
        engine,
        "/m/qwen: 'exl3'",
        CARDS,
        alias="a",
        context_tokens=9000,
        api_key_file="/k",
    )


def made(spec: ServerSpec, **changes: Any) -> Command:
    return TabbyApi().command(replace(spec, **changes))


def config_of(command: Command) -> dict[str, dict[str, Any]]:
    return dict(
        yaml.safe_load(
            yaml.safe_dump(filled(command.files["config.yml"], {PORT: 18000}))
        )
    )


def test_it_is_started_by_the_python_beside_it_with_its_files(spec: ServerSpec) -> None:
    command = made(spec)
    assert command.argv == (
        "/opt/tabbyAPI/venv/bin/python",
        "/opt/tabbyAPI/main.py",
        "--config",
        "config.yml",
    )
    assert command.env["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    network = config_of(command)["network"]
    assert (network["host"], network["port"], network["disable_auth"]) == (
        "127.0.0.1",
        18000,
        False,
    )
    assert command.files["api_tokens.yml"] == {"api_key": KEY, "admin_key": KEY}


def test_every_key_is_a_field_it_has(spec: ServerSpec) -> None:
    draft = DraftSpec("draft-simple", "/m/small", (CARDS[1],))
    config = config_of(
        made(spec, draft=draft, split_mode="tensor", settings={"n_cpu_moe": "all"})
    )
    assert {
        f"--{key.replace('_', '-')}" for section in config.values() for key in section
    } <= FLAGS
    assert config["draft_model"] == {
        "draft_mode": "model",
        "draft_num_tokens": 3,
        "draft_model_dir": "/m",
        "draft_model_name": "small",
    }
    assert (
        config["model"]["tensor_parallel"] is True
        and config["model"]["cpu_moe_offload_layers"] == 999
    )
    assert (config["model"]["model_dir"], config["model"]["model_name"]) == (
        "/m",
        "qwen: 'exl3'",
    )


def test_the_context_is_shared_and_the_cache_holds_whole_pages(
    spec: ServerSpec,
) -> None:
    model = config_of(made(spec, settings={"parallel": 2}))["model"]
    assert (model["max_seq_len"], model["cache_size"], model["max_batch_size"]) == (
        4500,
        9216,
        2,
    )


def test_unequal_cards_are_filled_by_their_memory(spec: ServerSpec) -> None:
    by_room = config_of(made(spec))["model"]
    big, small = by_room["gpu_split"]
    assert 94 < big < 96 and 30 < small < 32 and by_room["gpu_split_auto"] is False
    even = config_of(made(spec, settings={"tensor_split": "1,1"}))["model"]["gpu_split"]
    assert even[0] == even[1] == small
    assert "gpu_split" not in config_of(made(spec, devices=CARDS[:1]))["model"]


@pytest.mark.parametrize(
    ("keys", "values", "mode"),
    [
        ("f16", "f16", "FP16"),
        ("q8_0", "q8_0", "8,8"),
        ("q8_0", "q4_0", "8,4"),
        ("q6_0", "q5_1", "6,5"),
    ],
)
def test_formats_of_the_cache(
    spec: ServerSpec, keys: str, values: str, mode: str
) -> None:
    command = made(spec, settings={"kv_cache_k": keys, "kv_cache_v": values})
    assert config_of(command)["model"]["cache_mode"] == mode


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"settings": {"kv_cache_k": "q8_0"}},
            "no KV cache with keys in q8_0 and values in f16",
        ),
        ({"extra_args": ("--top-k 1",)}, "no extra arguments"),
        ({"draft": DraftSpec("draft-eagle3")}, "does not draft by draft-eagle3"),
        ({"devices": (CARDS[0], DeviceFacts("CUDA1", "cuda"))}, "memory of CUDA1"),
    ],
)
def test_what_it_cannot_do_is_refused(
    spec: ServerSpec, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(OmniError, match=says):
        made(spec, **changes)


def test_a_field_that_a_version_lacks_is_named_with_the_nearest(
    spec: ServerSpec,
) -> None:
    with pytest.raises(OmniError, match="no flag --gpu-split") as refused:
        made(spec, engine=replace(spec.engine, flags=FLAGS - {"--gpu-split"}))
    assert refused.value.fix == "The nearest one it has is --gpu-split-auto."
