"""`manage.py bench NAME…`: measures deployments against each other, in turn and block by block."""

from __future__ import annotations

import asyncio
import signal
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.bench.asking import Target, target_at
from deployments.bench.blocks import Arm, rounds_of
from deployments.bench.load import Budget, ClosedLoop, run_load
from deployments.bench.metrics import METRICS, Run
from deployments.bench.prepared import (
    START_S,
    STOP_S,
    Processes,
    Stage,
    environment_of,
    facts_of,
    is_in,
    processes_of,
)
from deployments.bench.prompt_files import read_prompts
from deployments.bench.prompts import Prompt
from deployments.bench.report import SHOWN, Document, document
from deployments.bench.run import Benchmark, Heard
from deployments.bench.scenarios import NAMES, Load, scenario
from deployments.gateway.keys import create_key
from deployments.management.base import OmniCommand, add_json, seconds
from deployments.models import ApiKey, Deployment
from deployments.planning.settings import with_defaults
from deployments.services.deployments import get_deployment
from deployments.services.waiting import POLL_S
from deployments.states import InstanceState
from omni.database import DatabasePool
from omni.errors import OmniError

KEY_NAME = "bench"
MOST_ROUNDS = 40
DEFAULT_SCENARIO = "chat"
ANSWER_TOKENS = 128
# A cancellation ends what waits for it.
in_database = DatabasePool("bench", 1)
WARM_UP = Prompt("warm-up", ({"role": "user", "content": "Greet me briefly."},), 16)


