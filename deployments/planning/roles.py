"""Who plays which role where, when a person has chosen models and devices and no roles yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.planning.plan import DeviceFacts
from omni.errors import OmniError

MAIN = "main"
DRAFT = "draft"
# Its model has no devices of its own: it goes where the engine computes the model it belongs to.
PROJECTOR = "projector"


@dataclass(frozen=True)
class RoleMember:
    """`source` says which of the chosen models it is: MAIN or DRAFT."""

    source: str
    devices: tuple[str, ...]


def source_of(role: str) -> str:
    """Which of the chosen models plays a role: MAIN or DRAFT."""
    if role == "draft":
        return DRAFT
    return MAIN


def assign(
    roles: Sequence[str],
    devices: Sequence[DeviceFacts],
    *,
    has_draft: bool = False,
    draft_device: str = "",
) -> Mapping[str, RoleMember]:
    """Role → model and devices.

    Raises OmniError (needs_device, needs_two_devices) that says what to choose.
    """
    if not devices:
        raise OmniError(
            "needs_device",
            "No device is chosen.",
            "Choose at least one; CPU is one too.",
        )
    names = tuple(device.name for device in devices)
    if set(roles) == {"target", "draft"}:
        if not has_draft:
            # Drafting by n-grams or by layers of the model itself needs no second model.
            return {"target": RoleMember(MAIN, names)}
        target, draft = _beside(names, draft_device or smallest(devices).name)
        return {"target": RoleMember(MAIN, target), "draft": RoleMember(DRAFT, draft)}
    if set(roles) == {"prefill", "decode"}:
        if len(devices) < 2:
            text = "Reading prompts on one device and answering on another needs two devices."
            raise OmniError("needs_two_devices", text, "Choose a second device.")
        decode, prefill = _beside(names, fastest(devices).name)
        return {
            "prefill": RoleMember(MAIN, prefill),
            "decode": RoleMember(MAIN, decode),
        }
    return {role: RoleMember(MAIN, names) for role in roles}


def smallest(devices: Sequence[DeviceFacts]) -> DeviceFacts:
    """Where a draft model goes: the accelerator with the least memory, the CPU only beside a single
    one."""
    cards = [device for device in devices if device.kind != "cpu"]
    if len(cards) == 1 and len(devices) > 1:
        return next(device for device in devices if device.kind == "cpu")
    # Of equals the last: the panel lists the one to prefer first.
    return min(reversed(cards or devices), key=lambda device: device.total_bytes or 0)


def fastest(devices: Sequence[DeviceFacts]) -> DeviceFacts:
    """Where prompts are read: the most arithmetic where it is known of all, else the most
    memory."""
    cards = [device for device in devices if device.kind != "cpu"] or list(devices)
    if all(device.tflops for device in cards):
        return max(cards, key=lambda device: device.tflops or 0)
    return max(cards, key=lambda device: device.total_bytes or 0)


def _beside(
    names: tuple[str, ...], one: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The others, and the one; a single device is both."""
    others = tuple(name for name in names if name != one)
    return others or names, (one,)
