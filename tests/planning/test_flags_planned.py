"""Every flag that may be added to a deployment is planned with, or changes nothing that is
planned."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.engines.flag_table import (
    ALLOWED,
    DANGEROUS,
    FLAGS,
    MANAGED,
    Flag,
    Neither,
    Refused,
    Sets,
)
from deployments.engines.flags import planned_with
from deployments.planning.architecture import ModelShape
from deployments.planning.memory.use import MemorySettings, memory_use
from deployments.planning.plan import DeviceFacts
from omni.errors import OmniError

GIB = 1 << 30
ROOT = Path(__file__).parents[2]
CARDS = {
    kind: tuple(DeviceFacts(f"{kind}{n}", kind, 24 * GIB) for n in range(2))
    for kind in ("rpc", "cuda")
}
# Flag → (a value, the settings it stands for, on a model and devices that show it).
PLANNED: dict[str, tuple[str, dict[str, object], str, str]] = {
    "--swa-full": ("", {"swa_full": True}, "gemma3", "rpc"),
    "--kv-offload": ("", {"offload_kqv": True}, "qwen3", "rpc"),
    "--no-kv-offload": ("", {"offload_kqv": False}, "qwen3", "rpc"),
    "--repack": ("", {"repack": True}, "all_q4_0", ""),
    "--no-repack": ("", {"repack": False}, "all_q4_0", ""),
    "--no-host": ("", {"no_host": True}, "all_q4_0", "cuda"),
    "--no-op-offload": ("", {"op_offload": False}, "moe_q4_k", "cuda"),
    "--backend-sampling": ("", {"backend_sampling": True}, "qwen3", "rpc"),
    "--cpu-moe": ("", {"cpu_moe": True}, "moe_q4_k", "rpc"),
    "--n-cpu-moe": ("3", {"n_cpu_moe": 3}, "moe_q4_k", "rpc"),
    "--tensor-split": ("3,1", {"tensor_split": (3.0, 1.0)}, "qwen3", "rpc"),
    "--ctx-checkpoints": ("0", {"ctx_checkpoints": 0}, "gemma3", "rpc"),
}
DEFAULTS = {"--kv-offload", "--repack"}
# They move what a projector takes, not its model (test_projector_plans.py).
OF_PROJECTORS: dict[str, tuple[str, dict[str, object]]] = {
    "--mmproj-offload": ("", {"offload_projector": True}),
    "--no-mmproj-offload": ("", {"offload_projector": False}),
    "--image-max-tokens": ("64", {"image_tokens": 64}),
}


def words(flag: Flag, value: str = "1") -> list[str]:
    return [flag.name, value] if flag.takes_value else [flag.name]


def sample(flag: Flag) -> str:
    """A value that the flag may have."""
    if flag.kind == "words":
        return flag.words[0]
    return str(int(max(flag.low, 0))) if flag.kind in ("int", "float") else "1"


def test_each_flag_says_what_it_means_to_the_planner() -> None:
    fields = MemorySettings.__dataclass_fields__
    for name, flag in FLAGS.items():
        if isinstance(flag.means, Sets):
            kind = type(getattr(MemorySettings(), flag.means.field, None))
            assert flag.means.field in fields, (
                f"{name} stands for a setting that is none"
            )
            assert flag.takes_value or kind is bool, (
                f"{name} sets {flag.means.field} to what?"
            )
        elif isinstance(flag.means, Refused):
            assert name not in ALLOWED and flag.means.fix
            with pytest.raises(OmniError, match=f"{name}\\b") as caught:
                planned_with(MemorySettings(), [name])
            assert caught.value.code == "refused_extra_arg"
        else:
            assert isinstance(flag.means, Neither) and flag.means.value


def test_a_flag_without_a_meaning_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="means"):
        Flag("--new")  # type: ignore[call-arg]


def test_the_table_has_each_flag_once() -> None:
    assert set(FLAGS) == set(ALLOWED) | set(MANAGED) | set(DANGEROUS)
    assert len(FLAGS) == len(ALLOWED) + len(MANAGED) + len(DANGEROUS)


def test_each_memory_setting_is_set_by_somebody() -> None:
    """By a setting of the deployment, a flag, or a strategy."""
    by_flags = {flag.sets.field for flag in ALLOWED.values() if flag.sets}
    by_product = {
        keyword.arg
        for path in sorted((ROOT / "deployments").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
    }
    assert set(MemorySettings.__dataclass_fields__) <= by_flags | by_product


def test_each_flag_that_is_planned_with_stands_in_the_table() -> None:
    planned = {flag.name for flag in ALLOWED.values() if flag.sets}
    assert planned == {*PLANNED, *OF_PROJECTORS}


@pytest.mark.parametrize("name", OF_PROJECTORS)
def test_a_flag_of_projectors_is_the_setting_it_stands_for(name: str) -> None:
    value, meant = OF_PROJECTORS[name]
    before = MemorySettings(offload_projector=name.startswith("--no-"))
    after = planned_with(before, words(ALLOWED[name], value))
    assert after == replace(before, **meant)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PLANNED)
def test_a_flag_is_planned_as_the_setting_it_stands_for(
    tiny: dict[str, ModelShape], name: str
) -> None:
    value, meant, model, kind = PLANNED[name]
    plain = MemorySettings(context=16384, gpu_layers=None if kind != "cuda" else 4)
    # Where the engine's default is meant, the flag undoes its opposite.
    before = (
        replace(plain, **{key: not value for key, value in meant.items()})
        if name in DEFAULTS
        else plain
    )  # type: ignore[arg-type]
    after = planned_with(before, words(ALLOWED[name], value))
    assert after == replace(before, **meant)  # type: ignore[arg-type]
    cards = CARDS.get(kind, ())
    assert (
        memory_use(tiny[model], cards, after).devices
        != memory_use(tiny[model], cards, before).devices
    )


@pytest.mark.parametrize(
    "name", sorted(name for name, flag in ALLOWED.items() if not flag.sets)
)
def test_other_flags_leave_the_plan_alone(name: str) -> None:
    settings, flag = MemorySettings(), ALLOWED[name]
    assert planned_with(settings, words(flag, sample(flag))) == settings


def test_both_counts_of_layers_with_experts_on_the_host_add_up_to_the_larger() -> None:
    settings = MemorySettings(n_cpu_moe=2)
    assert planned_with(settings, ["--n-cpu-moe 20"]).n_cpu_moe == 20
    assert planned_with(settings, ["-ncmoe", "1"]).n_cpu_moe == 2
    assert planned_with(settings, ["--cpu-moe"]).cpu_moe


def test_a_draft_model_is_placed_by_itself() -> None:
    settings = planned_with(
        MemorySettings(),
        ["--tensor-split 3,1", "--cpu-moe", "--swa-full"],
        is_draft=True,
    )
    assert settings == MemorySettings(swa_full=True)