class Command(OmniCommand):
    help = "Measure deployments against each other; the first one is the baseline."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="+", metavar="NAME")
        parser.add_argument("--scenario", choices=NAMES, default=DEFAULT_SCENARIO)
        parser.add_argument(
            "--prompts",
            metavar="FILE",
            help="questions of your own instead of a scenario, one JSON object a line",
        )
        parser.add_argument(
            "--concurrency",
            type=user_counts,
            metavar="N,N",
            help="users at once (default: the scenario's)",
        )
        parser.add_argument(
            "--repeats",
            type=int,
            default=MOST_ROUNDS,
            metavar="N",
            help="rounds at most; fewer when enough is known or the prompts are used up",
        )
        parser.add_argument(
            "--seconds",
            type=seconds,
            metavar="S",
            help="time at most; the round that runs then is finished",
        )
        parser.add_argument(
            "--gateway",
            default="http://127.0.0.1:8000",
            metavar="URL",
            help="where the panel listens (default: %(default)s)",
        )
        parser.add_argument(
            "--swap",
            action="store_true",
            help="one is up at a time, for deployments that need the same devices",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        # Whoever ends it wants the rig back as it was, by whatever signal. A job that a shell runs
        # in the background begins with that of Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            self._run(options)
        except KeyboardInterrupt:
            raise OmniError(
                "cancelled",
                "The run was stopped. Every deployment is wanted as it was before.",
            ) from None

    def _run(self, options: dict[str, Any]) -> None:
        names: list[str] = list(dict.fromkeys(options["names"]))
        context = least_context(names)
        called, prompts, users = questions(options, context)
        rounds = rounds_of(prompts, users, max(1, options["repeats"]))
        arms = tuple(Arm(name, count) for count in users for name in names)
        benchmark = Benchmark(arms, rounds, options["seconds"])

        with Stage(names, swaps=options["swap"]) as stage, a_key() as key:
            targets = {name: target_at(options["gateway"], name, key) for name in names}
            measuring = Measuring(stage, targets)
            asyncio.run(
                measuring.run(
                    benchmark, self._silence if options["json"] else self._heard
                )
            )
            deployments = [get_deployment(name) for name in names]
            facts = {row.name: facts_of(row) for row in deployments}
            environment = environment_of(deployments, swaps=options["swap"])

        made = document(called, benchmark, facts, environment, measuring.disturbed)
        if options["json"]:
            return self.say_json(made)
        self._show(made)

    def _heard(self, done: int, rounds: int) -> None:
        self.say(f"round {done} of at most {rounds}")
        self.stdout.flush()

    def _silence(self, done: int, rounds: int) -> None:
        pass

    # --- the table --------------------------------------------------------------------------------
    def _show(self, made: Document) -> None:
        for arm in made["arms"]:
            figures = ", ".join(
                f"{METRICS[name].title.lower()} {figure(arm[name]['p50'])} {METRICS[name].unit}"
                for name in SHOWN
            )
            users = f", {arm['concurrency']} users" if arm["concurrency"] > 1 else ""
            errors = f", {arm['errors']} not whole" if arm["errors"] else ""
            self.say(
                f"{arm['deployment']} ({arm['strategy']}{users}):"
                f" {arm['requests']} requests{errors}; {figures}"
            )
        for warning in made["warnings"]:
            self.say(f"disturbed: {warning}")
        self.say(made["answer"])


class Measuring:
    """Asks the deployments on a stage; `disturbed` says what happened to them meanwhile."""

    def __init__(self, stage: Stage, targets: dict[str, Target]) -> None:
        self.stage = stage
        self.targets = targets
        self.disturbed: list[str] = []
        self._known: dict[str, Processes] = {}

    async def run(self, benchmark: Benchmark, heard: Heard) -> None:
        for name in self.targets:
            if not self.stage.swaps:
                await self._warm_up(name)
        await benchmark.run(self._ask, heard)

    async def _ask(self, arm: Arm, prompts: Sequence[Prompt]) -> Run:
        name = arm.deployment
        if not await in_database(is_in)(name, InstanceState.READY):
            await self._bring(name)
            await self._warm_up(name)
        self._note(name, await in_database(processes_of)(name))

        budget = Budget(requests=len(prompts), warm_up=0)
        users = ClosedLoop(arm.users)
        loaded = await run_load(self.targets[name], iter(prompts), users, budget)

        self._note(name, await in_database(processes_of)(name))
        return loaded.run

    def _note(self, name: str, processes: Processes) -> None:
        """Another process than the last time disturbs, unless it was swapped on purpose."""
        if self._known.setdefault(name, processes) != processes:
            self._known[name] = processes
            self.disturbed.append(f"{name} was started again or changed meanwhile.")

    async def _bring(self, name: str) -> None:
        if self.stage.swaps:
            self._known.pop(name, None)
        for other in self.stage.others(name):
            await in_database(self.stage.stop)(other)
            await self._until(other, InstanceState.STOPPED, STOP_S)
        await in_database(self.stage.start)(name)
        await self._until(name, InstanceState.READY, START_S)

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


@contextmanager
def a_key() -> Iterator[str]:
    """Of this run alone."""
    key = create_key(KEY_NAME)
    try:
        yield key
    finally:
        ApiKey.objects.get_from_key(key).delete()


def questions(
    options: dict[str, Any], context: int
) -> tuple[str, list[Prompt], tuple[int, ...]]:
    """What is asked is called, the prompts, and how many users there are at once."""
    if options["prompts"]:
        path = Path(options["prompts"])
        users = options["concurrency"] or (1,)
        return path.name, read_prompts(path, ANSWER_TOKENS), users

    chosen = scenario(options["scenario"])
    if chosen.load is not Load.IN_TURN:
        raise OmniError(
            "scenario_not_yet",
            f"The command cannot run the scenario {chosen.name} yet.",
            "Choose another one.",
        )
    parts = chosen.fitting(context)
    if not parts:
        raise OmniError(
            "context_too_small",
            f"The scenario {chosen.name} needs a context of {chosen.context} tokens for each"
            f" request, and there are {context}.",
            "Give the deployments more context, or choose another scenario.",
        )
    # Of questions of several lengths the longest that fit.
    prompts = max(parts, key=lambda part: part.context).prompts
    return chosen.name, list(prompts), options["concurrency"] or chosen.concurrency


def least_context(names: Sequence[str]) -> int:
    """The tokens that one request has in each of the deployments."""
    return min(context_of(get_deployment(name)) for name in names)


def context_of(deployment: Deployment) -> int:
    settings = with_defaults(deployment.settings)
    return int(settings["context"]) // max(int(settings["parallel"]), 1)


def user_counts(text: str) -> tuple[int, ...]:
    """An argparse type: 1,4,8."""
    counts = tuple(int(part) for part in text.split(","))
    if not all(count >= 1 for count in counts):
        raise ArgumentTypeError(f"{text} are not numbers of users, such as 1,4")
    return tuple(dict.fromkeys(counts))


def figure(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1f}"
