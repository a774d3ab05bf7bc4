"""What deployments do, kept beside what cards do: tokens per second, requests, queue, KV cache,
draft acceptance, time to first token.

Engines are asked every ten seconds; requests that ended are read from the history of requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from django.conf import settings

from deployments.engines import FLAVOURS
from deployments.engines.counters import (
    EngineCounters,
    drafts_in_log,
    engine_counters,
)
from deployments.engines.slots import held_percent, slots_at_work
from deployments.instances.connecting import address_of
from deployments.instances.demand import Demand
from deployments.instances.engine_client import begin_asking, engine_request
from deployments.instances.logs import Follower
from deployments.models import GatewayRequest, Instance
from deployments.services.history_marks import subject_of
from deployments.states import InstanceState
from deployments.strategies import STRATEGIES
from gpus.buckets import save_buckets
from gpus.models import Host
from gpus.rollup import FINEST_S, Bucket, Roller

SLOTS = "/slots"
SHARED_CACHE = frozenset({"-kvu", "--kv-unified"})
# An engine answers between two batches; what it says too late is read at the next look.
LIMIT_S = 2.0
MOST_BYTES = 4 << 20
MOST_REQUESTS = 50_000
# About a day of one deployment, should the database be away that long.
KEPT_UNSAVED = 50_000

Answer = Future[tuple[int, bytes]] | None


@dataclass(frozen=True)
class Counted:
    """Tokens of one process since it was started, at one moment of the monotonic clock."""

    process: tuple[int | None, float | None]
    at_s: float
    prompt: float | None = None
    output: float | None = None
    drafted: float | None = None
    accepted: float | None = None


@dataclass
class Ended:
    """Requests of one deployment that ended since the last look."""

    first_token_ms: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0


class LoadHistory:
    """`tick` is one look, at the end of each span of ten seconds."""

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self.clock = clock
        self.demand = Demand(settings.OMNI_HOME.demand)
        self._last: dict[int, Counted] = {}
        self._logs: dict[int, Follower] = {}
        self._request: int | None = None
        self._looked_s: float | None = None
        self._unsaved: list[Bucket] = []

    def tick(self, at_s: float | None = None) -> None:
        """`at_s`: the middle of the span that is over, in seconds since 1970."""
        at_s = time.time() - FINEST_S / 2 if at_s is None else at_s
        ready = _serving(self.host)
        ended = self._ended()
        roller = Roller()
        titles = {}
        asked = [(instance, *_ask(instance)) for instance in ready]
        waiting = self.demand.waiting() if ready else {}
        for instance, slots, metrics in asked:
            deployment = instance.deployment
            assert deployment
            key = subject_of(deployment.pk)
            titles[key] = deployment.name
            own = ended.get(deployment.name, Ended())
            counters = _counters(metrics)
            found = self._figures(
                instance, counters, _slot_figures(slots, instance), own
            )
            queued = counters.queued or 0
            found["queue_length"] = waiting.get(deployment.pk, 0) + queued
            roller.add(at_s, {(key, name): value for name, value in found.items()})
            for first_ms in own.first_token_ms:
                roller.add(at_s, {(key, "first_token_ms"): first_ms})
        self._forget(ready)
        self._looked_s = self.clock()
        self._unsaved = [*self._unsaved, *roller.close()][-KEPT_UNSAVED:]
        save_buckets(self.host, self._unsaved, titles)
        self._unsaved = []

    # --- one deployment ---------------------------------------------------------------------------
    def _figures(
        self,
        instance: Instance,
        counters: EngineCounters,
        slots: SlotFigures,
        ended: Ended,
    ) -> dict[str, float]:
        """What is not known now is left out."""
        now = self._counted(instance, counters, slots.decoding)
        last = self._last.get(instance.pk)
        if last is None or last.process != now.process:
            last = now
        # An engine that did not answer in time is asked for both spans at the next look.
        is_silent = now.output is None and last.output is not None
        self._last[instance.pk] = last if is_silent else now
        drafted, accepted = self._drafts(instance, last, now)
        found = {
            "requests": counters.requests,
            "kv_percent": slots.kv_percent
            if counters.kv_percent is None
            else counters.kv_percent,
            "acceptance_percent": 100 * accepted / drafted if drafted > 0 else None,
            **self._rates(last, now, ended),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _rates(
        self, last: Counted, now: Counted, ended: Ended
    ) -> dict[str, float | None]:
        """By the engine's counters; where it has none, by the requests that ended."""
        span_s = now.at_s - last.at_s
        if last.output is None and now.output is None:
            span_s = 0.0 if self._looked_s is None else now.at_s - self._looked_s
            return {
                "prompt_tps": _rate(0, ended.prompt_tokens, span_s),
                "output_tps": _rate(0, ended.output_tokens, span_s),
            }
        return {
            "prompt_tps": _rate(last.prompt, now.prompt, span_s),
            "output_tps": _rate(last.output, now.output, span_s),
        }

    def _counted(
        self, instance: Instance, counters: EngineCounters, decoding: int
    ) -> Counted:
        process = (instance.pid, instance.start_time)
        last = self._last.get(instance.pk)
        is_same = last is not None and last.process == process
        output = counters.output_tokens
        if output is not None:
            output += decoding
            # A request that ended between the two questions is in both; the next look makes up.
            if last is not None and is_same and last.output is not None:
                output = max(output, last.output)
        return Counted(
            process,
            self.clock(),
            counters.prompt_tokens,
            output,
            counters.drafted_tokens,
            counters.accepted_tokens,
        )

    def _drafts(
        self, instance: Instance, last: Counted, now: Counted
    ) -> tuple[float, float]:
        """Tokens drafted and accepted since the last look, by the engine's counters or its log."""
        if now.drafted is not None:
            drafted = now.drafted - (last.drafted or 0)
            return drafted, (now.accepted or 0) - (last.accepted or 0)
        if not instance.launch_facts.drafts or not instance.log_path:
            return 0, 0
        if instance.pk not in self._logs:
            self._logs[instance.pk] = Follower(Path(instance.log_path), lines=0)
            return 0, 0
        return drafts_in_log(self._logs[instance.pk].read())

    def _forget(self, ready: Sequence[Instance]) -> None:
        known = {instance.pk for instance in ready}
        self._last = {pk: each for pk, each in self._last.items() if pk in known}
        self._logs = {pk: each for pk, each in self._logs.items() if pk in known}

    # --- requests ---------------------------------------------------------------------------------
    def _ended(self) -> dict[str, Ended]:
        """By deployment; nothing at the first look, which only sees where to begin."""
        rows = GatewayRequest.objects.order_by("-pk")
        newest = rows.values_list("pk", flat=True).first() or 0
        before, self._request = self._request, newest
        if before is None or newest == before:
            return {}
        news = rows.filter(pk__gt=before, pk__lte=newest).exclude(deployment_name="")
        return _by_deployment(
            news.values_list(
                "deployment_name",
                "first_token_ms",
                "prompt_tokens",
                "cached_tokens",
                "completion_tokens",
            )[:MOST_REQUESTS]
        )


