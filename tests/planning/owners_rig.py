"""The rig Omni is for, as planning sees it, and requests on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from deployments.strategies import get_strategy

GB = 10**9
MIB = 1 << 20
# Data sheets: GDDR7 at 28 Gbit/s × 512 bits; FP32 at boost clock; PCIe 5.0 and 4.0 × 16. RAM as the
# owner measured it.
RTX_PRO_6000 = DeviceFacts(
    "CUDA0",
    "cuda",
    97887 * MIB,
    gpu_uuid="GPU-pro",
    bandwidth_gbps=1792,
    link_gbps=63.0,
    tflops=125,
)
RTX_5090 = DeviceFacts(
    "CUDA1",
    "cuda",
    32607 * MIB,
    gpu_uuid="GPU-5090",
    bandwidth_gbps=1792,
    link_gbps=31.5,
    tflops=104.8,
)
CPU = DeviceFacts("CPU", "cpu", 384 << 30, None, bandwidth_gbps=236, tflops=32 * 0.055)
OWNERS_RIG = (RTX_PRO_6000, RTX_5090, CPU)


def member(path: Path, *devices: DeviceFacts) -> Member:
    header = read_header(path)
    return Member(path.stem, str(path), facts(header), model_shape(header), devices)


def plan(
    strategy: str,
    members: Mapping[str, Member],
    flags: frozenset[str],
    rig: Sequence[DeviceFacts] = OWNERS_RIG,
    flavour: str = "llama.cpp",
    **settings: object,
) -> Plan:
    engine = EngineFacts(flavour, flavour, "/bin/llama-server", flags)
    request = PlanRequest(
        strategy,
        engine,
        members,
        settings,
        alias="m",
        host_devices=tuple(rig),
        api_key_file="/k",
        slots_folder="/s",
    )
    return get_strategy(strategy).plan(request)


def codes(plan_: Plan) -> list[str]:
    return [reason.code for reason in plan_.reasons]


def reason(plan_: Plan, code: str) -> str:
    return next(r.text for r in plan_.reasons if r.code == code)
