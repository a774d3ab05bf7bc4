"""Which chosen model and which chosen devices each role gets."""

from __future__ import annotations

import pytest

from deployments.planning.plan import DeviceFacts
from deployments.planning.roles import assign, fastest, smallest
from omni.errors import OmniError

GIB = 1 << 30
KNOWN = {
    "PRO": DeviceFacts("PRO", "cuda", 96 * GIB),
    "5090": DeviceFacts("5090", "cuda", 32 * GIB),
    "RPC0": DeviceFacts("RPC0", "rpc", 24 * GIB, is_stand_in=True),
    "RPC1": DeviceFacts("RPC1", "rpc", 24 * GIB, is_stand_in=True),
    "?": DeviceFacts("?", "vulkan"),
    "CPU": DeviceFacts("CPU", "cpu", 512 * GIB),
}
ONE, DRAFTING, APART = ("model",), ("target", "draft"), ("prefill", "decode")


def devices(names: str) -> list[DeviceFacts]:
    return [KNOWN[name] for name in names.split()]


@pytest.mark.parametrize(
    ("roles", "chosen", "has_draft", "draft_device", "wanted"),
    [
        (ONE, "PRO", False, "", "model=main:PRO"),
        (ONE, "PRO 5090 CPU", False, "", "model=main:PRO,5090,CPU"),
        (ONE, "PRO 5090", True, "5090", "model=main:PRO,5090"),
        # The draft on the smallest card, the target on all others.
        (DRAFTING, "PRO 5090", True, "", "target=main:PRO draft=draft:5090"),
        (DRAFTING, "5090 PRO", True, "", "target=main:PRO draft=draft:5090"),
        (DRAFTING, "PRO 5090", True, "PRO", "target=main:5090 draft=draft:PRO"),
        (DRAFTING, "PRO 5090 RPC0", True, "", "target=main:PRO,5090 draft=draft:RPC0"),
        (DRAFTING, "RPC0 RPC1", True, "", "target=main:RPC0 draft=draft:RPC1"),
        (DRAFTING, "PRO 5090 CPU", True, "", "target=main:PRO,CPU draft=draft:5090"),
        (DRAFTING, "PRO CPU", True, "", "target=main:PRO draft=draft:CPU"),
        (DRAFTING, "PRO", True, "", "target=main:PRO draft=draft:PRO"),
        (DRAFTING, "PRO ?", True, "", "target=main:PRO draft=draft:?"),
        # Without a draft model the strategy may draft by itself.
        (DRAFTING, "PRO 5090", False, "", "target=main:PRO,5090"),
        (DRAFTING, "PRO 5090", False, "PRO", "target=main:PRO,5090"),
        (APART, "PRO 5090", False, "", "prefill=main:PRO decode=main:5090"),
        (APART, "5090 PRO CPU", False, "", "prefill=main:PRO decode=main:5090,CPU"),
        (APART, "RPC0 RPC1", True, "RPC0", "prefill=main:RPC0 decode=main:RPC1"),
        (APART, "PRO CPU", False, "", "prefill=main:PRO decode=main:CPU"),
    ],
)
def test_roles_get_models_and_devices(
    roles: tuple[str, ...], chosen: str, has_draft: bool, draft_device: str, wanted: str
) -> None:
    parts = assign(
        roles, devices(chosen), has_draft=has_draft, draft_device=draft_device
    )
    assert (
        " ".join(
            f"{role}={part.source}:{','.join(part.devices)}"
            for role, part in parts.items()
        )
        == wanted
    )


@pytest.mark.parametrize(
    ("roles", "chosen", "code"),
    [
        (ONE, "", "needs_device"),
        (DRAFTING, "", "needs_device"),
        (APART, "PRO", "needs_two_devices"),
    ],
)
def test_what_is_missing_is_said(
    roles: tuple[str, ...], chosen: str, code: str
) -> None:
    with pytest.raises(OmniError) as refused:
        assign(roles, devices(chosen))
    assert refused.value.code == code and "hoose" in refused.value.fix


def test_arithmetic_decides_where_it_is_known_of_all() -> None:
    quick, large = (
        DeviceFacts("A", "cuda", 32 * GIB, tflops=200),
        DeviceFacts("B", "cuda", 96 * GIB, tflops=120),
    )
    assert fastest([large, quick]).name == "A"
    assert fastest([DeviceFacts("B", "cuda", 96 * GIB), quick]).name == "B"
    assert smallest([quick, large]).name == "A"
