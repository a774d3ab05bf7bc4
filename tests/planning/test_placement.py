"""Which device holds which layer and tensor, as the engine decides."""

from __future__ import annotations

from collections import Counter

import pytest

from deployments.planning.memory.placement import (
    Placement,
    layer_devices,
    split_points,
)


@pytest.mark.parametrize(
    ("n_layer", "shares", "gpu_layers", "expected"),
    [
        (4, (1, 1), None, (0, 0, 0, 1, 1)),
        (4, (1, 1), 99, (0, 0, 0, 1, 1)),
        (4, (3, 2), None, (0, 0, 0, 1, 1)),
        (4, (1, 4), None, (0, 1, 1, 1, 1)),
        (4, (1, 1), 3, (2, 2, 0, 0, 1)),
        (4, (1, 1), 1, (2, 2, 2, 2, 0)),
        (4, (1, 1), 0, (2, 2, 2, 2, 2)),
        (4, (1,), 2, (1, 1, 1, 0, 0)),
        (4, (), None, (0, 0, 0, 0, 0)),
        (4, (0, 1), None, (1, 1, 1, 1, 1)),
        (4, (1, 0), None, (0, 0, 0, 0, 0)),
        (4, (0, 0), None, (0, 0, 0, 1, 1)),
        (2, (1, 1, 1), None, (0, 1, 2)),
    ],
)
def test_layers_are_cut_where_the_engine_cuts(
    n_layer: int,
    shares: tuple[float, ...],
    gpu_layers: int | None,
    expected: tuple[int, ...],
) -> None:
    """The output is the last; the host's place is the number of devices."""
    assert layer_devices(n_layer, shares, gpu_layers) == expected


@pytest.mark.parametrize(
    "counts", [(1, 1), (5, 3), (57, 5), (1, 1, 1, 1), (30, 1), (11, 13, 39), (1, 126)]
)
def test_whole_numbers_of_layers_are_cut_exactly_there(counts: tuple[int, ...]) -> None:
    placed = Counter(layer_devices(sum(counts) - 1, counts, None))
    assert tuple(placed[device] for device in range(len(counts))) == counts


def test_points_are_cumulated_and_end_at_one() -> None:
    assert split_points((3, 1)) == [0.75, 1.0]
    assert split_points((0, 0)) == [0.5, 1.0]
    with pytest.raises(ValueError, match="negative"):
        split_points((1, -1))


def test_embeddings_stay_on_the_host_and_the_rest_goes_with_the_output() -> None:
    placement = Placement((0, 1, 1), 2)
    assert placement.of_extra("token_embd.weight") == 2
    assert placement.of_extra("output_norm.weight") == placement.output == 1
