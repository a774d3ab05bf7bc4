"""How the requests of a benchmark come, and what an answer has to keep to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.bench.metrics import ServiceLevel
from omni.errors import OmniError

LEAST_RATE, MOST_RATE = 0.01, 100.0
MOST_RATES = 8
MOST_THINK_S = 600.0
MOST_LIMIT_MS = 3_600_000.0


@dataclass(frozen=True)
class Shape:
    """`rates` in requests a second make it an open loop; without them users ask in a closed one,
    and each thinks for `think_s` between an answer and the next question."""

    rates: tuple[float, ...] = ()
    think_s: float = 0.0
    service_level: ServiceLevel = ServiceLevel()


CLOSED = Shape()


def check_shape(shape: Shape, concurrency: Sequence[int]) -> None:
    """Raises OmniError (bad_benchmark)."""
    _check_rates(shape, concurrency)
    if not 0 <= shape.think_s <= MOST_THINK_S:
        raise _bad(
            f"{shape.think_s:g} seconds are no time to think.",
            f"Use 0 to {MOST_THINK_S:g} seconds.",
        )
    level = shape.service_level
    limits = (level.first_token_ms, level.time_per_output_token_ms, level.e2e_ms)
    if not all(limit is None or 0 < limit <= MOST_LIMIT_MS for limit in limits):
        raise _bad(
            "A limit of the service level is no time.",
            f"Use more than 0 and at most {MOST_LIMIT_MS:.0f} ms.",
        )


def _check_rates(shape: Shape, concurrency: Sequence[int]) -> None:
    if not all(LEAST_RATE <= rate <= MOST_RATE for rate in shape.rates):
        raise _bad(
            "The rates are not possible.",
            f"Use {LEAST_RATE:g} to {MOST_RATE:g} requests/s, such as 0.5,1.",
        )
    if len(shape.rates) > MOST_RATES:
        raise _bad(f"{len(shape.rates)} rates are too many.", f"Use {MOST_RATES}.")
    if shape.rates and concurrency:
        raise _bad(
            "Both a rate and users at once were chosen.",
            "At a rate nobody waits for an answer, so there are no users: choose one of the two.",
        )
    if shape.rates and shape.think_s:
        raise _bad(
            "Both a rate and a time to think were chosen.",
            "Only users who wait for an answer think: leave one of the two out.",
        )


def _bad(text: str, fix: str) -> OmniError:
    return OmniError("bad_benchmark", text, fix)
