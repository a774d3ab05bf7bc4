"""The best placement of a model on devices for the memory they have left.

Layers go to the devices in the engine's order, each device gets one stretch of them; `tensor_split`
is a short ratio with which the engine cuts there or a layer beside it (shares.py, placement.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any

from deployments.planning.architecture import ModelShape
from deployments.planning.kv import CELL_PADDING
from deployments.planning.memory.kv_use import offloaded_layer_bytes
from deployments.planning.memory.shares import (
    near_ratio,
    shortest_cut,
    small_ratio,
)
from deployments.planning.memory.use import (
    MemorySettings,
    MemoryUse,
    memory_use,
    without_compute,
    working_devices,
)
from deployments.planning.plan import DeviceFacts
from deployments.planning.settings import SHARES

# What the engine's own --fit leaves free on each device (common/common.h, fit_params_target).
DEFAULT_MARGIN_BYTES = 1024 << 20
_ROUNDS = 5
# Settings that say what goes where; the planner chooses those that are not fixed.
PLACEMENT_SETTINGS = ("gpu_layers", SHARES, "n_cpu_moe")


@dataclass(frozen=True)
class Fit:
    """gpu_layers None is all of them, the output included.

    `use` is with these settings; when it does not fit, `short_by_bytes` is what is missing on all
    devices and the host together. max_context 0: not looked for, or it does not fit.
    """

    gpu_layers: int | None
    tensor_split: tuple[float, ...] | None
    n_cpu_moe: int
    use: MemoryUse
    fits: bool
    short_by_bytes: int
    max_context: int

    def applied(self, settings: MemorySettings) -> MemorySettings:
        return replace(
            settings,
            gpu_layers=self.gpu_layers,
            tensor_split=self.tensor_split,
            n_cpu_moe=self.n_cpu_moe,
        )


def best_fit(
    model: ModelShape,
    devices: Sequence[DeviceFacts],
    settings: MemorySettings,
    margin_bytes: int = DEFAULT_MARGIN_BYTES,
    fixed: frozenset[str] = frozenset(),
    *,
    find_context: bool = True,
) -> Fit:
    """All layers on devices if they fit; else experts of the first layers go to the host, as few as
    possible; else whole layers do.

    `fixed` names settings (of PLACEMENT_SETTINGS) that stay as they are. A device whose memory is
    unknown takes everything. `find_context` looks for the longest context too, which takes most of
    the time.
    """
    search = _search(model, tuple(devices), settings, margin_bytes, fixed, find_context)
    return search.fit or search.nearest


def first_fit(
    model: ModelShape,
    devices: Sequence[DeviceFacts],
    settings: MemorySettings,
    margin_bytes: int = DEFAULT_MARGIN_BYTES,
    fixed: frozenset[str] = frozenset(),
) -> Fit | None:
    """The same, and None where nothing fits: what comes nearest is not looked for then."""
    return _search(model, tuple(devices), settings, margin_bytes, fixed, False).fit


def shared_bytes(devices: Sequence[DeviceFacts], use: MemoryUse) -> int:
    """What devices without memory of their own hold in the host's."""
    columns = zip(devices, use.devices[: len(devices)], strict=True)
    return sum(planned.needed_bytes for device, planned in columns if device.shares_ram)


