"""Trial deployments: made for one benchmark, offered to nobody else, and gone when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from deployments.models import BenchmarkRun, Deployment
from deployments.names import LENGTH, ROOM_FOR_NUMBERS
from deployments.services.checks import free_name
from deployments.services.deployments import deployment_delete
from gpus.models import Host
from omni.errors import OmniError

log = logging.getLogger(__name__)


def trial_name(model: str, strategy: str) -> str:
    """A free name made of both; of a long model's name the end is left out."""
    room = LENGTH["deployments"] - ROOM_FOR_NUMBERS - len(strategy) - 1
    return free_name(f"{model[:room].rstrip('-_')}-{strategy}")


def mark_trials(run: BenchmarkRun, deployments: Sequence[Deployment]) -> None:
    keys = [deployment.pk for deployment in deployments]
    Deployment.objects.filter(pk__in=keys).update(trial_of=run.pk)


def end_trials(number: int) -> None:
    """Wants the trials of this benchmark gone; the agent removes them once they have stopped."""
    for deployment in Deployment.objects.filter(trial_of=number, is_deleting=False):
        try:
            deployment_delete(deployment=deployment)
        except OmniError as error:
            # It is looked at again and again: what leads to it goes away some day.
            log.warning("the trial %s is still there: %s", deployment, error)


def end_trials_left(host: Host, is_at_work: Callable[[int], bool]) -> None:
    """Ends those of benchmarks that are over or gone, unless their process still is at work."""
    left = host.deployments.filter(trial_of__isnull=False, is_deleting=False)
    numbers = {row.trial_of for row in left.only("trial_of") if row.trial_of}
    if not numbers:
        return
    open_ = BenchmarkRun.objects.filter(
        pk__in=numbers, state__in=BenchmarkRun.UNFINISHED
    )
    for number in numbers - set(open_.values_list("pk", flat=True)):
        if not is_at_work(number):
            log.info("the trials of benchmark %s are removed", number)
            end_trials(number)
