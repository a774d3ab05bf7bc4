"""Which of several layouts of a model serves a purpose best: one ranking for the first page, one
click and what is planned before a download."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from deployments.advice.purposes import Purpose
from deployments.advice.seconds import Rates, request_seconds
from deployments.planning.plan import DeviceFacts
from deployments.planning.ranking import SURE
from deployments.services.layout_plans import Planned, candidate


def best_first(
    purpose: Purpose,
    some: Sequence[Planned],
    devices: Mapping[str, DeviceFacts],
    taken: Collection[str] = (),
) -> list[Planned]:
    """By the seconds of a request, then those that cannot serve.

    What is not sure counts for less. So does a device that others use (`taken`): beside them it has
    to be faster by more than a calculation can be wrong.
    """

    def seconds(planned: Planned) -> tuple[int, float]:
        if not planned.can_serve:
            return (1 if planned.plan else 2), 0.0
        each = candidate(planned, devices)
        rates = Rates(each.prefill_tps, each.decode_tps, purpose.users)
        is_shared = any(name in taken for name in planned.layout.places)
        sure = each.handicap * (SURE if is_shared else 1.0)
        return 0, sure * request_seconds(purpose, rates)

    return sorted(some, key=seconds)