@dataclass
class _Search:
    model: ModelShape
    devices: tuple[DeviceFacts, ...]
    settings: MemorySettings
    margin_bytes: int
    fixed: frozenset[str]
    find_context: bool

    def __post_init__(self) -> None:
        # What fits on the devices and leaves the host with too much: the nearest to a fit there is.
        self.near: list[MemorySettings] = []
        self.working = working_devices(self.devices, self.settings)
        self.room = [self._room(device) for device in self.working]

    @cached_property
    def fit(self) -> Fit | None:
        for candidate in self.candidates():
            use = memory_use(self.model, self.devices, candidate)
            if self.short_by(use) == 0:
                return self.result(candidate, use, fits=True)
        return None

    @cached_property
    def nearest(self) -> Fit:
        """Where nothing fits; asked for after `fit`."""
        candidate = self.last_resort()
        use = memory_use(self.model, self.devices, candidate)
        return self.result(candidate, use, fits=False)

    def _room(self, device: DeviceFacts) -> int | None:
        if device.free_bytes is None:
            free = device.total_bytes
        else:
            free = device.free_bytes
        if free is None:
            return None
        return max(free - self.margin_bytes, 0)

    def short_by(self, use: MemoryUse) -> int:
        """Bytes that are missing, of all places together, compute buffers included.

        Of the host's mapped file the parts between its tensors can be dropped; what is computed
        with has to stay in memory.
        """
        host_room = self._room(self._host())
        # What devices without memory of their own hold lies there as well.
        in_ram = use.host.resident_bytes + shared_bytes(self.working, use)
        return self._short_on_devices(use) + (
            max(in_ram - host_room, 0) if host_room is not None else 0
        )

    def _short_on_devices(self, use: MemoryUse, compute: Sequence[int] = ()) -> int:
        """Bytes; `compute` is given beside what the use has of it."""
        more = compute or repeat(0)
        return sum(
            max(planned.needed_bytes + size - room, 0)
            for room, planned, size in zip(self.room, use.devices, more, strict=False)
            if room is not None
        )

    def _host(self) -> DeviceFacts:
        return next(
            (device for device in self.devices if device.kind == "cpu"),
            DeviceFacts("CPU"),
        )

    def candidates(self) -> Iterator[MemorySettings]:
        """Settings to try, best first.

        More experts or layers on the host always take less on devices, so the best number of each
        is found by halving.
        """
        whole = self._fitted(self.settings)
        if whole:
            yield whole
        if not self.working:
            return
        settings = self.settings
        if self.model.expert_bytes and "n_cpu_moe" not in self.fixed:
            yield from self._first(
                settings, range(1, self.model.n_layer + 1), "n_cpu_moe"
            )
            settings = replace(settings, n_cpu_moe=self.model.n_layer)
        # Engines that load folders leave no layer on the host.
        if "gpu_layers" not in self.fixed and not self.model.is_folder:
            yield from self._first(
                settings, range(self.model.n_layer, -1, -1), "gpu_layers"
            )

    def _first(
        self, settings: MemorySettings, numbers: range, name: str
    ) -> Iterator[MemorySettings]:
        """Halves with the compute buffers of the middle, which hardly change, then checks what it
        found.

        Only the devices decide: what the host is to hold grows from number to number.
        """
        changes: list[dict[str, Any]] = [{name: number} for number in numbers]
        tried = [replace(settings, **change) for change in changes]
        if self._is_too_much(tried[-1]):
            return
        compute = self._compute_of(tried[len(tried) // 2])
        low = 0
        high = len(tried)
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (low, middle)
                if self._fitted(tried[middle], compute)
                else (middle + 1, high)
            )
        for candidate in tried[low : low + _ROUNDS]:
            best = self._fitted(candidate)
            if best:
                yield best
                self.near.append(best)
                return

    def _fitted(
        self, settings: MemorySettings, compute: list[int] | None = None
    ) -> MemorySettings | None:
        """The settings, with a tensor split with which they fit on the devices; None when they do
        not."""
        if self._is_cut(settings):
            return self._cut(settings, compute)
        if self._fits(settings, compute):
            return settings
        return None

    def _fits_everywhere(
        self, settings: MemorySettings, compute: list[int] | None = None
    ) -> bool:
        """On the devices and on the host."""
        found = self._fitted(settings, compute)
        return (
            found is not None
            and self.short_by(memory_use(self.model, self.devices, found, compute)) == 0
        )

    def _is_cut(self, settings: MemorySettings) -> bool:
        if settings.gpu_layers == 0:
            return False  # nothing goes on devices: there is nothing to cut
        known = any(room is not None for room in self.room)
        return (
            len(self.working) > 1
            and settings.split_mode == "layer"
            and known
            and SHARES not in self.fixed
        )

    def _fits(self, settings: MemorySettings, compute: list[int] | None = None) -> bool:
        rest = without_compute(self.model, self.devices, settings)
        if self._short_on_devices(rest):
            return False
        return not self._short_on_devices(rest, compute or self._compute_of(settings))

    def _is_too_much(self, settings: MemorySettings) -> bool:
        """Even without compute buffers, however it is cut."""
        if self._is_cut(settings):
            costs = offloaded_layer_bytes(self.model, settings)
            return self._counts(costs, settings, [0] * len(self.working)) is None
        rest = without_compute(self.model, self.devices, settings)
        return self._short_on_devices(rest) > 0

    def _cut(
        self, settings: MemorySettings, compute: list[int] | None
    ) -> MemorySettings | None:
        """Cuts by an estimate of what each device needs beside its layers, then by what it needed
        for that cut."""
        costs = offloaded_layer_bytes(self.model, settings)
        candidate = replace(settings, tensor_split=(1.0,) * len(self.working))
        # What is not to be cut with more room is not to be cut with less.
        if self._is_too_much(candidate):
            return None
        for _ in range(3):
            beside = compute or self._compute_of(candidate)
            counts = self._counts(costs, candidate, beside)
            if counts is None:
                return None
            exact = shortest_cut(self.model.n_layer, settings.gpu_layers, tuple(counts))
            # A layer more or less is worth a ratio that people would write.
            for shares in dict.fromkeys((near_ratio(exact), exact)):
                candidate = replace(settings, tensor_split=shares)
                if self._fits(candidate, compute):
                    return candidate
        return None

    def _counts(
        self, costs: Sequence[int], candidate: MemorySettings, compute: Sequence[int]
    ) -> list[int] | None:
        """Layers of each device, for what it needs beside them; None where they do not fit."""
        rest = without_compute(self.model, self.devices, candidate)
        rooms = [
            None if room is None else room - size - planned.other_bytes
            for room, planned, size in zip(
                self.room, rest.devices, compute, strict=False
            )
        ]
        speeds = [device.bandwidth_gbps or 1.0 for device in self.working]
        return stretches(costs, rooms, speeds)

    def last_resort(self) -> MemorySettings:
        """Nothing fits: what lacks the least, of what is asked for, spread by memory, and what only
        the host lacks."""
        asked = self.settings
        if len(self.working) > 1 and SHARES not in self.fixed and asked.gpu_layers != 0:
            asked = replace(asked, tensor_split=small_ratio(self.room))
        tried = [asked, *self.near]
        return min(
            tried,
            key=lambda settings: self.short_by(
                memory_use(self.model, self.devices, settings)
            ),
        )

    def result(self, chosen: MemorySettings, use: MemoryUse, *, fits: bool) -> Fit:
        short = self.short_by(use)
        if fits and self.find_context:
            longest = self._longest_context(chosen)
        else:
            longest = 0
        return Fit(
            chosen.gpu_layers,
            chosen.tensor_split,
            chosen.n_cpu_moe,
            use,
            fits,
            short,
            longest,
        )

    def _longest_context(self, chosen: MemorySettings) -> int:
        """The most tokens that fit with as many layers on devices, at most what the model was
        trained for.

        Compute buffers grow in a straight line with the context: measured at both ends, checked at
        the result.
        """
        step = CELL_PADDING * (1 if chosen.kv_unified else max(chosen.parallel, 1))
        low = chosen.context // step
        high = self.model.n_ctx_train * max(chosen.parallel, 1) // step
        if high <= low:
            return chosen.context
        ends = [
            (number * step, self._compute_of(replace(chosen, context=number * step)))
            for number in (low, high)
        ]
        first = low
        while low < high:
            middle = (low + high + 1) // 2
            candidate = replace(chosen, context=middle * step)
            fits = self._fits_everywhere(candidate, _between(ends, middle * step))
            low, high = (middle, high) if fits else (low, middle - 1)
        return max(self._checked(chosen, first, low, step), chosen.context)

    def _checked(self, chosen: MemorySettings, low: int, high: int, step: int) -> int:
        """`high` steps of context if they really fit, else what is found by halving a few times."""
        if self._fits_everywhere(replace(chosen, context=high * step)):
            return high * step
        for _ in range(_ROUNDS):
            middle = (low + high) // 2
            fits = self._fits_everywhere(replace(chosen, context=middle * step))
            low, high = (middle, high) if fits else (low, middle)
        return low * step

    def _compute_of(self, settings: MemorySettings) -> list[int]:
        return [
            planned.compute_bytes
            for planned in memory_use(self.model, self.devices, settings).devices
        ]


# Remedies and the strategies of one page ask for the same fits again and again.
_search = lru_cache(maxsize=256)(_Search)


def _between(ends: Sequence[tuple[int, list[int]]], context: int) -> list[int]:
    (start, low), (end, high) = ends
    share = (context - start) / (end - start)
    return [
        round(one + (other - one) * share) for one, other in zip(low, high, strict=True)
    ]


def stretches(
    costs: Sequence[int], rooms: Sequence[int | None], speeds: Sequence[float]
) -> list[int] | None:
    """How many layers each device gets, in order; None when they do not fit.

    The fastest devices are filled first, equally fast ones in proportion to their room; each gets
    one layer at least, as far as there are layers. A room of None is endless.
    """
    total = sum(costs)
    capacities = [total if room is None else max(room, 0) for room in rooms]
    for targets in (
        _targets(total, capacities, speeds),
        [float(capacity) for capacity in capacities],
    ):
        counts = _walk(costs, capacities, targets)
        if counts:
            return counts
    return None


def _targets(
    total: float, capacities: Sequence[int], speeds: Sequence[float]
) -> list[float]:
    """Bytes each device is to hold."""
    targets = [0.0] * len(capacities)
    left = total
    for speed in sorted(set(speeds), reverse=True):
        group = [index for index, own in enumerate(speeds) if own == speed]
        room = sum(capacities[index] for index in group) or 1
        for index in group:
            targets[index] = capacities[index] * min(left / room, 1.0)
        left -= min(left, room)
    return targets


def _walk(
    costs: Sequence[int], capacities: Sequence[int], targets: Sequence[float]
) -> list[int] | None:
    counts = []
    layer = 0
    for index, (capacity, target) in enumerate(zip(capacities, targets, strict=True)):
        later = len(capacities) - index - 1
        held = 0
        count = 0
        while layer < len(costs) - later or (count == 0 and layer < len(costs)):
            cost = costs[layer]
            is_enough = later and count and held + cost / 2 > target
            if held + cost > capacity or is_enough:
                break
            held = held + cost
            count = count + 1
            layer = layer + 1
        counts.append(count)
    if layer == len(costs):
        return counts
    return None
