"""The independent strategy: one model, one process, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.model_facts import ModelFacts
from deployments.planning.plan import DeviceFacts, EngineFacts, Member, PlanRequest, Verdict
from deployments.strategies import get_strategy
from omni.errors import OmniError

GIB = 1 << 30
FACTS = ModelFacts(
    name="M", arch="llama", n_params=10**9, n_params_active=10**9, quant="Q8_0", size_bytes=GIB, n_layer=16,
    n_ctx_train=4096, n_embd=2048, n_ff=8192, n_head=(32,) * 16, n_head_kv=(8,) * 16, head_dim_k=64, head_dim_v=64,
    quant_bytes={"Q8_0": GIB},
)  # fmt: skip
GPU = DeviceFacts("CUDA0", "cuda", total_bytes=8 * GIB, gpu_uuid="GPU-0")


@pytest.fixture
def request_(real_flags: frozenset[str]) -> PlanRequest:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", real_flags)
    member = Member("m", "/m.gguf", FACTS, (GPU,))
    return PlanRequest("independent", engine, {"model": member}, alias="m", host_devices=(GPU,), api_key_file="/k")


def on(request: PlanRequest, device: DeviceFacts, **settings: object) -> PlanRequest:
    member = replace(request.members["model"], devices=(device,))
    return replace(request, members={"model": member}, settings=settings)


def test_a_plan_has_one_process_and_says_what_it_loads(request_: PlanRequest) -> None:
    plan = get_strategy("independent").plan(request_)
    (instance,) = plan.instances
    assert (plan.verdict, plan.reasons) == (Verdict.VIABLE, ())
    assert (instance.role, instance.devices, instance.file_bytes) == ("model", ("CUDA0",), GIB)
    assert instance.argv[instance.argv.index("-c") + 1] == "4096"


def test_the_same_request_gives_the_same_plan(request_: PlanRequest) -> None:
    strategy = get_strategy("independent")
    assert strategy.plan(request_) == strategy.plan(request_)


@pytest.mark.parametrize(
    ("memory_gib", "context", "verdict", "codes"),
    [
        (8, 4096, Verdict.VIABLE, []),
        (8, 8192, Verdict.CAUTION, ["context_beyond_training"]),
        (1.25, 4096, Verdict.CAUTION, ["tight_fit"]),
        (1, 4096, Verdict.NOT_VIABLE, ["does_not_fit"]),
        (1, 8192, Verdict.NOT_VIABLE, ["context_beyond_training", "does_not_fit"]),
        (None, 4096, Verdict.VIABLE, []),
    ],
)
def test_the_verdict_is_the_worst_of_its_reasons(
    request_: PlanRequest, memory_gib: float | None, context: int, verdict: Verdict, codes: list[str]
) -> None:
    device = replace(GPU, total_bytes=memory_gib and int(memory_gib * GIB))
    plan = get_strategy("independent").plan(on(request_, device, context=context))
    assert [reason.code for reason in plan.reasons] == codes
    assert plan.verdict == verdict
    assert all(reason.fix for reason in plan.reasons)
    assert plan.instances, "what does not fit is a verdict; its command is still shown"


def test_roles_and_devices_must_be_given(request_: PlanRequest) -> None:
    strategy = get_strategy("independent")
    member = request_.members["model"]
    with pytest.raises(OmniError, match="has the roles model; given: target"):
        strategy.plan(replace(request_, members={"target": member}))
    with pytest.raises(OmniError, match="has no device"):
        strategy.plan(replace(request_, members={"model": replace(member, devices=())}))


def test_a_strategy_or_engine_that_is_not_there_is_named(request_: PlanRequest) -> None:
    with pytest.raises(OmniError, match="no strategy 'magic'.*independent"):
        get_strategy("magic")
    with pytest.raises(OmniError, match="cannot run 'vllm' engines"):
        get_strategy("independent").plan(replace(request_, engine=replace(request_.engine, flavour="vllm")))
