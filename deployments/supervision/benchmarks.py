"""The agent's care for benchmarks: a process for each that is wanted, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from deployments.announce import benchmarks_changed
from deployments.bench.executing import is_held
from deployments.models import ApiKey, BenchmarkRun
from deployments.services.trials import end_trials_left
from deployments.supervision.refusals import refusals
from gpus.models import Host
from omni.backoff import backoff_s
from omni.launcher import Detached, start_detached

log = logging.getLogger(__name__)

State = BenchmarkRun.State
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
LOG_NAME = "benchmarks.log"
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
# One that ends this often without having ended its run never will.
MOST_FAILURES = 5
POLL_S = 0.05


class Benchmarks:
    """Level-triggered: each tick compares rows with processes. Those outlive the agent."""

    def __init__(
        self,
        host: Host,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[list[str], Path], Detached] = start_detached,
    ) -> None:
        self.host = host
        self.clock = clock
        self.start_process = start
        self.run_folder: Path = settings.OMNI_HOME.run
        self.process: Detached | None = None
        self.number = 0
        self.failures = 0
        self.next_start_s = float("-inf")

    def tick(self, *, is_any: bool = True) -> None:
        """Starts the process of the run that has its turn, unless it lives; not `is_any`: neither
        a run nor a trial is left."""
        if not is_any:
            self._lives()  # what has ended is let go
            return
        end_trials_left(self.host, lambda number: is_held(self.run_folder, number))
        rows = BenchmarkRun.objects.filter(host=self.host)
        unfinished = rows.filter(state__in=BenchmarkRun.UNFINISHED).order_by("pk")
        # One that was begun is ended first, by whatever process.
        begun = unfinished.exclude(state=State.QUEUED).defer("document", "prompts")
        run = begun.first() or unfinished.defer("document", "prompts").first()
        if self._lives() or run is None or is_held(self.run_folder, run.pk):
            return
        self._count_failures(run)
        if self.failures > MOST_FAILURES:
            return self._give_up(run)
        if self.clock() >= self.next_start_s:
            self._start(run)

    def _lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _count_failures(self, run: BenchmarkRun) -> None:
        """A process of ours that has ended, while its run is not over."""
        if run.pk != self.number:
            self.failures = 0
            self.next_start_s = float("-inf")
        elif self.process is not None:
            self.failures += 1
            delay_s = backoff_s(self.failures, FIRST_DELAY_S, LONGEST_DELAY_S)
            self.next_start_s = self.clock() + delay_s
        self.number = run.pk
        self.process = None

    def _start(self, run: BenchmarkRun) -> None:
        """Raises OmniError where the machine has no process or no disk for it."""
        log.info("the process of %s is started", run)
        arguments = [str(MANAGE), "bench", "--run", str(run.pk)]
        with refusals():
            self.process = self.start_process(
                arguments, settings.OMNI_HOME.logs / LOG_NAME
            )

    def _give_up(self, run: BenchmarkRun) -> None:
        log.error("%s could not be ended by any process", run)
        ApiKey.objects.filter(pk=run.api_key_id).delete()
        BenchmarkRun.objects.filter(pk=run.pk).update(
            state=State.FAILED,
            step="",
            finished_at=timezone.now(),
            error_code="benchmark_failed",
            error=f"Its process ended {self.failures} times before it was done.",
            fix=f"Look into {LOG_NAME} among the logs, and see which deployments run.",
        )
        benchmarks_changed()


def cancel_running(host: str, timeout_s: float) -> None:
    """For the end of a panel: its benchmarks end before the engines that they measure do."""
    rows = BenchmarkRun.objects.filter(host__name=host, state=State.RUNNING)
    numbers = list(rows.values_list("pk", flat=True))
    rows.update(state=State.CANCELLING)

    ends_s = time.monotonic() + timeout_s
    run_folder = settings.OMNI_HOME.run
    while any(is_held(run_folder, number) for number in numbers):
        if time.monotonic() > ends_s:
            # The next agent ends what is left of it.
            return
        time.sleep(POLL_S)
