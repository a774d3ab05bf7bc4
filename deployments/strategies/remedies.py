"""What does not fit: what is short where, and the smallest change with which it would fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from deployments.planning.memory.fit import (
    DEFAULT_MARGIN_BYTES,
    PLACEMENT_SETTINGS,
    Fit,
    first_fit,
    shared_bytes,
)
from deployments.planning.memory.kv_types import type_problem
from deployments.planning.memory.settings import split_text
from deployments.planning.memory.use import MemorySettings
from deployments.planning.plan import DeviceFacts, Member, Reason
from deployments.planning.settings import AUTO, SHARES, SMALLEST_CONTEXT
from deployments.strategies.base import DOES_NOT_FIT, Strategy, caution, error, info
from omni.units import bytes_text, gbps_text

# A context below this is proposed only where nothing else helps.
ENOUGH_CONTEXT = 2048
# A quantisation that leaves less than a third of a file's bytes is another model.
SMALLEST_PART = 2 / 3

Remedy = tuple[str, dict[str, int | str]]


@dataclass(frozen=True)
class Case:
    """What a remedy is looked for.

    `devices` has the host last; `may_offload`: layers may stay on the host; `spare` are the host's
    other accelerators; `short_by_bytes` is missing in all.
    """

    member: Member
    devices: Sequence[DeviceFacts]
    settings: MemorySettings
    fixed: frozenset[str]
    strategy: Strategy
    may_offload: bool
    spare: Sequence[DeviceFacts] = ()
    short_by_bytes: int = 0

    def fit(
        self,
        settings: MemorySettings,
        fixed: frozenset[str],
        devices: Sequence[DeviceFacts] | None = None,
    ) -> Fit | None:
        given = self.devices if devices is None else devices
        return first_fit(
            self.member.shape, given, settings, DEFAULT_MARGIN_BYTES, fixed
        )

    def fits(self, settings: MemorySettings, fixed: frozenset[str]) -> bool:
        return self.fit(settings, fixed) is not None

    def longest_context(self, settings: MemorySettings) -> int:
        """Tokens with everything else as it is, fewer than are asked for now; 0 when not even the
        fewest fit."""
        every = self.fixed | {"gpu_layers", "n_cpu_moe"}
        step = SMALLEST_CONTEXT * max(settings.parallel, 1)
        # Counted in steps, so that what lies in the middle is never one of the ends.
        low = 1
        high = -(-settings.context // step)
        if low >= high or not self.fits(replace(settings, context=step), every):
            return 0
        while high - low > max(1, low // 32):
            middle = (low + high) // 2
            fits = self.fits(replace(settings, context=middle * step), every)
            low, high = (middle, high) if fits else (low, middle)
        return low * step

    @cached_property
    def remedy(self) -> Remedy:
        """The smallest change with which it fits, as far as one can be found by calculation."""
        if other := self._other_shares():
            return other
        context = self.longest_context(self.settings)
        shorter: Remedy | None = (
            (f"A context of {context:,} tokens fits.", {"context": context})
            if context
            else None
        )
        return (
            (shorter if context >= ENOUGH_CONTEXT else None)
            or self._smaller_cache()
            or self._fewer_layers()
            or self._more_experts_on_host()
            or self._more_devices()
            or shorter
            or self._smaller_file()
        )

    def _other_shares(self) -> Remedy | None:
        if (
            SHARES not in self.fixed
            or self.settings.split_mode != "layer"
            or len(self.devices) < 3
        ):
            return None
        found = self.fit(self.settings, self.fixed - {SHARES})
        if not found or not found.tensor_split:
            return None
        split = split_text(found.tensor_split)
        return f"Shares of {split} fit.", {SHARES: split}

    def _smaller_cache(self) -> Remedy | None:
        settings = replace(self.settings, type_k="q8_0", type_v="q8_0")
        is_plain = {self.settings.type_k, self.settings.type_v} == {"f16"}
        if (
            not is_plain
            or type_problem(self.member.shape, settings)
            or not self.fits(settings, self.fixed | frozenset(PLACEMENT_SETTINGS))
        ):
            return None
        return "A KV cache of q8_0 fits.", {"kv_cache_k": "q8_0", "kv_cache_v": "q8_0"}

    def _fewer_layers(self) -> Remedy | None:
        offloaded = replace(self.settings, gpu_layers=None)
        if (
            self.may_offload
            and "gpu_layers" in self.fixed
            and self.fits(offloaded, self.fixed - {"gpu_layers"})
        ):
            return "Fewer layers on devices fit: let the planner choose.", {
                "gpu_layers": AUTO
            }
        return None

    def _more_experts_on_host(self) -> Remedy | None:
        may_lift = (
            self.may_offload
            and self.settings.split_mode == "layer"
            and len(self.devices) > 1
        )
        if (
            not self.member.shape.expert_bytes
            or not may_lift
            or "n_cpu_moe" not in self.fixed
        ):
            return None
        found = self.fit(
            replace(self.settings, gpu_layers=None, n_cpu_moe=0), frozenset()
        )
        if not found:
            return None
        text = f"Expert offload fits: the experts of {found.n_cpu_moe} layers in the host's memory."
        return text, {"n_cpu_moe": AUTO} if self.strategy.uses_host else {}

    def _more_devices(self) -> Remedy | None:
        """Layers over the host's other accelerators too."""
        cards = (*self.devices[:-1], *self.spare)
        if (
            not self.spare
            or self.settings.split_mode != "layer"
            or self.member.shape.is_folder
        ):
            return None
        every = (*cards, self.devices[-1])
        if not self.fit(self.settings, self.fixed - {SHARES}, every):
            return None
        return f"Layer split over {' and '.join(card.name for card in cards)} fits.", {}

    def _smaller_file(self) -> Remedy:
        size = self.member.shape.weights_bytes
        weights = self.member.facts.n_params
        left = size - self.short_by_bytes
        if not 0 < self.short_by_bytes < size * SMALLEST_PART or not weights:
            return (
                "Choose a smaller quantisation, a smaller model, or a device with more memory.",
                {},
            )
        text = (
            f"{bytes_text(self.short_by_bytes)} are missing in all: it fits as a file of about"
            f" {bytes_text(left)}, "
        )
        return text + f"which is {left * 8 / weights:.2g} bits per weight.", {}


