"""A model that sees: what its projector takes, where it goes, and what the plan says of the two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.engines import get_flavour
from deployments.planning.memory.projector import projector_use
from deployments.planning.memory.reported import reported_memory
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
    Verdict,
)
from deployments.strategies import STRATEGIES, get_strategy
from deployments.strategies.on_engine import plan_on_engine
from omni.errors import OmniError
from tests.deployments.engine_help import help_of
from tests.deployments.gguf_corpus import smollm2
from tests.gateway.engine import RealEngine
from tests.planning.owners_rig import CPU, OWNERS_RIG, RTX_5090, RTX_PRO_6000, codes
from tests.planning.owners_rig import member as on_devices
from tests.vision_models import Eye, write_projector

MIB = 1 << 20
VULKAN = DeviceFacts("Vulkan0", "vulkan", 8 << 30)


@pytest.fixture
def projector(tmp_path: Path) -> Member:
    return on_devices(write_projector(tmp_path / "mmproj.gguf"))


def planned(
    flags: frozenset[str],
    projector: Member | None,
    *devices: DeviceFacts,
    strategy: str = "independent",
    flavour: str = "llama.cpp",
    extra: tuple[str, ...] = (),
    **settings: Any,
) -> Plan:
    members = {"model": on_devices(smollm2(), *devices)}
    if projector:
        members["projector"] = projector
    request = PlanRequest(
        strategy,
        EngineFacts(flavour, flavour, "/bin/llama-server", flags),
        members,
        settings,
        extra,
        alias="m",
        host_devices=OWNERS_RIG,
        slots_folder="/s",
    )
    return plan_on_engine(get_strategy(strategy), request)


def test_the_projector_stands_in_the_command_and_on_the_first_card(
    real_flags: frozenset[str], projector: Member
) -> None:
    plan = planned(real_flags, projector, RTX_5090)
    (process,) = plan.instances
    at = process.argv.index("--mmproj")
    assert process.argv[at + 1] == projector.path
    assert "--no-mmproj-offload" not in process.argv
    # Only this card is visible to the process: it is the engine's first.
    assert process.env["MTMD_BACKEND_DEVICE"] == "CUDA0"
    assert process.env["CUDA_VISIBLE_DEVICES"] == "GPU-5090"
    assert process.launch.projector_path == projector.path
    assert process.file_bytes == smollm2().stat().st_size + projector.facts.size_bytes
    use = {each.name: each for each in plan.devices}["CUDA1"]
    assert use.projector_bytes > sum(projector.facts.quant_bytes.values())
    bare = planned(real_flags, None, RTX_5090)
    alone = {each.name: each for each in bare.devices}["CUDA1"]
    assert use.needed_bytes == alone.needed_bytes + use.projector_bytes
    figures = {figure.code: figure.text for figure in plan.figures}
    assert figures["image_tokens"] == "up to 16 tokens"
    assert "on CUDA1" in figures["projector"]
    assert "projector" not in {figure.code for figure in bare.figures}


@pytest.mark.parametrize(
    ("devices", "extra"),
    [((CPU,), ()), ((RTX_5090,), ("--no-mmproj-offload",))],
)
def test_it_stays_on_the_host_without_a_card_and_where_that_is_asked_for(
    real_flags: frozenset[str],
    projector: Member,
    devices: tuple[DeviceFacts, ...],
    extra: tuple[str, ...],
) -> None:
    plan = planned(real_flags, projector, *devices, extra=extra)
    (process,) = plan.instances
    assert process.argv.count("--no-mmproj-offload") == 1
    assert "MTMD_BACKEND_DEVICE" not in process.env
    assert [use.name for use in plan.devices if use.projector_bytes] == ["CPU"]


def test_the_command_without_a_projector_is_as_before(
    real_flags: frozenset[str],
) -> None:
    (process,) = planned(real_flags, None, CPU).instances
    assert not [word for word in process.argv if "mmproj" in word]


@pytest.mark.parametrize("strategy", ["layer_split", "tensor_split"])
def test_a_split_model_has_its_projector_on_its_first_card(
    real_flags: frozenset[str], projector: Member, strategy: str
) -> None:
    cards = (RTX_PRO_6000, RTX_5090)
    plan = planned(real_flags, projector, *cards, strategy=strategy)
    (process,) = plan.instances
    assert process.env["MTMD_BACKEND_DEVICE"] == "CUDA0" and "--mmproj" in process.argv
    with_it = {use.name for use in plan.devices if use.projector_bytes > MIB // 2}
    assert with_it == {"CUDA0"}


def test_what_it_takes_is_not_left_to_the_model(
    real_flags: frozenset[str], tmp_path: Path
) -> None:
    """A card with room for the model and not for both keeps some layers on the host."""
    eye = Eye(n_embd=512, n_layer=8, n_head=8)
    large = on_devices(write_projector(tmp_path / "large.gguf", eye))
    alone = planned(real_flags, None, RTX_5090, context=2048)
    needed = {use.name: use for use in alone.devices}["CUDA1"].needed_bytes
    card = replace(RTX_5090, total_bytes=needed + (1 << 30) + 4 * MIB)
    assert planned(real_flags, None, card, context=2048).settings["gpu_layers"] == "all"
    plan = planned(real_flags, large, card, context=2048)
    assert plan.settings["gpu_layers"] != "all"
    use = {each.name: each for each in plan.devices}["CUDA1"]
    assert use.projector_bytes > 50 * MIB
    assert use.needed_bytes <= (card.total_bytes or 0)


def test_only_strategies_of_one_model_take_one() -> None:
    takes = {each.name for each in STRATEGIES.values() if each.takes_projector}
    assert takes == {
        "independent",
        "layer_split",
        "tensor_split",
        "graph_split",
        "expert_offload",
    }


def test_a_strategy_that_takes_none_says_which_roles_it_has(
    real_flags: frozenset[str], projector: Member
) -> None:
    request = PlanRequest(
        "speculative",
        EngineFacts("e", "llama.cpp", "/bin/llama-server", real_flags),
        {"target": on_devices(smollm2(), CPU), "projector": projector},
    )
    with pytest.raises(OmniError, match=r"roles target, draft \(optional\); given"):
        plan_on_engine(get_strategy("speculative"), request)


# --- the two together -----------------------------------------------------------------------------
def test_another_width_is_refused_and_another_name_is_said(
    real_flags: frozenset[str], tmp_path: Path
) -> None:
    wide = on_devices(write_projector(tmp_path / "wide.gguf", Eye(width=960)))
    plan = planned(real_flags, wide, CPU)
    assert plan.verdict == Verdict.NOT_VIABLE and not plan.instances
    assert codes(plan)[:1] == ["projector_mismatch"]
    names = {"general.basename": "Hermes"}
    other = on_devices(write_projector(tmp_path / "other.gguf", names=names))
    assert "projector_of_another" in codes(planned(real_flags, other, CPU))
    nameless = on_devices(write_projector(tmp_path / "mmproj-f16.gguf", names={}))
    assert not {"projector_of_another", "projector_mismatch"} & set(
        codes(planned(real_flags, nameless, CPU))
    )


def test_a_text_model_is_no_projector_and_a_projector_no_model(
    real_flags: frozenset[str], projector: Member
) -> None:
    text = on_devices(smollm2())
    assert "wrong_kind" in codes(planned(real_flags, text, CPU))
    request = PlanRequest(
        "independent",
        EngineFacts("e", "llama.cpp", "/bin/llama-server", real_flags),
        {"model": replace(projector, devices=(CPU,))},
    )
    assert "wrong_kind" in codes(plan_on_engine(get_strategy("independent"), request))


def test_an_image_that_has_no_room_in_the_context_is_said_with_its_tokens(
    real_flags: frozenset[str], tmp_path: Path
) -> None:
    eye = Eye(image_size=448)
    seeing = on_devices(write_projector(tmp_path / "mmproj.gguf", eye))
    assert eye.tokens == 1024
    plan = planned(real_flags, seeing, CPU, context=1024)
    (reason,) = [r for r in plan.reasons if r.code == "image_beyond_context"]
    assert "1,024 tokens" in reason.text and reason.changes == {"context": 1280}
    plan = planned(real_flags, seeing, CPU, context=4096, parallel=4)
    (reason,) = [r for r in plan.reasons if r.code == "image_beyond_context"]
    assert reason.changes == {"context": 4 * 1280}
    assert "image_beyond_context" not in codes(
        planned(real_flags, seeing, CPU, context=2048)
    )


def test_a_limit_on_an_images_tokens_is_planned_with(
    real_flags: frozenset[str], tmp_path: Path
) -> None:
    path = write_projector(tmp_path / "mmproj.gguf", Eye("pixtral"))
    seeing = on_devices(path)
    whole = planned(real_flags, seeing, CPU)
    less = planned(real_flags, seeing, CPU, extra=("--image-max-tokens", "256"))
    sizes = [plan.devices[-1].projector_bytes for plan in (whole, less)]
    assert sizes[0] > 2 * sizes[1]
    figures = {figure.code: figure.text for figure in less.figures}
    assert figures["image_tokens"] == "up to 256 tokens"


# --- engines --------------------------------------------------------------------------------------
def test_engines_that_load_none_say_so(projector: Member) -> None:
    for name, recorded in (("vllm", "vllm_flags"), ("tabbyapi", "tabbyapi_flags")):
        flags = get_flavour(name).parse_flags(help_of(recorded))
        plan = planned(flags, projector, RTX_5090, flavour=name)
        said = [reason.text for reason in plan.reasons]
        assert any(text.startswith("mmproj is a GGUF file") for text in said), said
        assert not plan.instances


def test_ik_llama_cpp_takes_it_by_the_same_flag(projector: Member) -> None:
    flags = get_flavour("ik_llama.cpp").parse_flags(help_of("ik_llama_cpp_help"))
    (process,) = planned(flags, projector, RTX_5090, flavour="ik_llama.cpp").instances
    at = process.argv.index("--mmproj")
    assert process.argv[at + 1] == projector.path


# --- the real engine's own figures ----------------------------------------------------------------
EYES = [
    Eye(n_embd=256, n_layer=4, image_size=224),
    Eye(n_embd=768, n_layer=3, n_head=12, image_size=224, patch_size=16),
    Eye(n_embd=1024, n_layer=2, n_head=16, image_size=336),
    Eye("idefics3", n_embd=256, image_size=256, patch_size=16, merge=2),
    Eye("idefics3", n_embd=768, n_head=12, image_size=512, patch_size=16, merge=4),
]


@pytest.mark.real
@pytest.mark.parametrize("eye", EYES, ids=lambda eye: f"{eye.type}-{eye.n_embd}")
def test_the_engine_takes_for_a_projector_what_is_planned(
    tmp_path: Path, eye: Eye
) -> None:
    path = write_projector(tmp_path / "mmproj.gguf", eye)
    key = tmp_path / "key"
    key.write_text("secret")
    flags = ("-lv", "4", "-c", "512", "-np", "1", "--device", "none")
    engine = RealEngine(tmp_path, key, flags=(*flags, "--mmproj", str(path)))
    try:
        engine.wait_ready()
    finally:
        engine.kill()
    reported = reported_memory(engine.log.read_text().splitlines()).devices["CPU"]
    use = projector_use(on_devices(path).facts, "cpu", flash=True)
    # The engine rounds each of the two to 0.01 MiB.
    assert abs(reported.projector - use.total_bytes) < max(
        0.03 * use.total_bytes, 0.3 * MIB
    )
    # The model's own working memory is not mistaken for the projector's.
    assert reported.compute > 10 * MIB
