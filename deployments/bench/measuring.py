"""Asks the deployments of a run, block by block, and notes what happens to them meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle

from deployments.bench.asking import Asking, Target, write_text
from deployments.bench.blocks import Arm, Round, Unit
from deployments.bench.conditions import WatchedBlock
from deployments.bench.load import Budget, ClosedLoop, OpenLoop, run_load
from deployments.bench.metrics import Run
from deployments.bench.perplexity import Written
from deployments.bench.prepared import (
    STOP_S,
    Processes,
    Stage,
    devices_of,
    is_in,
    processes_of,
)
from deployments.bench.prompts import Prompt
from deployments.bench.scenarios import Load
from deployments.bench.shape import CLOSED, Shape
from deployments.bench.watching import Watch
from deployments.services.waiting import POLL_S
from deployments.states import InstanceState
from omni.database import DatabasePool
from omni.errors import OmniError

START_S = 600.0
# Longer than any block: what fills the time of the others is cancelled when they are done.
FILLING_S = 6 * 3600.0
WARM_UP = Prompt("warm-up", ({"role": "user", "content": "Greet me briefly."},), 16)

# A cancellation ends what waits for it.
in_database = DatabasePool("bench", 1)
# Says what is being done now.
Say = Callable[[str], Awaitable[None]]


class Measuring:
    """Asks the deployments on a stage; `disturbed` says what happened to them meanwhile, `watched`
    how the machine was in each block."""

    def __init__(
        self,
        stage: Stage,
        targets: Mapping[str, Target],
        load: Load,
        say: Say,
        watch: Watch,
        shape: Shape = CLOSED,
        *,
        asks_text: bool = False,
    ) -> None:
        self.asks_text = asks_text
        self.stage = stage
        self.shape = shape
        self.watch = watch
        self.targets = targets
        self.load = load
        self.say = say
        self.disturbed: list[str] = []
        self.watched: list[WatchedBlock] = []
        # How each wrote the text that tells its perplexity, where that is asked for.
        self.written: dict[str, Written] = {}
        self._known: dict[str, Processes] = {}

    async def make_room(self, others: Sequence[str]) -> None:
        """Stops deployments that are in the way of those on the stage."""
        for name in others:
            await self._stop(name)

    async def begin(self) -> None:
        """Brings up what is up together; each gives an answer that does not count."""
        if self.stage.swaps or self.load is Load.AFTER_START:
            return
        for name in self.targets:
            await self._bring(name)
        for name in self.targets:
            # One that swaps by itself may have been unloaded for the next.
            if not await in_database(is_in)(name, InstanceState.READY):
                raise OmniError(
                    "not_together",
                    f"{name} is not ready any more now that the others run.",
                    "With --swap one is up at a time.",
                )
            await self._warm_up(name)
            await self._write_text(name)

    async def ask(self, unit: Unit, prompts: Round) -> Mapping[Arm, Run]:
        """A block of each arm of the unit, all at the same time."""
        for arm in unit:
            await self.say(f"{arm} is asked")
        if self.load is Load.AFTER_START:
            [arm] = unit
            return {arm: await self._after_start(arm, prompts[arm])}

        for arm in unit:
            await self._ready(arm.deployment)
        if len(unit) == 1:
            [arm] = unit
            return {arm: await self._block(arm, prompts[arm])}
        return await self._together(unit, prompts)

    # --- blocks -----------------------------------------------------------------------------------
    async def _block(self, arm: Arm, prompts: Sequence[Prompt]) -> Run:
        name = arm.deployment
        self._note(name, await in_database(processes_of)(name))
        budget = Budget(requests=len(prompts), warm_up=0)
        devices = await in_database(devices_of)(name)
        # The same moments for all that are asked the same.
        arrivals = self._arrivals(arm, seed=prompts[0].name)
        run = await self._load(arm, iter(prompts), budget, arrivals)
        run = self._watched(arm, run, devices)
        self._note(name, await in_database(processes_of)(name))
        return run

    def _watched(self, arm: Arm, run: Run, devices: Sequence[str]) -> Run:
        seen = self.watch.conditions(run.began_s, run.ended_s, devices)
        number = 1 + sum(name == str(arm) for name, _, _ in self.watched)
        self.watched.append((str(arm), number, seen))
        return replace(
            run,
            energy_joules=seen.energy_joules,
            peak_memory_bytes=seen.peak_memory_bytes,
            link_gbps=seen.link_gbps,
        )

    async def _together(self, unit: Unit, prompts: Round) -> Mapping[Arm, Run]:
        """Who is done first goes on without being counted: the others are not to be alone."""
        found: dict[Arm, Run] = {}
        all_done = asyncio.Event()

        async def work(arm: Arm) -> None:
            found[arm] = await self._block(arm, prompts[arm])
            if len(found) == len(unit):
                all_done.set()
            await self._fill(arm, prompts[arm], all_done)

        try:
            async with asyncio.TaskGroup() as group:
                for arm in unit:
                    group.create_task(work(arm))
        except* OmniError as failures:
            raise failures.exceptions[0] from None
        return found

    async def _fill(
        self, arm: Arm, prompts: Sequence[Prompt], until: asyncio.Event
    ) -> None:
        budget = Budget(seconds=FILLING_S, warm_up=0)
        arrivals = self._arrivals(arm, seed="filling")
        filling = asyncio.create_task(self._load(arm, cycle(prompts), budget, arrivals))
        await until.wait()
        filling.cancel()
        with suppress(asyncio.CancelledError):
            await filling

    async def _after_start(self, arm: Arm, prompts: Sequence[Prompt]) -> Run:
        name = arm.deployment
        await self._stop(name)
        for other in self.stage.others(name):
            await self._stop(other)

        began_s = time.perf_counter()
        await self._start(name)
        start_ms = (time.perf_counter() - began_s) * 1000

        # It is another process each time, on purpose.
        self._known.pop(name, None)
        return replace(await self._block(arm, prompts), start_ms=start_ms)

    def _arrivals(self, arm: Arm, seed: str) -> ClosedLoop | OpenLoop:
        if arm.rate is not None:
            return OpenLoop(arm.rate, seed)
        return ClosedLoop(arm.users, self.shape.think_s)

    async def _load(
        self,
        arm: Arm,
        prompts: Iterator[Prompt],
        budget: Budget,
        arrivals: ClosedLoop | OpenLoop,
    ) -> Run:
        # The same prompts are asked alone and together there.
        asking = Asking(is_cache_off=arm.company is not None)
        loaded = await run_load(
            self.targets[arm.deployment],
            prompts,
            arrivals,
            budget,
            asking,
            service_level=self.shape.service_level,
        )
        return loaded.run

    def _note(self, name: str, processes: Processes) -> None:
        """Another process than the last time disturbs, unless it was swapped on purpose."""
        if self._known.setdefault(name, processes) != processes:
            self._known[name] = processes
            self.disturbed.append(f"{name} was started again or changed meanwhile.")

    # --- up and down ------------------------------------------------------------------------------
    async def _ready(self, name: str) -> None:
        if await in_database(is_in)(name, InstanceState.READY):
            return
        if self.stage.swaps:
            self._known.pop(name, None)
        await self._bring(name)
        await self._warm_up(name)
        await self._write_text(name)

    async def _bring(self, name: str) -> None:
        for other in self.stage.others(name):
            await self._stop(other)
        await self._start(name)

    async def _start(self, name: str) -> None:
        await self.say(f"{name} is being started")
        await in_database(self.stage.start)(name)
        await self._until(name, InstanceState.READY, START_S)

    async def _stop(self, name: str) -> None:
        await self.say(f"{name} is being stopped")
        await in_database(self.stage.stop)(name)
        await self._until(name, InstanceState.STOPPED, STOP_S)

    async def _until(self, name: str, state: InstanceState, timeout_s: float) -> None:
        """Raises OmniError: it failed, or it took too long."""
        ends_s = time.monotonic() + timeout_s
        while not await in_database(is_in)(name, state):
            if time.monotonic() > ends_s:
                raise OmniError(
                    "timeout",
                    f"{name} is not {state} after {timeout_s:g} s.",
                    "Look at its page.",
                    retry=True,
                )
            await asyncio.sleep(POLL_S)

    async def _warm_up(self, name: str) -> None:
        """The first answer of a process is slower than all others."""
        one = Budget(requests=1, warm_up=0)
        target = self.targets[name]
        loaded = await run_load(target, iter([WARM_UP]), ClosedLoop(1), one)
        first = loaded.run.measured[0]
        if not first.is_done:
            raise OmniError(
                "no_answer",
                f"{name} does not answer: {first.explanation or first.reason}",
                "Say with --gateway where the panel listens, and look at its page.",
            )

    async def _write_text(self, name: str) -> None:
        """Once, outside of all blocks."""
        if self.asks_text and name not in self.written:
            await self.say(f"{name} goes on with a fixed text, for its perplexity")
            self.written[name] = await write_text(self.targets[name])
