"""The shares of a tensor split as people write them: small whole numbers such as 4,1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

from deployments.planning.memory.placement import layer_devices

# A device with less than this part of the largest one's room gets nothing.
_SMALLEST_PART = 1 / 64


def small_ratio(rooms: Sequence[int | None]) -> tuple[float, ...]:
    """Bytes of room as a short ratio: 96 and 32 GB are 3,1.

    Even where a room is not known or nobody has any.
    """
    known = [room or 0 for room in rooms]
    largest = max(known, default=0)
    if not largest or any(room is None for room in rooms):
        return (1.0,) * len(rooms)
    unit = min(room for room in known if room >= largest * _SMALLEST_PART) / 2
    whole = [round(room / unit) for room in known]
    return tuple(float(part // gcd(*whole)) for part in whole)


@lru_cache(maxsize=512)
def shortest_cut(
    n_layer: int, gpu_layers: int | None, counts: tuple[int, ...]
) -> tuple[float, ...]:
    """The smallest whole numbers that put the same layers on the same devices as these numbers of
    layers do."""
    exact = tuple(float(count) for count in counts)
    wanted = layer_devices(n_layer, exact, gpu_layers)
    total = sum(counts)
    for parts in range(1, total):
        shares = tuple(float(round(count * parts / total)) for count in counts)
        if any(shares) and layer_devices(n_layer, shares, gpu_layers) == wanted:
            return shares
    return exact
