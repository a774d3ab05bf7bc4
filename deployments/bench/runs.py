"""The only writers of what is desired of benchmarks; a process of the agent's host does them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.db import transaction

from deployments.announce import benchmarks_changed, nudge
from deployments.bench.metrics import ServiceLevel
from deployments.bench.prepared import least_context
from deployments.bench.prompts import Prompt
from deployments.bench.questions import (
    Questions,
    Wanted,
    prompts_from,
    prompts_kept,
    questions_of,
)
from deployments.bench.shape import CLOSED, Shape, check_shape
from deployments.models import BenchmarkRun
from deployments.services.deployments import get_deployment
from deployments.services.tenancy import why_not_together
from deployments.services.trials import end_trials
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import OPERATE, require

log = logging.getLogger(__name__)

MOST_DEPLOYMENTS = 12
MOST_ROUNDS = 40
MOST_USERS = 64
MOST_SECONDS = 24 * 3600.0
KEPT = 200
# Characters of prompts of one's own, which are kept with their run.
LARGEST_PROMPTS = 4_000_000


def get_benchmark(number: int) -> BenchmarkRun:
    """Raises OmniError (unknown_benchmark)."""
    found = BenchmarkRun.objects.filter(pk=number).select_related("host").first()
    if found is None:
        raise OmniError(
            "unknown_benchmark",
            f"There is no benchmark {number}.",
            "Look at the list of benchmarks.",
        )
    return found


def benchmark_request(
    *,
    names: Sequence[str],
    scenario: str,
    gateway: str,
    concurrency: Sequence[int] = (),
    prompts: Sequence[Prompt] | None = None,
    most_rounds: int = MOST_ROUNDS,
    seconds: float | None = None,
    swaps: bool = False,
    makes_room: bool = False,
    shape: Shape = CLOSED,
    user: Any = None,
) -> BenchmarkRun:
    """A run that waits for its process. Raises OmniError; then nothing is kept.

    With `prompts`, questions of one's own, `scenario` only says what they are called. Without
    `concurrency` it is what the scenario says. Deployments that cannot be up together are swapped
    without being asked for. With `makes_room` others that are in the way are stopped meanwhile.
    """
    require(user, OPERATE)
    host = _host_of(names)
    swaps = swaps or cannot_be_together(names)
    _check_limits(concurrency, most_rounds, seconds)
    check_shape(shape, concurrency)
    _check_size(prompts)
    questions_of(
        Wanted(
            names,
            scenario,
            least_context(names),
            most_rounds,
            concurrency,
            prompts,
            swaps,
            shape,
        )
    )
    with transaction.atomic():
        row = BenchmarkRun.objects.create(
            host=host,
            scenario=scenario,
            names=list(names),
            prompts=None if prompts is None else prompts_kept(prompts),
            concurrency=list(concurrency),
            most_rounds=most_rounds,
            seconds=seconds,
            swaps=swaps,
            makes_room=makes_room,
            gateway=gateway,
            rates=list(shape.rates),
            think_s=shape.think_s,
            slo_first_token_ms=shape.service_level.first_token_ms,
            slo_token_ms=shape.service_level.time_per_output_token_ms,
            requested_by=user,
        )
        _forget_old()
    log.info("%s asked for %s", user or "somebody", row)
    _tell(row)
    return row


def cannot_be_together(names: Sequence[str]) -> bool:
    deployments = [get_deployment(name) for name in names]
    return bool(why_not_together(deployments))


def asked_by(run: BenchmarkRun) -> Questions:
    """What it asks. Raises OmniError where that is not possible (any more)."""
    prompts = None if run.prompts is None else prompts_from(run.prompts)
    return questions_of(
        Wanted(
            run.names,
            run.scenario,
            least_context(run.names),
            run.most_rounds,
            run.concurrency,
            prompts,
            run.swaps,
            shape_of(run),
        )
    )


def shape_of(run: BenchmarkRun) -> Shape:
    return Shape(
        tuple(run.rates),
        run.think_s,
        ServiceLevel(run.slo_first_token_ms, run.slo_token_ms),
    )


def benchmark_cancel(*, run: BenchmarkRun, user: Any = None) -> None:
    """Its process puts the rig back as it was. Raises OmniError (benchmark_over)."""
    require(user, OPERATE)
    rows = BenchmarkRun.objects.filter(pk=run.pk)
    state = BenchmarkRun.State
    changed = rows.filter(state=state.QUEUED).update(state=state.CANCELLED)
    if changed:
        end_trials(run.pk)
    changed += rows.filter(state=state.RUNNING).update(state=state.CANCELLING)
    if not changed:
        run.refresh_from_db()
        raise OmniError(
            "benchmark_over",
            f"{run} is {run.get_state_display().lower()} by now.",
            "Look at its page.",
        )
    log.info("%s cancelled %s", user or "somebody", run)
    _tell(run)


def benchmark_forget(*, run: BenchmarkRun, user: Any = None) -> None:
    """Deletes a run that is over, with its report. Raises OmniError (benchmark_open)."""
    require(user, OPERATE)
    if not run.is_over:
        raise OmniError("benchmark_open", f"{run} is not over.", "Cancel it first.")
    log.info("%s deleted %s", user or "somebody", run)
    run.delete()
    transaction.on_commit(benchmarks_changed)


def _host_of(names: Sequence[str]) -> Host:
    """The one whose agent runs all of them."""
    if not 1 <= len(names) <= MOST_DEPLOYMENTS:
        raise OmniError(
            "bad_benchmark",
            f"{len(names)} deployments were chosen.",
            f"Choose 1 to {MOST_DEPLOYMENTS}.",
        )
    if len(set(names)) < len(names):
        raise OmniError(
            "bad_benchmark",
            "A deployment was chosen twice.",
            "Choose each of them once.",
        )
    hosts = {deployment.host for deployment in map(get_deployment, names)}
    if len(hosts) > 1:
        raise OmniError(
            "bad_benchmark",
            "The deployments are on different hosts.",
            "Choose those of one host: only its agent can bring them up in turn.",
        )
    return hosts.pop()


def _check_limits(
    concurrency: Sequence[int], most_rounds: int, seconds: float | None
) -> None:
    if not all(1 <= users <= MOST_USERS for users in concurrency):
        raise OmniError(
            "bad_benchmark",
            "The numbers of users at once are not possible.",
            f"Use 1 to {MOST_USERS}, such as 1,4.",
        )
    if not 1 <= most_rounds <= MOST_ROUNDS:
        raise OmniError(
            "bad_benchmark",
            f"{most_rounds} rounds are not possible.",
            f"Use 1 to {MOST_ROUNDS}.",
        )
    if seconds is not None and not 0 < seconds <= MOST_SECONDS:
        raise OmniError(
            "bad_benchmark",
            f"{seconds:g} seconds are no time for a benchmark.",
            "Use up to a day, or no limit.",
        )


def _check_size(prompts: Sequence[Prompt] | None) -> None:
    """They are kept with the run, which a scenario's are not."""
    text = sum(
        len(message["content"]) for one in prompts or () for message in one.messages
    )
    if text > LARGEST_PROMPTS:
        raise OmniError(
            "bad_benchmark",
            f"The prompts have {text:,} characters together.",
            f"Use up to {LARGEST_PROMPTS:,}.",
        )


def _forget_old() -> None:
    over = BenchmarkRun.objects.exclude(state__in=BenchmarkRun.UNFINISHED)
    old = list(over.order_by("-pk").values_list("pk", flat=True)[KEPT : KEPT + 100])
    BenchmarkRun.objects.filter(pk__in=old).delete()


def _tell(run: BenchmarkRun) -> None:
    transaction.on_commit(benchmarks_changed)
    transaction.on_commit(lambda: nudge(run.host.name))
