"""`manage.py bench NAME…`: measures deployments against each other, in turn and block by block.

The agent's host does it, in a process of its own (`bench --run NUMBER`); this command waits for it.
"""

from __future__ import annotations

import signal
import time
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from deployments.bench.executing import execute
from deployments.bench.metrics import METRICS, ServiceLevel
from deployments.bench.prompt_files import read_prompts
from deployments.bench.questions import ANSWER_TOKENS
from deployments.bench.report import SHOWN, Document
from deployments.bench.runs import (
    MOST_ROUNDS,
    benchmark_cancel,
    benchmark_request,
    get_benchmark,
)
from deployments.bench.scenarios import NAMES
from deployments.bench.shape import (
    LEAST_RATE,
    MOST_LIMIT_MS,
    MOST_RATE,
    MOST_THINK_S,
    Shape,
)
from deployments.management.base import OmniCommand, add_json, seconds
from deployments.models import BenchmarkRun
from deployments.services.waiting import agent_is_running, no_agent
from omni.errors import OmniError

DEFAULT_SCENARIO = "chat"
POLL_S = 0.2
# A process that puts everything back waits for engines to end.
CANCEL_S = 180.0


class Command(OmniCommand):
    help = "Measure deployments against each other; the first one is the baseline."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--scenario", choices=NAMES, default=DEFAULT_SCENARIO)
        parser.add_argument(
            "--prompts",
            metavar="FILE",
            help="questions of your own instead of a scenario, one JSON object a line",
        )
        parser.add_argument(
            "--concurrency",
            type=user_counts,
            default=(),
            metavar="N,N",
            help="users at once (default: the scenario's)",
        )
        parser.add_argument(
            "--rate",
            type=rates,
            default=(),
            metavar="R,R",
            help="requests a second that come whoever still waits (open loop), such as 0.5,1;"
            " instead of --concurrency",
        )
        parser.add_argument(
            "--think-time",
            type=think_time,
            default=0.0,
            metavar="S",
            help="seconds of each user between an answer and the next question",
        )
        parser.add_argument(
            "--slo-first-token-ms",
            type=milliseconds,
            metavar="MS",
            help="service level: time to first token at most; goodput counts what keeps to it",
        )
        parser.add_argument(
            "--slo-token-ms",
            type=milliseconds,
            metavar="MS",
            help="service level: time per output token at most",
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
            help="one is up at a time; done anyway where they cannot run together",
        )
        # What the agent starts: does a run that was asked for.
        parser.add_argument("--run", type=int, help=SUPPRESS)
        add_json(parser)

    def run(self, **options: Any) -> None:
        if options["run"] is not None:
            return execute(options["run"])

        run = asked_for(options)
        say = self._silence if options["json"] else self._say_round
        # Whoever ends it wants the rig back as it was, by whatever signal. A job that a shell runs
        # in the background begins with that of Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            ended = self._follow(run, say)
        except KeyboardInterrupt:
            cancel(run)
            ended = self._follow(get_benchmark(run.pk), self._silence, CANCEL_S)

        check(ended)
        if options["json"]:
            return self.say_json(ended.document)
        self._show(ended.document or {})

    def _follow(
        self, run: BenchmarkRun, say: Any, timeout_s: float = float("inf")
    ) -> BenchmarkRun:
        """Until it is over. Raises OmniError where nobody does it (any more)."""
        ends_s = time.monotonic() + timeout_s
        rounds_said = 0
        while not run.is_over and time.monotonic() < ends_s:
            if run.rounds_done > rounds_said:
                rounds_said = run.rounds_done
                say(run)
            if run.state == BenchmarkRun.State.QUEUED and not agent_is_running(
                run.host
            ):
                benchmark_cancel(run=run)
                raise no_agent(run.host)
            time.sleep(POLL_S)
            run = get_benchmark(run.pk)
        return run

    def _say_round(self, run: BenchmarkRun) -> None:
        self.say(f"round {run.rounds_done} of at most {run.rounds_planned}")
        self.stdout.flush()

    def _silence(self, run: BenchmarkRun) -> None:
        pass

    # --- the table --------------------------------------------------------------------------------
    def _show(self, made: Document) -> None:
        for arm in made["arms"]:
            self.say(f"{arm_text(arm)}: {figures_text(arm)}")
            self.say(f"  {prediction_text(arm)}")
        for warning in made["warnings"]:
            self.say(f"disturbed: {warning}")
        for note in made["notes"]:
            self.say(f"note: {note}")
        self.say(made["answer"])
        self.say(f"Benchmark {made['id']} is kept.")


