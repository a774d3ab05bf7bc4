"""Which device holds which layer and which tensor, as llama.cpp decides it.

Sources: src/llama-model.cpp (load_tensors: split points and get_layer_buft_list), common/arg.cpp
(--cpu-moe, --n-cpu-moe, -ot), src/llama-model-loader.cpp (create_tensor: overrides).
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from deployments.formats.expert_tensors import EXPERT_TENSORS

# The host's place in every list of places: after all devices, as in llama.cpp's scheduler.
CPU = "CPU"
_F32 = struct.Struct("f")


def float32(value: float) -> float:
    """The engine computes split points in single precision."""
    return float(_F32.unpack(_F32.pack(value))[0])


def split_points(shares: Sequence[float]) -> list[float]:
    """Cumulated shares, 0 to 1; all zero means even. Raises ValueError for a negative share."""
    if any(share < 0 for share in shares):
        raise ValueError("a share of a tensor split is negative")
    parts = [float32(share) for share in shares] if any(shares) else [1.0] * len(shares)
    total, points = 0.0, []
    for part in parts:
        total = float32(total + part)
        points.append(total)
    return [float32(point / total) for point in points]


def layer_places(n_layer: int, shares: Sequence[float], gpu_layers: int | None) -> tuple[int, ...]:
    """The index of the device of each layer, the output as layer n_layer; len(shares) is the host.

    gpu_layers counts from the end and includes the output; None is all.
    """
    host = len(shares)
    wanted = n_layer + 1 if gpu_layers is None else min(gpu_layers, n_layer + 1)
    if not shares or wanted <= 0:
        return (host,) * (n_layer + 1)
    first = n_layer + 1 - wanted
    points = split_points(shares)
    return tuple(
        (
            host
            if index < first
            else min(bisect_right(points, float32((index - first) / wanted)), host - 1)
        )
        for index in range(n_layer + 1)
    )


@dataclass(frozen=True)
class Override:
    """`-ot PATTERN=BUFFER`: tensors whose name matches go to a device, or to the host for CPU."""

    pattern: str
    device: str = CPU


def expert_overrides(cpu_moe: bool, n_cpu_moe: int) -> tuple[Override, ...]:
    """What --cpu-moe and --n-cpu-moe stand for: the experts of all, or of the first n, layers on
    the host."""
    tensors = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
    if cpu_moe:
        return (Override(tensors),)
    return tuple(Override(rf"blk\.{layer}{tensors}") for layer in range(n_cpu_moe))


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@dataclass(frozen=True)
class Placement:
    """Places are indexes into the devices; `host` is len(devices)."""

    layers: tuple[int, ...]
    host: int
    device_names: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    n_cpu_moe: int = 0
    cpu_moe: bool = False

    @property
    def output(self) -> int:
        return self.layers[-1]

    def of_tensor(self, layer: int, name: str) -> int:
        """Where a tensor of a layer goes; `name` is without `blk.N.`."""
        if (self.cpu_moe or layer < self.n_cpu_moe) and name.rsplit(".", 1)[0] in EXPERT_TENSORS:
            return self.host
        return self._overridden(f"blk.{layer}.{name}", self.layers[layer])

    def of_extra(self, name: str) -> int:
        """Where a tensor outside the layers goes: embeddings always stay on the host."""
        is_input = name.startswith(
            ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
        )
        return self._overridden(name, self.host if is_input else self.output)

    def of_tied_output(self) -> int:
        """Where the output goes that is made of the embedding."""
        return self._overridden("token_embd.weight", self.output)

    def _overridden(self, name: str, default: int) -> int:
        for override in self.overrides:
            if _compiled(override.pattern).search(name):
                return self._place_of(override.device, default)
        return default

    def _place_of(self, device: str, default: int) -> int:
        if device == CPU or device.endswith("_Host"):
            return self.host
        return self.device_names.index(device) if device in self.device_names else default

    @property
    def moves_tensors(self) -> bool:
        return bool(self.overrides or self.cpu_moe or self.n_cpu_moe)
