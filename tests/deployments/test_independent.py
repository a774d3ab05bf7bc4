"""The independent strategy: one model, one process, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.formats.gguf import read_header
from deployments.formats.model_facts import facts
from deployments.planning.from_header import model_shape
from deployments.planning.memory.use import MIB
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    PlanRequest,
    Verdict,
)
from deployments.strategies import get_strategy
from omni.errors import OmniError
from tests.deployments.gguf_corpus import smollm2

GIB = 1 << 30
GPU = DeviceFacts("CUDA0", "cuda", total_bytes=8 * GIB, gpu_uuid="GPU-0")
HOST = DeviceFacts("CPU", "cpu", total_bytes=16 * GIB)


@pytest.fixture
def request_(real_flags: frozenset[str]) -> PlanRequest:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", real_flags)
    header = read_header(smollm2())
    member = Member("m", "/m.gguf", facts(header), model_shape(header), (GPU,))
    return PlanRequest(
        "independent",
        engine,
        {"model": member},
        alias="m",
        host_devices=(GPU, HOST),
        api_key_file="/k",
    )


def on(request: PlanRequest, device: DeviceFacts, **settings: object) -> PlanRequest:
    member = replace(request.members["model"], devices=(device,))
    return replace(request, members={"model": member}, settings=settings)


def test_a_plan_has_one_process_and_says_what_it_loads(request_: PlanRequest) -> None:
    plan = get_strategy("independent").plan(request_)
    (instance,) = plan.instances
    assert (plan.verdict, plan.reasons) == (Verdict.VIABLE, ())
    assert (instance.role, instance.devices) == ("model", ("CUDA0",))
    assert instance.file_bytes == smollm2().stat().st_size
    assert instance.argv[instance.argv.index("-c") + 1] == "8192"
    assert plan.settings == {"context": 8192, "gpu_layers": "all"}


def test_the_same_request_gives_the_same_plan(request_: PlanRequest) -> None:
    strategy = get_strategy("independent")
    assert strategy.plan(request_) == strategy.plan(request_)


# CUDA0 takes 92 MiB of weights, 180 of KV, 20 of compute buffers and 512 of driver context; 1 GiB
# is to stay free.
@pytest.mark.parametrize(
    ("memory_mib", "settings", "verdict", "codes", "changes"),
    [
        (8192, {}, Verdict.VIABLE, [], {}),
        (
            8192,
            {"context": 16384},
            Verdict.CAUTION,
            ["context_beyond_training"],
            {"context": 8192},
        ),
        (1800, {}, Verdict.CAUTION, ["layers_on_host"], {"context": 6912}),
        (
            1800,
            {"gpu_layers": "all"},
            Verdict.CAUTION,
            ["tight_fit"],
            {"context": 6912},
        ),
        (700, {"gpu_layers": "all"}, Verdict.NOT_VIABLE, ["does_not_fit"], {}),
        (1800, {"gpu_layers": 10}, Verdict.VIABLE, ["layers_on_host"], {}),
        (
            2000,
            {"gpu_layers": "all", "context": 65536},
            Verdict.CAUTION,
            ["context_beyond_training"],
            {"context": 8192},
        ),
        (
            2000,
            {"gpu_layers": "all", "context": 65536, "parallel": 8},
            Verdict.NOT_VIABLE,
            ["does_not_fit"],
            {"context": 14336},
        ),
        (None, {}, Verdict.VIABLE, [], {}),
    ],
)
def test_the_verdict_is_the_worst_of_its_reasons(
    request_: PlanRequest,
    memory_mib: int | None,
    settings: dict[str, object],
    verdict: Verdict,
    codes: list[str],
    changes: dict[str, object],
) -> None:
    device = replace(GPU, total_bytes=memory_mib and memory_mib * MIB)
    plan = get_strategy("independent").plan(on(request_, device, **settings))
    assert [reason.code for reason in plan.reasons] == codes
    assert plan.verdict == verdict
    assert {
        key: value
        for reason in plan.reasons[:1]
        for key, value in reason.changes.items()
    } == changes
    assert plan.instances, "what does not fit is a verdict; its command is still shown"


@pytest.mark.parametrize(
    ("memory_mib", "context"), [(1800, 8192), (2800, 65536), (2000, 30000)]
)
def test_the_proposed_context_fits_and_much_more_would_not(
    request_: PlanRequest, memory_mib: int, context: int
) -> None:
    device = replace(GPU, total_bytes=memory_mib * MIB)
    member = request_.members["model"]
    longer = replace(member, facts=replace(member.facts, n_ctx_train=65536))
    asked = on(
        replace(request_, members={"model": longer}),
        device,
        gpu_layers="all",
        context=context,
    )
    strategy = get_strategy("independent")
    reason = next(
        r
        for r in strategy.plan(asked).reasons
        if r.code in ("does_not_fit", "tight_fit")
    )
    proposed = int(reason.changes["context"])
    codes = [
        r.code
        for r in strategy.plan(
            replace(asked, settings=asked.settings | {"context": proposed})
        ).reasons
    ]
    assert not {"does_not_fit", "tight_fit"} & set(codes)
    more = int(proposed * 1.1) + 512
    codes = [
        r.code
        for r in strategy.plan(
            replace(asked, settings=asked.settings | {"context": more})
        ).reasons
    ]
    assert {"does_not_fit", "tight_fit"} & set(codes)


def test_what_others_hold_is_not_there_for_this_one(request_: PlanRequest) -> None:
    busy = replace(GPU, free_bytes=GIB)
    plan = get_strategy("independent").plan(on(request_, busy, gpu_layers="all"))
    assert [r.code for r in plan.reasons] == ["tight_fit"]
    assert plan.devices[0].held_bytes == 7 * GIB
    assert "1 GiB free of 8 GiB" not in plan.reasons[0].text


def test_stand_ins_share_the_memory_of_the_host(request_: PlanRequest) -> None:
    stand_in = DeviceFacts(
        "RPC0", "rpc", 16 * GIB, endpoint="127.0.0.1:1", is_stand_in=True
    )
    request = replace(
        request_, host_devices=(stand_in, replace(HOST, free_bytes=200 * MIB))
    )
    plan = get_strategy("independent").plan(on(request, stand_in, gpu_layers="all"))
    assert plan.verdict == Verdict.NOT_VIABLE


def test_roles_and_devices_must_be_given(request_: PlanRequest) -> None:
    strategy = get_strategy("independent")
    member = request_.members["model"]
    with pytest.raises(
        OmniError, match=r"roles model, projector \(optional\); given: target"
    ):
        strategy.plan(replace(request_, members={"target": member}))
    with pytest.raises(OmniError, match="has no device"):
        strategy.plan(replace(request_, members={"model": replace(member, devices=())}))


def test_a_strategy_or_engine_that_is_not_there_is_named(request_: PlanRequest) -> None:
    with pytest.raises(OmniError, match="no strategy 'magic'.*independent"):
        get_strategy("magic")
    with pytest.raises(OmniError, match="cannot run 'magic' engines"):
        get_strategy("independent").plan(
            replace(request_, engine=replace(request_.engine, flavour="magic"))
        )


def test_deploying_what_is_shown_keeps_the_device(request_: PlanRequest) -> None:
    """With the settings that a plan chose, its device is still the best of those ticked."""
    small = replace(GPU, total_bytes=2 * GIB, free_bytes=GIB)
    unknown = DeviceFacts("Vulkan1", "vulkan")
    member = replace(request_.members["model"], devices=(small, unknown))
    asked = replace(
        request_,
        members={"model": member},
        host_devices=(small, unknown, HOST),
        settings={"context": 65536},
    )
    strategy = get_strategy("independent")
    shown = strategy.plan(asked)
    deployed = strategy.plan(
        replace(asked, settings={**asked.settings, **shown.settings})
    )
    assert deployed.instances[0].argv == shown.instances[0].argv
