"""Which loads and service levels may be asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deployments.bench.metrics import ServiceLevel
from deployments.bench.shape import CLOSED, Shape, check_shape
from omni.errors import OmniError


@pytest.mark.parametrize(
    ("shape", "concurrency"),
    [
        (CLOSED, ()),
        (Shape(think_s=2.0), (1, 4)),
        (Shape(rates=(0.5, 1.0)), ()),
        (Shape(service_level=ServiceLevel(500.0, 50.0)), (1,)),
    ],
)
def test_what_can_be_measured_passes(shape: Shape, concurrency: Sequence[int]) -> None:
    check_shape(shape, concurrency)


@pytest.mark.parametrize(
    ("shape", "concurrency", "said"),
    [
        (Shape(rates=(0.0,)), (), "rates are not possible"),
        (Shape(rates=(float("nan"),)), (), "rates are not possible"),
        (Shape(rates=(1000.0,)), (), "rates are not possible"),
        (Shape(rates=tuple(range(1, 20))), (), "too many"),
        (Shape(rates=(1.0,)), (4,), "Both a rate and users"),
        (Shape(rates=(1.0,), think_s=1.0), (), "Both a rate and a time"),
        (Shape(think_s=-1.0), (), "no time to think"),
        (Shape(think_s=float("inf")), (), "no time to think"),
        (Shape(service_level=ServiceLevel(0.0)), (), "A limit"),
        (Shape(service_level=ServiceLevel(None, -5.0)), (), "A limit"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_to_do(
    shape: Shape, concurrency: Sequence[int], said: str
) -> None:
    with pytest.raises(OmniError, match=said) as refused:
        check_shape(shape, concurrency)
    assert refused.value.code == "bad_benchmark" and refused.value.fix
