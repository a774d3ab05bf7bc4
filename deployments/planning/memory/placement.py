"""Which device holds which layer and which tensor, as llama.cpp decides it.

Sources: src/llama-model.cpp (load_tensors: split points and get_layer_buft_list), common/arg.cpp
(--cpu-moe, --n-cpu-moe).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# What the host is called where no device of that kind is named.
CPU = "CPU"
_F32 = struct.Struct("f")


def float32(value: float) -> float:
    """The engine computes split points in single precision."""
    return float(_F32.unpack(_F32.pack(value))[0])


def split_points(shares: Sequence[float]) -> list[float]:
    """Cumulated shares, 0 to 1; all zero means even. Raises ValueError for a negative share."""
    if any(share < 0 for share in shares):
        raise ValueError("a share of a tensor split is negative")
    if any(shares):
        parts = [float32(share) for share in shares]
    else:
        parts = [1.0] * len(shares)
    total = 0.0
    points = []
    for part in parts:
        total = float32(total + part)
        points.append(total)
    return [float32(point / total) for point in points]


def layer_devices(
    n_layer: int, shares: Sequence[float], gpu_layers: int | None
) -> tuple[int, ...]:
    """The index of the device of each layer, the output as layer n_layer; len(shares) is the host.

    gpu_layers counts from the end and includes the output; None is all.
    """
    return _layer_devices(n_layer, tuple(shares), gpu_layers)


@lru_cache(maxsize=1024)
def _layer_devices(
    n_layer: int, shares: tuple[float, ...], gpu_layers: int | None
) -> tuple[int, ...]:
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
class Placement:
    """Places are indexes into the devices; the host comes after them, as in the engine."""

    layers: tuple[int, ...]
    host: int
    n_cpu_moe: int = 0
    cpu_moe: bool = False

    @property
    def output(self) -> int:
        return self.layers[-1]

    def of_extra(self, name: str) -> int:
        """Where a tensor outside the layers goes: embeddings always stay on the host."""
        is_input = name.startswith(
            ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
        )
        if is_input:
            return self.host
        return self.output

    @property
    def moves_tensors(self) -> bool:
        return bool(self.cpu_moe or self.n_cpu_moe)
