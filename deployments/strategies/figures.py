"""What is told of a model that was placed: figures, and what each device holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployments.planning.plan import (
    DeviceFacts,
    DeviceUse,
    Figure,
)
from deployments.strategies.placed_model import PlacedModel
from omni.units import bytes_text


def device_uses(
    placed_: PlacedModel, reserved: Sequence[DeviceUse] = ()
) -> tuple[DeviceUse, ...]:
    """Its own uses with what others hold there.

    The host only where it holds something worth showing.
    """
    facts = {d.name: d for d in (*placed_.member.devices, placed_.host)}
    return tuple(
        replace(use, held_bytes=_held(facts[use.name]))
        for use in placed_.use.devices
        if use.name != placed_.host.name or use.needed_bytes or not placed_.cards
    )


def _held(device: DeviceFacts) -> int:
    if device.total_bytes is None or device.free_bytes is None:
        return 0
    return max(device.total_bytes - device.free_bytes, 0)


def host_weights_figure(placed_: PlacedModel) -> Figure | None:
    """Of the weights in the host's memory: what is the mapped file, what a rearranged copy, what is
    locked."""
    use = placed_.use
    plain = use.host.weights_bytes - use.repacked_bytes
    if plain:
        parts = [
            f"{bytes_text(plain)}"
            f" {'mapped from the file' if use.mapped_bytes else 'read from the file'}"
        ]
    else:
        parts = []
    parts += (
        [f"{bytes_text(use.repacked_bytes)} rearranged for the processor"]
        if use.repacked_bytes
        else []
    )
    parts += [f"{bytes_text(use.locked_bytes)} locked"] if use.locked_bytes else []
    if parts:
        return Figure("host_weights", "Weights in RAM", ", ".join(parts))
    return None


def context_figure(placed_: PlacedModel) -> Figure:
    each = placed_.settings.context
    if placed_.settings.parallel > 1 and not placed_.settings.kv_unified:
        return Figure(
            "context",
            "Context",
            f"{each // placed_.settings.parallel:,} tokens × {placed_.settings.parallel}",
        )
    return Figure("context", "Context", f"{each:,} tokens")
