"""Does one benchmark, from the moment its process takes it up until the rig is as it was.

The process belongs to nobody: pages, agent and broker may go away meanwhile. It keeps what it found
after each round, so that whoever finds its run without it can end that with a report.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from deployments.announce import benchmarks_changed
from deployments.bench.asking import target_at
from deployments.bench.conditions import marks
from deployments.bench.measuring import Measuring, in_database
from deployments.bench.prepared import (
    Stage,
    differ_in_precision,
    environment_of,
    facts_of,
    in_the_way_of,
    restore,
    wanted_before,
    wrong_answers,
)
from deployments.bench.questions import Questions
from deployments.bench.report import Known, document, spoiled
from deployments.bench.run import Benchmark
from deployments.bench.runs import asked_by, shape_of
from deployments.bench.scenarios import Load
from deployments.bench.watching import Watch
from deployments.gateway.keys import create_key
from deployments.models import ApiKey, BenchmarkRun
from deployments.services.benchmarked import keep_measured
from deployments.services.deployments import get_deployment
from deployments.services.history_marks import mark_run
from deployments.services.trials import end_trials
from omni.backoff import backoff_s
from omni.errors import OmniError
from omni.file_locks import is_locked

log = logging.getLogger(__name__)

State = BenchmarkRun.State
LOOK_S = 0.5
# How often the end of a run is written again while the database takes nothing.
MOST_SAVES = 12
LONGEST_SAVE_DELAY_S = 30.0
ENDED_EARLY = "The run was ended before its time: {}"
CANCELLED = "It was cancelled."
PROCESS_ENDED = OmniError(
    "process_ended",
    "The process of the benchmark was ended from outside.",
    "Run it again; deployments are wanted as they were before.",
)
PAGE_CACHE = (
    "Each start found the model's files in the machine's memory, as it is after a swap of models;"
    " the first start after the machine's own is slower."
)


# --- the process ----------------------------------------------------------------------------------
def lock_path(run_folder: Path, number: int) -> Path:
    """Held by the process of a run for as long as it lives."""
    folder = run_folder / "benchmarks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{number}.lock"


def is_held(run_folder: Path, number: int) -> bool:
    """Whether the process of this run lives."""
    return is_locked(lock_path(run_folder, number))


@contextmanager
def _hold(number: int) -> Iterator[bool]:
    """False when another process has it."""
    path = lock_path(settings.OMNI_HOME.run, number)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        path.unlink(missing_ok=True)


def execute(number: int) -> None:
    """Does the run, or ends what another process left of it; the row says how that went."""
    with _hold(number) as is_mine:
        run = BenchmarkRun.objects.filter(pk=number).select_related("host").first()
        if not is_mine or run is None or run.is_over:
            return
        if run.state != State.QUEUED:
            return Execution(run).end_what_was_left()
        if _take(run):
            Execution(run).carry_out()


def _take(run: BenchmarkRun) -> bool:
    """False: it was cancelled while it waited."""
    queued = BenchmarkRun.objects.filter(pk=run.pk, state=State.QUEUED)
    now = timezone.now()
    if not queued.update(state=State.RUNNING, started_at=now, step="preparing"):
        return False
    run.refresh_from_db()
    mark_run(run, "began")
    benchmarks_changed()
    return True


# --- one run --------------------------------------------------------------------------------------
class Execution:
    """A run that this process has taken up."""

    def __init__(self, run: BenchmarkRun) -> None:
        self.run = run
        self.rows = BenchmarkRun.objects.filter(pk=run.pk)
        self.made: dict[str, Any] | None = run.document

    def carry_out(self) -> None:
        """Every way out of it puts the rig back and writes how it ended."""
        failure: OmniError | None = None
        state = State.DONE
        try:
            with Watch(self.run.host.name, own=self.run.names) as watch:
                asyncio.run(self._measured(watch))
        except asyncio.CancelledError:
            state = State.CANCELLED
            self._spoil(CANCELLED)
        except OmniError as error:
            failure = error
        except Exception as error:
            log.exception("%s failed", self.run)
            failure = _unexpected(error)

        if failure:
            state = State.FAILED
            self._spoil(ENDED_EARLY.format(failure.text))
        self._finish(state, failure)

    def end_what_was_left(self) -> None:
        """Its process is gone: what it found is kept, and says that it is not all."""
        log.warning("the process of benchmark %s ended early", self.run.pk)
        if self.run.state == State.CANCELLING:
            self._spoil(CANCELLED)
            self._finish(State.CANCELLED, None)
            return
        self._spoil(ENDED_EARLY.format(PROCESS_ENDED.text))
        self._finish(State.FAILED, PROCESS_ENDED)

    # --- measuring --------------------------------------------------------------------------------
    async def _measured(self, watch: Watch) -> None:
        """Ends with CancelledError when somebody cancels, by the page or by a signal."""
        task = asyncio.current_task()
        assert task
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)

        watching = asyncio.create_task(self._watch(task.cancel))
        try:
            await self._measure(watch)
        finally:
            watching.cancel()

    async def _watch(self, cancel: Callable[[], object]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(DatabaseError):
                if not await in_database(self._is_wanted)():
                    cancel()
                    return

    def _is_wanted(self) -> bool:
        """Also a run whose row somebody deleted is not wanted."""
        return self.rows.filter(state=State.RUNNING).exists()

    async def _measure(self, watch: Watch) -> None:
        run = self.run
        questions = await in_database(asked_by)(run)
        in_the_way = await in_database(self._in_the_way)()
        key = await in_database(self._prepare)(in_the_way)

        stage = Stage(run.names, swaps=run.swaps)
        targets = {name: target_at(run.gateway, name, key) for name in run.names}
        asks_text = questions.load is Load.IN_TURN and await in_database(
            differ_in_precision
        )(run.names)
        measuring = Measuring(
            stage,
            targets,
            questions.load,
            self._say,
            watch,
            shape_of(run),
            asks_text=asks_text,
        )
        benchmark = Benchmark(
            questions.arms,
            questions.rounds,
            run.seconds,
            metrics=questions.metrics,
        )

        async def heard(number: int) -> None:
            known = await in_database(self._known)(questions, measuring)
            self.made = document(benchmark, known)
            await in_database(self._keep)(
                rounds_done=number,
                rounds_planned=benchmark.rounds_planned,
                document=self.made,
            )

        try:
            await measuring.make_room(in_the_way)
            await measuring.begin()
            await benchmark.run(measuring.ask, heard)
        finally:
            stage.end()

    def _in_the_way(self) -> list[str]:
        if self.run.makes_room:
            return in_the_way_of(self.run.names)
        return []

    def _prepare(self, in_the_way: Sequence[str]) -> str:
        """What has to be put back is written down before anything is touched."""
        with transaction.atomic():
            key = create_key(f"benchmark {self.run.pk}")
            found = ApiKey.objects.get_from_key(key)
            self.run.api_key = ApiKey.objects.get(pk=found.pk)
            self.run.were_wanted = wanted_before([*self.run.names, *in_the_way])
            self.run.save(update_fields=["api_key", "were_wanted"])
        return key

    def _known(self, questions: Questions, measuring: Measuring) -> Known:
        run = self.run
        deployments = [get_deployment(name) for name in run.names]
        found = marks(measuring.watched)
        page_cache = [PAGE_CACHE] if questions.load is Load.AFTER_START else []
        environment = environment_of(deployments, swaps=run.swaps)
        environment["conditions"] = measuring.watch.environment()
        return Known(
            run.scenario,
            {row.name: facts_of(row) for row in deployments},
            environment,
            number=run.pk,
            disturbed=[
                *measuring.disturbed,
                *found.warnings,
                *wrong_answers(run.names),
            ],
            notes=[*page_cache, *found.notes],
            expected=questions.expected,
            shape=shape_of(run),
            written=measuring.written,
            are_same_processes=(
                not run.swaps
                and questions.load is not Load.AFTER_START
                and not measuring.disturbed
            ),
        )

    # --- telling ----------------------------------------------------------------------------------
    async def _say(self, step: str) -> None:
        await in_database(self._keep)(step=step[:200])

    def _keep(self, **values: Any) -> None:
        """Progress: a database that takes nothing for a while does not end the run."""
        try:
            self.rows.update(**values)
        except DatabaseError as error:
            log.warning("the progress of %s was not kept: %s", self.run, error)
        benchmarks_changed()

    def _spoil(self, warning: str) -> None:
        if self.made:
            self.made = spoiled(self.made, warning)

    def _finish(self, state: str, failure: OmniError | None) -> None:
        """The rig first: who reads that a run is over finds it as it was."""
        self._keep(step="putting everything back")
        try:
            _until_it_is_written(self._put_back)
        except OmniError as error:
            failure = failure or error
            state = State.FAILED
        values = {
            "state": state,
            "step": "",
            "document": self.made,
            "finished_at": timezone.now(),
            "error_code": failure.code if failure else "",
            "error": failure.text if failure else "",
            "fix": failure.fix if failure else "",
        }
        _until_it_is_written(lambda: self.rows.update(**values))
        _until_it_is_written(lambda: mark_run(self.run, f"ended ({state})"))
        benchmarks_changed()
        self._teach_the_planner()
        # What was learnt is of deployments that are there.
        end_trials(self.run.pk)

    def _teach_the_planner(self) -> None:
        """Later predictions go by what was measured, where this run may say anything."""
        run = self.rows.select_related("host").first()
        if run:
            kept = keep_measured(run)
            log.info("%s measurements were kept of %s", kept, run)

    def _put_back(self) -> None:
        key = self.run.api_key
        if key and key.pk:
            key.delete()
        if self.run.were_wanted:
            restore(self.run.were_wanted)


def _until_it_is_written(write: Callable[[], object]) -> None:
    """A disk that is full now has room later. Raises DatabaseError when it does not."""
    for attempt in range(1, MOST_SAVES):
        try:
            write()
            return
        except DatabaseError as error:
            log.warning("the end of a benchmark is not written yet: %s", error)
            time.sleep(backoff_s(attempt, LOOK_S, LONGEST_SAVE_DELAY_S))
    write()


def _unexpected(error: Exception) -> OmniError:
    return OmniError(
        "benchmark_failed",
        f"The benchmark failed: {type(error).__name__}.",
        "Look into the log of benchmarks, and run it again.",
    )
