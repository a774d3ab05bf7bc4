"""Tokens per second, from what each token makes a device read and compute.

Decoding reads every active weight and the keys and values of all earlier tokens once per token (the
roofline of memory bandwidth; Pope et al. 2022, arXiv 2211.05102, section 2.1), prefill is bound by
arithmetic: 2 operations per weight and token, and per head and earlier token. Places work one after
another, except under tensor split.

The shares of the peak that the engine reaches on cards are fitted to its own published runs, those
of tests/planning/published_speeds.py that are not held out; benchmarks/published_speeds.py prints
both. Those of processors are from runs of the packaged engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from deployments.planning.architecture import ModelShape
from deployments.planning.corrections import Alike, Correction
from deployments.planning.memory.placement import Placement
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.plan import DeviceFacts, Predicted
from deployments.planning.work import (
    Work,
    expert_share,
    part_of,
    works,
)
from omni.units import gbps_text

# A conversation of ordinary length, which predictions are made for unless they say otherwise.
TYPICAL_DEPTH = 1024
TYPICAL_PROMPT = 2048


@dataclass(frozen=True)
class Efficiency:
    """(low, likely, high) share of the peak; seconds spent per layer and per hand-over between
    places."""

    memory: tuple[float, float, float]
    compute: tuple[float, float, float]
    layer_s: float
    hop_s: float
    # One synchronisation of a tensor split.
    sync_s: float
    # More per layer with experts: the router, and kernels that pick rows.
    experts_s: float = 0.0
    # Of the tokens that an expert gets in a batch, those in tiles that it does not fill: computed
    # for nothing.
    idle_tokens: float = 0.0


_PROCESSOR = Efficiency((0.45, 0.85, 1.0), (0.4, 1.0, 1.5), 10e-6, 2e-6, 0.7e-3)
# GDDR: weights of 32 B and 70 B are read at 0.79 to 0.81 of the bandwidth from an RTX A6000 to an
# RTX PRO 6000; what smaller models lack is the time of launches.
_CARD = Efficiency(
    (0.55, 0.8, 0.92),
    (0.5, 1.8, 2.4),
    25e-6,
    20e-6,
    25e-6,
    experts_s=30e-6,
    idle_tokens=150,
)
# An A100 and an H100 have two to four times the bandwidth per multiprocessor of those: taking 4-bit
# weights apart keeps the engine from using it.
_HBM_CARD = replace(_CARD, memory=(0.4, 0.56, 0.8))
# One budget of power for card and processors: GB10 reaches 1.1 times its single-precision peak,
# where an RTX 5090 of the same kind of cores reaches 1.8.
_SHARED_CARD = replace(_CARD, compute=(0.5, 1.1, 1.8))
# Without CUDA's matrix kernels: an RX 9070 XT 1.4, a Radeon 8060S 0.4 to 0.6, an RX 7900 XTX less.
_VULKAN = replace(_CARD, compute=(0.2, 1.3, 1.8), experts_s=40e-6)
_SHARED_VULKAN = replace(_VULKAN, compute=(0.2, 0.5, 0.9))
# Launches and hand-overs take this many times what is likely.
_FIXED_COSTS = (1.5, 1.0, 0.7)
# ggml-cuda, mul_mat_vec: up to so many tokens each weight is read once and nothing is laid out in
# tiles.
_UNTILED_BATCH = 8
_LEAST_FILLED = 0.2
# Share of the link that a copy of mapped weights gets. Nobody has measured it on this rig: pages
# that are not pinned go over a buffer of the driver's.
LINK_SHARE = (0.25, 0.6, 0.9)
EFFICIENCY = {
    "cpu": _PROCESSOR,
    "cuda": _CARD,
    "cuda HBM": _HBM_CARD,
    "cuda LPDDR": _SHARED_CARD,
    "vulkan": _VULKAN,
    "vulkan LPDDR": _SHARED_VULKAN,
    "rpc": replace(_PROCESSOR, hop_s=0.4e-3),
}
# Single-precision operations a core does in the engine's kernels: 601 tokens of a 135 M model in
# 1.4 s on 2.
CORE_TFLOPS = 0.055
# ggml_backend_cuda_device_offload_op: from this many tokens on weights of the host are copied to
# the card.
OFFLOADED_BATCH = 32


# HBM2e, HBM3 and LPDDR5X differ in bandwidth, not in what keeps an engine from it.
_NEWER = re.compile(r"\d.*")


def efficiency(device: DeviceFacts) -> Efficiency:
    """By the kind of device and of its memory; cards that say nothing else have GDDR."""
    own = f"{device.kind} {_NEWER.sub('', device.memory_kind)}"
    return EFFICIENCY.get(own, EFFICIENCY.get(device.kind, _CARD))


@dataclass(frozen=True)
class SpeedModel:
    """A model at its places.

    `shares` is given under tensor split: the part of each layer that each device does.
    """

    model: ModelShape
    devices: tuple[DeviceFacts, ...]
    host: DeviceFacts
    placement: Placement
    settings: MemorySettings
    shares: tuple[float, ...] = ()

    def step_s(self, tokens: int, depth: int, level: int = 1) -> float | None:
        """Seconds of one pass over `tokens` tokens after `depth` earlier ones; level 0 slow, 1
        likely, 2 fast.

        None where a device's bandwidth is not known.
        """
        places = (*self.devices, self.host)
        if self.shares:
            return self._parallel_step_s(tokens, depth, level)
        total = 0.0
        for device, work in zip(
            places, works(self.model, self.placement, self.settings), strict=True
        ):
            seconds = self._place_s(device, work, tokens, depth, level)
            if seconds is None:
                return None
            total += seconds
        return total + self.hops() * self._hop_s(tokens)

    def _place_s(
        self, device: DeviceFacts, work: Work, tokens: int, depth: int, level: int
    ) -> float | None:
        if work.is_empty:
            return 0.0
        if not device.bandwidth_gbps:
            return None
        rates = efficiency(device)
        window = min(depth, self.model.n_swa or depth)
        read = work.dense_bytes + work.expert_bytes * expert_share(self.model, tokens)
        read += work.kv_bytes_per_token * depth + work.window_bytes_per_token * window
        memory_s = read / (
            device.bandwidth_gbps
            * 1e9
            * _corrected(rates.memory, level, device.decode_correction)
        )
        if (
            device.kind == "cpu"
            and tokens >= OFFLOADED_BATCH
            and (link := self._copied_over())
        ):
            # A large batch is computed on the card: the weights go there once (ggml_backend_sched,
            # op offload).
            return read / (link * 1e9 * LINK_SHARE[level])
        compute_s = 0.0
        if device.tflops:
            experts = expert_share(self.model, 1) / self._filled(rates, tokens)
            per_token = work.dense_weights + work.expert_weights * experts
            per_token += work.attention_weights * depth
            per_token += work.window_attention_weights * window
            peak = (
                device.tflops
                * 1e12
                * _corrected(rates.compute, level, device.prefill_correction)
            )
            compute_s = 2 * per_token * tokens / peak
        fixed_s = work.layers * rates.layer_s + work.expert_layers * rates.experts_s
        return max(memory_s, compute_s) + fixed_s * _FIXED_COSTS[level]

    def _filled(self, rates: Efficiency, tokens: int) -> float:
        """The part of the experts' arithmetic that is for a token: each expert gets few of a
        batch's tokens."""
        if tokens <= _UNTILED_BATCH or not self.model.n_expert:
            return 1.0
        each = tokens * expert_share(self.model, 1)
        return max(each / (each + rates.idle_tokens), _LEAST_FILLED)

    def _copied_over(self) -> float | None:
        """The link weights of the host would be copied over for a large batch, in GB/s."""
        if not self.settings.op_offload:
            return None
        return next(
            (d.link_gbps for d in self.devices if d.kind == "cuda" and d.link_gbps),
            None,
        )

    def hops(self) -> int:
        """How often a token's state goes from one place to another."""
        layers = self.placement.layers[: self.model.n_layer - self.model.n_nextn]
        way = (self.placement.host, *layers, self.placement.output)
        changes = sum(here != there for here, there in pairwise(way))
        lifted = 0
        for index, place in enumerate(layers):
            on_host = self.placement.cpu_moe or index < self.placement.n_cpu_moe
            lifted += (
                2
                if on_host
                and place != self.placement.host
                and self.model.kind_of(index).expert_bytes
                else 0
            )
        return changes + lifted

    def hop_bytes(self, tokens: int = 1) -> int:
        """One hidden state per token, in single precision."""
        return self.model.n_embd * 4 * tokens

    def _hop_s(self, tokens: int) -> float:
        link = min((d.link_gbps for d in self.devices if d.link_gbps), default=None)
        slowest = max((efficiency(d).hop_s for d in self.devices), default=0.0)
        return slowest + (self.hop_bytes(tokens) / (link * 1e9) if link else 0.0)

    @property
    def syncs(self) -> int:
        """Under tensor split: after attention and after the feed-forward block of each layer."""
        return 2 * self.model.n_layer

    def device_steps_s(
        self, tokens: int, depth: int, level: int = 1
    ) -> list[float] | None:
        """Under tensor split: seconds that each device computes for its part of all layers."""
        whole = works(self.model, self.placement, self.settings)[0]
        parts = [
            self._place_s(
                device, part_of(whole, share / sum(self.shares)), tokens, depth, level
            )
            for device, share in zip(self.devices, self.shares, strict=True)
        ]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return known
        return None

    def syncs_s(self, tokens: int) -> float:
        """Under tensor split: seconds the devices spend waiting for each other's halves."""
        link = min((d.link_gbps for d in self.devices if d.link_gbps), default=None)
        each = max(efficiency(d).sync_s for d in self.devices)
        return self.syncs * (
            each + (self.hop_bytes(tokens) / (link * 1e9) if link else 0.0)
        )

    def _parallel_step_s(self, tokens: int, depth: int, level: int) -> float | None:
        """The slowest device paces every layer."""
        parts = self.device_steps_s(tokens, depth, level)
        rest = works(self.model, self.placement, self.settings)[-1]
        host_s = self._place_s(self.host, rest, tokens, depth, level)
        if parts is None or host_s is None:
            return None
        return max(parts) + host_s + self.syncs_s(tokens)

    # --- what is shown ----------------------------------------------------------------------------
    def decode_tps(self, depth: int = TYPICAL_DEPTH, level: int = 1) -> float | None:
        return _rate(self.step_s(1, min(depth, self.settings.context), level), 1)

    def prefill_tps(self, prompt: int = TYPICAL_PROMPT, level: int = 1) -> float | None:
        """Over a prompt of that length, one micro-batch after another; None where it is not known
        how fast a device calculates."""
        places = zip((*self.devices, self.host), self._used(), strict=True)
        if any(not place.tflops for place, work in places if not work.is_empty):
            return None
        prompt = max(min(prompt, self.settings.context), 1)
        batch = max(min(self.settings.micro_batch, prompt), 1)
        return _rate(self.step_s(batch, prompt // 2, level), batch)

    @property
    def uncorrected(self) -> SpeedModel:
        """The same places as if nothing had been measured on the devices."""
        return replace(
            self,
            devices=tuple(map(_uncorrected, self.devices)),
            host=_uncorrected(self.host),
        )

    def predicted(self) -> Predicted:
        if (decode := self.decode_tps()) is None:
            return Predicted()
        used = [
            d
            for d, w in zip((*self.devices, self.host), self._used(), strict=True)
            if not w.is_empty
        ]
        computed = self.uncorrected
        prefill = self.prefill_tps()
        known = Predicted(
            prefill_tps=prefill,
            decode_tps=decode,
            prefill_range=_range(
                prefill, self.prefill_tps(level=0), self.prefill_tps(level=2)
            ),
            decode_range=_range(
                decode, self.decode_tps(level=0), self.decode_tps(level=2)
            ),
            assumes=self._assumes(),
            computed_prefill_tps=computed.prefill_tps(),
            computed_decode_tps=computed.decode_tps(),
        )
        is_measured = bool(used) and all(d.decode_correction for d in used)
        return replace(
            known,
            basis="measured" if is_measured else "computed",
            decode_correction=_by_devices(
                {d.name: d.decode_correction for d in used},
                known.computed_decode_tps,
                decode,
                known.decode_range,
            ),
            prefill_correction=_by_devices(
                {d.name: d.prefill_correction for d in used},
                known.computed_prefill_tps,
                prefill,
                known.prefill_range,
            ),
        )

    def _assumes(self) -> tuple[str, ...]:
        """What the range rests on besides the devices' own figures, in words."""
        host_work = self._used()[-1]
        found = []
        if not host_work.is_empty and self.devices and self.host.bandwidth_gbps:
            found.append(
                f"The host's memory is read at {gbps_text(self.host.bandwidth_gbps)}, as it was"
                " measured."
            )
        link = self._copied_over()
        if (
            not host_work.is_empty
            and link
            and self.settings.micro_batch >= OFFLOADED_BATCH
        ):
            low, likely, high = (f"{share:.0%}" for share in LINK_SHARE)
            found.append(
                f"While a prompt is read, weights of the host go over a link of {gbps_text(link)}:"
                f" {likely} of it is assumed, {low} to {high} is possible."
            )
        return tuple(found)

    def _used(self) -> tuple[Work, ...]:
        found = works(self.model, self.placement, self.settings)
        if self.shares:
            return (found[0],) * len(self.devices) + (found[-1],)
        return found


def _uncorrected(device: DeviceFacts) -> DeviceFacts:
    return replace(device, decode_correction=None, prefill_correction=None)


def _corrected(
    rates: tuple[float, float, float], level: int, by: Correction | None
) -> float:
    if by is None:
        return rates[level]
    return rates[1] * (by.low, by.ratio, by.high)[level]


def _by_devices(
    corrections: Mapping[str, Correction | None],
    computed: float | None,
    likely: float | None,
    between: tuple[float, float] | None,
) -> Correction | None:
    """What the devices' own corrections come to together; None where no device has one."""
    own = {name: each for name, each in corrections.items() if each}
    if not own or not computed or not likely or not between:
        return None
    return Correction(
        likely / computed,
        between[0] / computed,
        between[1] / computed,
        sum(each.benchmarks for each in own.values()),
        sum(each.answers for each in own.values()),
        Alike.DEVICES,
        tuple(own),
    )


def _rate(seconds: float | None, tokens: int) -> float | None:
    if seconds:
        return tokens / seconds
    return None


def _range(
    likely: float | None, low: float | None, high: float | None
) -> tuple[float, float] | None:
    if likely is None or low is None or high is None:
        return None
    return (min(low, likely), max(high, likely))
