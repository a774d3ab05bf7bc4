"""Extra arguments in whole plans: the bytes and the command are those of the setting they stand
for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

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
from deployments.planning.repacking import Kernels
from deployments.strategies import get_strategy
from tests.deployments.gguf_corpus import smollm2
from tests.planning.tiny_models import write_tiny

GIB = 1 << 30
HOST = DeviceFacts("CPU", "cpu", 64 * GIB)
RPC = tuple(
    DeviceFacts(f"RPC{n}", "rpc", 24 * GIB, endpoint=f"127.0.0.1:{50 + n}")
    for n in range(2)
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {
        name: write_tiny(folder / f"{name}.gguf", name)
        for name in ("gemma3", "moe_q4_k", "all_q4_0", "deepseek2")
    }
    return made | {"smollm2": smollm2()}


def planned(
    path: Path,
    flags: frozenset[str],
    strategy: str,
    settings: dict[str, object],
    extra: tuple[str, ...] = (),
    host: DeviceFacts = HOST,
    kernels: Kernels = Kernels.AVX2,
) -> Plan:
    header = read_header(path)
    cards = RPC if strategy == "layer_split" else RPC[:1]
    member = Member(path.stem, str(path), facts(header), model_shape(header), cards)
    engine = EngineFacts(
        "mine", "llama.cpp", "/bin/llama-server", flags, kernels=kernels
    )
    request = PlanRequest(
        strategy,
        engine,
        {"model": member},
        {"context": 4096} | settings,
        extra,
        host_devices=(*RPC, host),
    )
    return get_strategy(strategy).plan(request)


@pytest.mark.parametrize(
    ("model", "strategy", "settings", "extra", "meant"),
    [
        ("smollm2", "layer_split", {}, "--tensor-split 3,1", {"tensor_split": "3,1"}),
        (
            "smollm2",
            "layer_split",
            {"tensor_split": "1,1"},
            "--tensor-split 3,1",
            {"tensor_split": "3,1"},
        ),
        ("smollm2", "layer_split", {}, "-ts 0,1", {"tensor_split": "0,1"}),
        ("moe_q4_k", "expert_offload", {}, "--n-cpu-moe 20", {"n_cpu_moe": 20}),
        (
            "moe_q4_k",
            "expert_offload",
            {"n_cpu_moe": 2},
            "--n-cpu-moe 20",
            {"n_cpu_moe": 20},
        ),
        (
            "moe_q4_k",
            "expert_offload",
            {"n_cpu_moe": 2},
            "--cpu-moe",
            {"n_cpu_moe": "all"},
        ),
    ],
)
def test_a_flag_with_a_setting_of_its_own_is_planned_as_that_setting(
    paths: dict[str, Path],
    real_flags: frozenset[str],
    model: str,
    strategy: str,
    settings: dict[str, object],
    extra: str,
    meant: dict[str, object],
) -> None:
    by_flag = planned(paths[model], real_flags, strategy, settings, (extra,))
    by_setting = planned(paths[model], real_flags, strategy, meant)
    assert by_flag.devices == by_setting.devices
    assert by_flag.verdict == by_setting.verdict


def bytes_of(plan: Plan, kind: str) -> dict[str, int]:
    return {use.name: getattr(use, f"{kind}_bytes") for use in plan.devices}


def test_a_cache_that_stays_on_the_host_is_planned_there(
    paths: dict[str, Path], real_flags: frozenset[str]
) -> None:
    kv = bytes_of(
        planned(paths["smollm2"], real_flags, "layer_split", {}, ("--no-kv-offload",)),
        "kv",
    )
    assert kv["CPU"] == 90 << 20 and not kv["RPC0"] and not kv["RPC1"]


def test_windowed_layers_with_the_whole_context_are_planned_so(
    paths: dict[str, Path], real_flags: frozenset[str]
) -> None:
    plain, full = (
        bytes_of(planned(paths["gemma3"], real_flags, "independent", {}, extra), "kv")[
            "RPC0"
        ]
        for extra in ((), ("--swa-full",))
    )
    assert full > 2 * plain


def test_a_plan_says_what_is_mapped_rearranged_and_locked(
    paths: dict[str, Path], real_flags: frozenset[str]
) -> None:
    settings = {"gpu_layers": 3, "load_mode": "mmap+mlock"}
    plan = planned(paths["all_q4_0"], real_flags, "independent", settings)
    said = {figure.code: figure.text for figure in plan.figures}["host_weights"]
    assert all(word in said for word in ("mapped", "rearranged", "locked"))
    host = next(use for use in plan.devices if use.name == "CPU")
    assert host.resident_bytes == host.needed_bytes, "what is locked cannot be put away"


def test_a_prompt_cache_counts_as_memory_of_the_host(
    paths: dict[str, Path], real_flags: frozenset[str]
) -> None:
    sizes = [
        bytes_of(
            planned(
                paths["smollm2"], real_flags, "independent", {"cache_ram_mib": mib}
            ),
            "other",
        )["CPU"]
        for mib in (0, 1024)
    ]
    assert sizes[1] - sizes[0] == GIB
    huge = planned(
        paths["smollm2"], real_flags, "independent", {"cache_ram_mib": 1 << 20}
    )
    assert huge.verdict == "not_viable" and "CPU" in huge.reasons[0].text


@pytest.mark.parametrize(("ram", "said"), [(64 * GIB, False), (6 * GIB, True)])
def test_a_prompt_cache_that_may_outgrow_the_host_is_said(
    paths: dict[str, Path], real_flags: frozenset[str], ram: int, said: bool
) -> None:
    plan = planned(
        paths["smollm2"],
        real_flags,
        "independent",
        {},
        host=replace(HOST, total_bytes=ram),
    )
    assert ("prompt_cache" in [reason.code for reason in plan.reasons]) == said
    assert plan.verdict == "viable"


@pytest.mark.parametrize(
    ("model", "kernels", "kept_as_it_is"),
    [
        ("deepseek2", Kernels.AMX, True),
        ("deepseek2", Kernels.AVX2, False),
        ("all_q4_0", Kernels.AMX, False),
    ],
)
def test_latent_attention_is_not_put_into_tiles_over_which_the_engine_aborts(
    paths: dict[str, Path],
    real_flags: frozenset[str],
    model: str,
    kernels: Kernels,
    kept_as_it_is: bool,
) -> None:
    plan = planned(
        paths[model], real_flags, "independent", {"gpu_layers": 0}, kernels=kernels
    )
    assert ("--no-repack" in plan.instances[0].argv) == kept_as_it_is
    twice = planned(
        paths[model],
        real_flags,
        "independent",
        {"gpu_layers": 0},
        ("--no-repack",),
        kernels=kernels,
    )
    assert twice.instances[0].argv.count("--no-repack") == 1
