"""What running deployments are doing at this moment: requests and tokens per second.

The engines' own slots are read, each engine at most twice a second however many look. Engines
without slots, and external servers, tell nothing: N/A.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import httpx

from deployments.engines import FLAVOURS
from deployments.engines.slots import SlotWork, decoded_between, slots_at_work
from deployments.instances.connecting import address_of
from deployments.instances.engine_client import begin_asking, engine_request
from deployments.models import Deployment, Instance
from deployments.states import InstanceState
from deployments.strategies import STRATEGIES

SLOTS = "/slots"
# An engine answers between two batches; a page does not wait for a long one.
LIMIT_S = 1.0
FRESH_S = 0.5
# A rate over a longer time is none of this moment.
OLD_S = 15.0
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class LiveFigures:
    """None is what is not told now."""

    requests: int | None = None
    decode_tps: float | None = None


@dataclass(frozen=True)
class Reading:
    """The slots of one process at one moment, and what that makes."""

    process: tuple[int | None, float | None]
    at_s: float
    slots: Mapping[int, SlotWork]
    figures: LiveFigures


@dataclass
class LiveReader:
    """Remembers the last reading of each engine: a rate needs two."""

    clock: Callable[[], float] = time.monotonic
    _last: dict[int, Reading] = field(default_factory=dict)

    def of(self, deployments: Iterable[Deployment]) -> dict[str, LiveFigures]:
        """By name, of those that are ready."""
        answering = {row.name: _answering(row) for row in deployments}
        ready = {name: each for name, each in answering.items() if each}
        now_s = self.clock()
        asked: dict[str, Future[tuple[int, bytes]]] = {}
        for name, instance in ready.items():
            if not self._is_fresh(instance, now_s) and (question := _ask(instance)):
                asked[name] = question
        found = {}
        for name, instance in ready.items():
            if name in asked:
                found[name] = self._figures(instance, asked[name])
            else:
                last = self._last.get(instance.pk)
                found[name] = last.figures if last else LiveFigures()
        self._forget(now_s)
        return found

    def _is_fresh(self, instance: Instance, now_s: float) -> bool:
        last = self._last.get(instance.pk)
        is_same = last is not None and last.process == _process(instance)
        return bool(last and is_same and now_s - last.at_s < FRESH_S)

    def _figures(
        self, instance: Instance, question: Future[tuple[int, bytes]]
    ) -> LiveFigures:
        try:
            status, body = question.result()
            slots = slots_at_work(json.loads(body)) if status == 200 else None
        except (httpx.HTTPError, OSError, ValueError):
            slots = None
        if slots is None:
            return LiveFigures()
        now_s = self.clock()
        figures = LiveFigures(len(slots), self._rate(instance, slots, now_s))
        process = _process(instance)
        self._last[instance.pk] = Reading(process, now_s, slots, figures)
        return figures

    def _rate(
        self, instance: Instance, slots: Mapping[int, SlotWork], now_s: float
    ) -> float | None:
        if not slots:
            return 0.0
        last = self._last.get(instance.pk)
        if last is None or last.process != _process(instance):
            return None
        return decoded_between(last.slots, slots) / (now_s - last.at_s)

    def _forget(self, now_s: float) -> None:
        # Several pages may ask at the same time.
        for pk, each in list(self._last.items()):
            if now_s - each.at_s > OLD_S:
                self._last.pop(pk, None)


live = LiveReader()


def _answering(row: Deployment) -> Instance | None:
    """The instance that writes the answers, where it is ready and has slots."""
    strategy = STRATEGIES.get(row.strategy)
    flavour = FLAVOURS.get(row.engine.flavour)
    if strategy is None or flavour is None or flavour.liveness_path != SLOTS:
        return None
    ready = (i for i in row.instances.all() if i.state == InstanceState.READY)
    return next((i for i in ready if i.role == strategy.serving_role), None)


def _process(instance: Instance) -> tuple[int | None, float | None]:
    return instance.pid, instance.start_time


def _ask(instance: Instance) -> Future[tuple[int, bytes]] | None:
    address = address_of(instance)
    if address is None:
        return None
    request = engine_request(address, SLOTS, None, LIMIT_S)
    return begin_asking(LIMIT_S, request, MOST_BYTES)