def _by_deployment(
    rows: Iterable[tuple[str, int | None, int | None, int | None, int | None]],
) -> dict[str, Ended]:
    found: dict[str, Ended] = {}
    for name, first_ms, prompt, cached, output in rows:
        into = found.setdefault(name, Ended())
        if first_ms is not None:
            into.first_token_ms.append(first_ms)
        into.prompt_tokens += max(0, (prompt or 0) - (cached or 0))
        into.output_tokens += output or 0
    return found


def _serving(host: Host) -> list[Instance]:
    """Those that write the answers of a deployment, and are ready; trials are nobody's."""
    ready = Instance.objects.filter(
        host=host,
        state=InstanceState.READY,
        deployment__isnull=False,
        deployment__trial_of=None,
    ).select_related("deployment__engine")
    return [instance for instance in ready if _writes_answers(instance)]


def _writes_answers(instance: Instance) -> bool:
    strategy = (
        STRATEGIES.get(instance.deployment.strategy) if instance.deployment else None
    )
    return strategy is not None and instance.role == strategy.serving_role


# --- engines --------------------------------------------------------------------------------------
def _ask(instance: Instance) -> tuple[Answer, Answer]:
    """Both questions are on their way at once; the slots first."""
    assert instance.deployment
    flavour = FLAVOURS.get(instance.deployment.engine.flavour)
    address = address_of(instance)
    if flavour is None or address is None or not flavour.metrics_path:
        return None, None
    paths = (SLOTS if flavour.liveness_path == SLOTS else "", flavour.metrics_path)
    slots, metrics = (
        begin_asking(LIMIT_S, engine_request(address, path, None, LIMIT_S), MOST_BYTES)
        if path
        else None
        for path in paths
    )
    return slots, metrics


def _body(answer: Answer) -> bytes | None:
    if answer is None:
        return None
    try:
        status, body = answer.result()
    except (httpx.HTTPError, OSError, ValueError):
        return None
    return body if status == 200 else None


def _counters(answer: Answer) -> EngineCounters:
    body = _body(answer)
    return (
        engine_counters(body.decode("utf-8", "replace")) if body else EngineCounters()
    )


@dataclass(frozen=True)
class SlotFigures:
    """`decoding` are tokens of answers that are being written, which no counter has yet."""

    decoding: int = 0
    kv_percent: float | None = None


def _slot_figures(answer: Answer, instance: Instance) -> SlotFigures:
    body = _body(answer)
    if body is None:
        return SlotFigures()
    try:
        slots = json.loads(body)
        decoding = sum(work.n_decoded for work in slots_at_work(slots).values())
    except ValueError:
        return SlotFigures()
    is_shared = not SHARED_CACHE.isdisjoint(instance.argv)
    return SlotFigures(decoding, held_percent(slots, is_shared=is_shared))


def _rate(before: float | None, now: float | None, span_s: float) -> float | None:
    """None without two readings; a counter that went back was begun again."""
    if before is None or now is None or span_s <= 0 or now < before:
        return None
    return (now - before) / span_s
