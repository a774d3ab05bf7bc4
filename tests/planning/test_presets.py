"""Presets: settings for a wish that really fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.formats.gguf import read_header
from deployments.formats.model_facts import ModelFacts, facts
from deployments.planning.architecture import ModelShape
from deployments.planning.memory.fit import DEFAULT_MARGIN_BYTES
from deployments.planning.memory.use import memory_settings, memory_use, working_devices
from deployments.planning.plan import DeviceFacts
from deployments.planning.presets import Preset, presets
from deployments.planning.settings import SETTINGS, validated
from tests.deployments.gguf_corpus import smollm2
from tests.planning.stand_ins import deepseek_r1, qwen25_coder_32b

GIB = 1 << 30
RTX_PRO = DeviceFacts("CUDA0", "cuda", 96 * GIB, 95 * GIB, bandwidth_gbps=1792)
RTX_5090 = DeviceFacts("CUDA1", "cuda", 32 * GIB, 31 * GIB, bandwidth_gbps=1792)
SMALL_CARD = DeviceFacts("CUDA0", "cuda", 12 * GIB, 11 * GIB, bandwidth_gbps=400)
HOST = DeviceFacts("CPU", "cpu", 512 * GIB, 500 * GIB)
RIGS: dict[str, tuple[DeviceFacts, ...]] = {
    "large card": (RTX_PRO, HOST),
    "card": (RTX_5090, HOST),
    "both": (RTX_PRO, RTX_5090, HOST),
    "small card": (SMALL_CARD, HOST),
    "host": (HOST,),
}


@pytest.fixture(scope="session")
def known(
    tmp_path_factory: pytest.TempPathFactory,
    coder: ModelShape,
    r1: ModelShape,
    small: ModelShape,
) -> dict[str, tuple[ModelShape, ModelFacts]]:
    folder: Path = tmp_path_factory.mktemp("presets")
    paths = {
        "coder": qwen25_coder_32b(folder / "c.gguf"),
        "r1": deepseek_r1(folder / "r.gguf"),
        "small": smollm2(),
    }
    shapes = {"coder": coder, "r1": r1, "small": small}
    return {
        name: (shapes[name], facts(read_header(path))) for name, path in paths.items()
    }


def check_fits(shape: ModelShape, made: Preset, devices: Sequence[DeviceFacts]) -> None:
    settings = memory_settings(made.settings, int(made.settings["context"]))
    use = memory_use(shape, devices, settings)
    for device in (*working_devices(devices, settings), HOST):
        room = (device.free_bytes or 0) - DEFAULT_MARGIN_BYTES
        assert use.of(device.name).resident_bytes <= room, (made.name, device.name)


@pytest.mark.parametrize("rig", RIGS)
@pytest.mark.parametrize("name", ["coder", "r1", "small"])
def test_every_preset_fits(
    known: dict[str, tuple[ModelShape, ModelFacts]], name: str, rig: str
) -> None:
    shape, about = known[name]
    made = presets(shape, about, RIGS[rig])
    assert [each.name for each in made] == [
        "max_context", "max_speed", "balanced", "many_users",
    ]  # fmt: skip
    for each in made:
        assert each.fits
        check_fits(shape, each, RIGS[rig])
        assert set(each.settings) <= set(SETTINGS)
        assert validated(each.settings) == dict(each.settings)
        assert each.text.endswith(".") and each.cost.endswith(".")


def test_a_32b_model_on_each_card(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    shape, about = known["coder"]
    large = {
        each.name: each.settings for each in presets(shape, about, RIGS["large card"])
    }
    assert large["max_context"] == {
        "context": 32768,
        "parallel": 1,
        "kv_cache_k": "f16",
        "kv_cache_v": "f16",
        "gpu_layers": "all",
    }
    assert (large["max_speed"]["context"], large["max_speed"]["ubatch"]) == (8192, 2048)
    assert (large["balanced"]["context"], large["balanced"]["parallel"]) == (32768, 2)
    assert (large["many_users"]["context"], large["many_users"]["parallel"]) == (
        16 * 8192,
        16,
    )
    card = {each.name: each.settings for each in presets(shape, about, RIGS["card"])}
    assert int(card["many_users"]["parallel"]) < 16
    assert {settings["gpu_layers"] for settings in card.values()} == {"all"}


def test_the_longest_context_takes_eight_bits_where_sixteen_do_not_fit(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    shape, about = known["coder"]
    shape, about = (
        replace(shape, n_ctx_train=131072),
        replace(about, n_ctx_train=131072),
    )
    made = presets(shape, about, RIGS["card"])[0]
    assert made.name == "max_context"
    assert (made.settings["kv_cache_k"], made.settings["flash_attention"]) == (
        "q8_0",
        "on",
    )
    assert 60_000 < int(made.settings["context"]) < 131072
    longer = {**made.settings, "context": int(made.settings["context"]) + 1024}
    use = memory_use(
        shape, RIGS["card"], memory_settings(longer, int(longer["context"]))
    )
    assert use.of("CUDA1").needed_bytes > 30 * GIB


def test_what_does_not_fit_the_card_stays_on_the_host(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    for made in presets(*known["r1"], RIGS["both"]):
        assert isinstance(made.settings["gpu_layers"], int)
        assert "stay on the CPU" in made.cost


def test_where_layers_stay_on_the_host_contexts_are_not_starved(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    made = {
        each.name: each.settings
        for each in presets(*known["coder"], RIGS["small card"])
    }
    assert int(made["max_context"]["context"]) >= 8192
    assert int(made["balanced"]["context"]) >= 8192
    most = max(int(settings["gpu_layers"]) for settings in made.values())
    assert all(int(settings["gpu_layers"]) >= 0.75 * most for settings in made.values())


def test_without_a_card_no_layers_are_named(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    assert all(
        "gpu_layers" not in made.settings
        for made in presets(*known["small"], RIGS["host"])
    )


def test_what_fits_nowhere_says_so(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    tiny_host = (
        replace(SMALL_CARD, free_bytes=2 * GIB),
        replace(HOST, free_bytes=8 * GIB),
    )
    for made in presets(*known["r1"], tiny_host):
        assert not made.fits
        assert made.fit.short_by_bytes > 300 * GIB


def test_devices_of_unknown_size_take_everything(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    made = {
        each.name: each
        for each in presets(*known["coder"], (DeviceFacts("Vulkan0", "vulkan"),))
    }
    assert made["max_context"].settings["context"] == 32768
    assert made["many_users"].settings["parallel"] == 16


def test_a_short_training_context_is_not_exceeded(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    shape, about = known["small"]
    about, shape = replace(about, n_ctx_train=1024), replace(shape, n_ctx_train=1024)
    for made in presets(shape, about, RIGS["card"]):
        assert int(made.settings["context"]) <= 1024 * int(made.settings["parallel"])


def test_a_projector_has_no_presets(
    known: dict[str, tuple[ModelShape, ModelFacts]],
) -> None:
    shape, about = known["small"]
    assert presets(shape, replace(about, kind="projector"), RIGS["card"]) == []
