"""The shares of a tensor split as people write them: small whole numbers such as 4,1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

from deployments.planning.memory.placement import layer_devices

# Shares this near to others are the same split: a part of each share.
_SAME_PART = 0.01
# Of a ratio that people would write: no longer one is looked for.
_MOST_PARTS = 1000
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
def near_ratio(shares: tuple[float, ...]) -> tuple[float, ...]:
    """The smallest whole numbers that are the same split within 1 % of each share: MiB such as
    97887,32607 are 3,1. What no such numbers are near to stays as it is."""
    total = sum(shares)
    if not total:
        return shares
    for parts in range(1, _MOST_PARTS):
        ratio = tuple(float(round(share * parts / total)) for share in shares)
        if any(ratio) and _is_near(ratio, shares):
            return ratio
    return shares


def _is_near(ratio: Sequence[float], shares: Sequence[float]) -> bool:
    scale = sum(shares) / sum(ratio)
    return all(
        abs(part * scale - share) <= _SAME_PART * share
        for part, share in zip(ratio, shares, strict=True)
    )


def as_written(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Shares that somebody entered: short ones stay, long figures become the ratio they mean."""
    if all(share < 1000 and float(f"{share:.3g}") == share for share in shares):
        return shares
    return near_ratio(shares)


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