def memory_reasons(case: Case, found: Fit) -> list[Reason]:
    """Whether it fits; of what does not, what is short where, and what would help."""
    reasons: list[Reason] = []
    for device, use in zip(case.devices, found.use.devices, strict=True):
        room = room_of(device)
        if room is None or use.resident_bytes <= room - (
            0 if device.kind == "cpu" else DEFAULT_MARGIN_BYTES
        ):
            continue
        fix, changes = case.remedy
        if use.resident_bytes > room:
            text = (
                f"{device.name} would have to hold {bytes_text(use.resident_bytes)} and has"
                f" {_room_text(device)}: "
            )
            text += f"{bytes_text(use.resident_bytes - room)} too little."
            reasons.append(error(DOES_NOT_FIT, text, fix, **changes))
        else:
            left = bytes_text(room - use.resident_bytes)
            text = (
                f"{device.name} would keep only {left} free, less than the"
                f" {bytes_text(DEFAULT_MARGIN_BYTES)} "
            )
            text += "that drivers and other programs should be left."
            reasons.append(caution("tight_fit", text, fix, **changes))
    if not reasons:
        reasons += _too_much_together(case, found)
    if not reasons and len(case.devices) > 1:
        reasons += _left_on_host(case)
    return reasons


def _too_much_together(case: Case, found: Fit) -> list[Reason]:
    """Of devices that have no memory but the host's: each may find room, and all together none."""
    sharing = [device.name for device in case.devices if device.shares_ram]
    room = room_of(case.devices[-1])
    if not sharing or room is None:
        return []
    held = shared_bytes(case.devices[:-1], found.use) + found.use.host.resident_bytes
    if held <= room:
        return []
    fix, changes = case.remedy
    text = (
        f"{' and '.join(sharing)} and the host share main memory: together they would have"
        f" to hold {bytes_text(held)} and have {_room_text(case.devices[-1])}:"
        f" {bytes_text(held - room)} too little."
    )
    return [error(DOES_NOT_FIT, text, fix, **changes)]


def room_of(device: DeviceFacts) -> int | None:
    if device.free_bytes is None:
        return device.total_bytes
    return device.free_bytes


def _room_text(device: DeviceFacts) -> str:
    if device.free_bytes is None or device.free_bytes == device.total_bytes:
        return f"{bytes_text(device.total_bytes)}"
    return f"{bytes_text(device.free_bytes)} free of {bytes_text(device.total_bytes)}"


def _left_on_host(case: Case) -> list[Reason]:
    whole = case.member.shape.n_layer + 1
    host = case.devices[-1]
    settings = case.settings
    if settings.gpu_layers is None or settings.gpu_layers >= whole:
        return []
    names = " and ".join(d.name for d in case.devices[:-1])
    text = (
        f"{settings.gpu_layers} of {whole} layers go on {names}; the rest stays in the host's"
        " memory"
    )
    text += (
        f", which is read at {gbps_text(host.bandwidth_gbps)}."
        if host.bandwidth_gbps
        else "."
    )
    if "gpu_layers" in case.fixed:
        return [info("layers_on_host", text)]
    context = case.longest_context(replace(settings, gpu_layers=None))
    if context:
        return [
            caution(
                "layers_on_host",
                text,
                f"With {context:,} tokens of context all fit.",
                context=context,
            )
        ]
    fix = "A smaller quantisation or another device would be faster."
    if case.member.shape.expert_bytes and not case.strategy.uses_host:
        fix = "Expert offload keeps every layer's attention on the device, which is faster."
    return [caution("layers_on_host", text, fix)]