def asked_for(options: dict[str, Any]) -> BenchmarkRun:
    """Raises OmniError; then nothing was begun."""
    names: list[str] = list(dict.fromkeys(options["names"]))
    scenario, prompts = options["scenario"], None
    if options["prompts"]:
        path = Path(options["prompts"])
        scenario, prompts = path.name, read_prompts(path, ANSWER_TOKENS)
    return benchmark_request(
        names=names,
        scenario=scenario,
        prompts=prompts,
        concurrency=options["concurrency"],
        gateway=options["gateway"],
        most_rounds=options["repeats"],
        seconds=options["seconds"],
        swaps=options["swap"],
        shape=Shape(
            options["rate"],
            options["think_time"],
            ServiceLevel(options["slo_first_token_ms"], options["slo_token_ms"]),
        ),
    )


def cancel(run: BenchmarkRun) -> None:
    try:
        benchmark_cancel(run=run)
    except OmniError as error:
        if error.code != "benchmark_over":
            raise


def check(run: BenchmarkRun) -> None:
    """Raises OmniError of a run that did not come to its end."""
    if run.state == BenchmarkRun.State.DONE:
        return
    if run.state == BenchmarkRun.State.FAILED:
        raise OmniError(run.error_code, run.error, run.fix)
    if run.is_over:
        raise OmniError(
            "cancelled",
            "The run was stopped. Every deployment is wanted as it was before.",
        )
    raise OmniError(
        "timeout",
        f"{run} is still {run.get_state_display().lower()} ({run.step}).",
        "Look at its page.",
    )


# --- sentences ------------------------------------------------------------------------------------
def arm_text(arm: Document) -> str:
    users = f", {arm['concurrency']} users" if (arm["concurrency"] or 1) > 1 else ""
    if arm["rate"] is not None:
        users = f", {arm['rate']:g} requests/s"
    load = f", {arm['load']}" if arm["load"] else ""
    return f"{arm['deployment']} ({arm['strategy']}{users}{load})"


def figures_text(arm: Document) -> str:
    # Of a cold start that is what it is about.
    shown = ("start_ms", *SHOWN) if arm["start_ms"]["p50"] is not None else SHOWN
    figures = ", ".join(
        f"{METRICS[name].title.lower()} {figure(arm[name]['p50'])} {METRICS[name].unit}"
        for name in shown
    )
    errors = f", {arm['errors']} not whole" if arm["errors"] else ""
    return f"{arm['requests']} requests{errors}; {figures}{goodput_text(arm)}"


def goodput_text(arm: Document) -> str:
    """Empty where no service level was asked for."""
    if arm["goodput"] is None:
        return ""
    kept = f"{arm['kept_level']} of {arm['requests']} kept to the service level"
    return f", goodput {arm['goodput']:.3g} requests/s ({kept})"


def prediction_text(arm: Document) -> str:
    return ", ".join(
        f"{METRICS[name].title} {figure(arm[name]['p50'])} {METRICS[name].unit}"
        f" (predicted {figure(arm['predicted'][name])})"
        for name in ("prefill_tps", "decode_tps")
    )


def figure(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1f}"


def user_counts(text: str) -> tuple[int, ...]:
    """An argparse type: 1,4,8."""
    counts = tuple(int(part) for part in text.split(","))
    if not all(count >= 1 for count in counts):
        raise ArgumentTypeError(f"{text} are not numbers of users, such as 1,4")
    return tuple(dict.fromkeys(counts))


def rates(text: str) -> tuple[float, ...]:
    """An argparse type: 0.5,1."""
    found = tuple(float(part) for part in text.split(","))
    if not all(LEAST_RATE <= rate <= MOST_RATE for rate in found):
        raise ArgumentTypeError(f"{text} are not rates a second, such as 0.5,1")
    return tuple(dict.fromkeys(found))


def think_time(text: str) -> float:
    """An argparse type: seconds, 0 too."""
    found = float(text)
    if not 0 <= found <= MOST_THINK_S:
        raise ArgumentTypeError(f"{text} is no time to think, such as 2")
    return found


def milliseconds(text: str) -> float:
    """An argparse type."""
    found = float(text)
    if not 0 < found <= MOST_LIMIT_MS:
        raise ArgumentTypeError(f"{text} is no limit in milliseconds, such as 500")
    return found
