"""What the first page draws: an answer, a layout or what runs now, on the devices it is for."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceUse
from deployments.services.plans import rig_facts
from deployments.services.stored_plans import plans_of
from deployments.services.tenancy import Occupied, held
from deployments.web.advice_board import NOW, AdviceBoard
from deployments.web.rig_drawing import DrawnDevice, drawn
from gpus.models import Device, Host


def drawing(board: AdviceBoard) -> list[DrawnDevice]:
    """What is picked on the devices that it is planned for; what is up on those that are here."""
    is_what_if = bool(board.advice and board.advice.is_what_if)
    if board.advice and board.picked != NOW:
        devices = board.advice.devices
        uses = _uses(board)
    else:
        devices = rig_facts(board.host, live=False)
        uses = {}
    if is_what_if and board.picked != NOW:
        return drawn(devices, _cards_named(board), uses, {})

    up = held(board.host)
    if board.picked == NOW:
        rows = [each.deployment for each in board.running]
        plans = plans_of(rows)
        uses = {r.name: plans[r.pk].devices for r in rows if r.pk in plans}
    return drawn(
        devices, _card_names(board.host), uses, _held_by_others(board.host, up)
    )


def _uses(board: AdviceBoard) -> dict[str, Sequence[DeviceUse]]:
    """By deployment, of the answer or the layout that is picked."""
    if row := board.picked_row:
        return {row.purpose.name: row.plan.devices}
    if answer := board.picked_answer:
        return {
            name: some[0].planned.plan.devices
            for name, some in answer.answer.deployed.items()
            if some[0].planned and some[0].planned.plan
        }
    return {}


def _cards_named(board: AdviceBoard) -> dict[str, str]:
    """Of a rig that is not here: devices come in the order in which its cards are named."""
    assert board.advice and board.question and board.question.rig
    names = [name for name in board.advice.devices if name != CPU]
    return {
        name: spec.card
        for name, spec in zip(names, board.question.rig.cards, strict=True)
    }


def _card_names(host: Host) -> dict[str, str]:
    rows = Device.objects.filter(host=host, is_present=True).select_related("gpu")
    return {row.name: _called(row) for row in rows}


def _called(device: Device) -> str:
    if device.is_stand_in:
        return "CPU-backed stand-in"
    if device.gpu:
        return device.gpu.name.removeprefix("NVIDIA ")
    if device.kind == Device.Kind.CPU:
        return "main memory"
    return device.description


def _held_by_others(host: Host, up: Occupied) -> dict[str, int]:
    """What programs that are none of Omni's hold of the cards, as far as sensors tell."""
    found = {}
    for name, device in rig_facts(host).items():
        if device.kind == Device.Kind.CPU or device.is_stand_in:
            continue
        if device.total_bytes is None or device.free_bytes is None:
            continue
        own = sum(tenant.needs.get(name, 0) for tenant in up.tenants)
        found[name] = max(0, device.total_bytes - device.free_bytes - own)
    return found
