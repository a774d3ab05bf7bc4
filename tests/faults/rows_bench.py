"""Faults while a benchmark of the deployment is measured: how the run ends, and how the rig is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tests.faults.panel_rig import PanelRig
from tests.faults.rows_disk import fill
from tests.faults.table import UNTOUCHED, Ends, Row
from tests.helpers import of_itself, wait_until

ROUNDS = 3
# Each run has words of its own at the beginning: nothing of it is in the engine's cache.
ASK = """
from deployments.bench.prompts import Prompt
from deployments.bench.runs import benchmark_request
prompts = [
    Prompt(f"own/{n}", ({"role": "user", "content": f"WORD {n}: tell a story."},), 24)
    for n in range(4 * ROUNDS)
]
run = benchmark_request(
    names=["smol"], scenario="own", prompts=prompts, most_rounds=ROUNDS, gateway="URL"
)
print(run.pk)
"""
# The same of a layout that is not deployed: it gets a trial.
ASK_TRIAL = ASK.replace(
    "bench.runs import benchmark_request", "bench.trials import trial_request"
)
ASK_TRIAL = ASK_TRIAL.replace("benchmark_request(", "trial_request(").replace(
    'names=["smol"]',
    """wanted=[{
        "strategy": "independent",
        "models": {"model": Model.objects.get().name},
        "devices": {"model": ["CPU"]},
        "settings": {"context": 1024, "threads": 1},
    }], seconds=600""",
)
ASK_TRIAL = f"from deployments.models import Model{ASK_TRIAL}"
CANCEL = """
from deployments.bench.runs import benchmark_cancel, get_benchmark
benchmark_cancel(run=get_benchmark(NUMBER))
"""
CHANGE = """
from deployments.services.deployments import deployment_change, get_deployment
smol = get_deployment("smol")
deployment_change(deployment=smol, settings={**smol.settings, "context": CONTEXT})
"""


@dataclass(frozen=True)
class Outcome:
    """How a run ends: its state, whether it gives a verdict, and a word of what it says."""

    state: str
    valid: bool
    says: str = ""


class Benchmarking:
    """A run of the rig's deployment, asked for as a page asks for it."""

    def __init__(self, rig: PanelRig, ask: str = ASK) -> None:
        self.rig = rig
        ask = ask.replace("ROUNDS", str(ROUNDS)).replace("URL", rig.panel.url)
        self.number = int(self.shell(ask.replace("WORD", uuid4().hex)))

    def shell(self, code: str) -> str:
        done = self.rig.panel.manage("shell", "-v0", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def row(self, columns: str) -> tuple[Any, ...]:
        query = (
            f"SELECT {columns} FROM deployments_benchmarkrun WHERE id = {self.number}"
        )
        return self.rig.rows(query)[0]

    def under_way(self) -> None:
        """It has found something, and has more to find."""
        self.rig.until(lambda: self.row("rounds_done")[0] >= 1, 150)
        assert self.row("state")[0] == "running", self.row("state, error")

    def ends(self, outcome: Outcome) -> None:
        self.rig.until(lambda: self.row("finished_at")[0] is not None, 240)
        state, text, error = self.row("state, document, error")
        document = json.loads(text)
        said = f"{error} {document['warnings']} {document['answer']}"
        is_valid = of_itself(document["warnings"]) == []
        assert (state, is_valid) == (outcome.state, outcome.valid), said
        assert outcome.says in said
        # What it measured is there, and so is nothing that it needed.
        assert document["arms"][0]["requests"] >= 4
        assert (
            self.rig.rows(
                "SELECT name FROM deployments_apikey WHERE name LIKE 'benchmark%'"
            )
            == []
        )
        wait_until(lambda: not list(self.processes()), 10, "its process is left")

    def processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                is_run = (process.info["cmdline"] or [])[2:4] == ["bench", "--run"]
                home = process.environ().get("OMNI_HOME") if is_run else None
                if home == str(self.rig.panel.home):
                    yield process


# --- strikes --------------------------------------------------------------------------------------
Hit = Callable[[Benchmarking], None]


def measuring_a_trial(hit: Hit, outcome: Outcome) -> Callable[[PanelRig], None]:
    """The same, and the trial goes away."""

    def strike(rig: PanelRig) -> None:
        run = Benchmarking(rig, ASK_TRIAL)
        run.under_way()
        assert len(deployments(rig)) == 2
        hit(run)
        run.ends(outcome)
        rig.until(lambda: deployments(rig) == ["smol"], 60)

    return strike


def deployments(rig: PanelRig) -> list[str]:
    return [name for (name,) in rig.rows("SELECT name FROM deployments_deployment")]


def measuring(hit: Hit, outcome: Outcome) -> Callable[[PanelRig], None]:
    """Hit in the middle of a run, which then ends as it should."""

    def strike(rig: PanelRig) -> None:
        run = Benchmarking(rig)
        run.under_way()
        hit(run)
        run.ends(outcome)

    return strike


def its_process(run: Benchmarking) -> None:
    [process] = run.processes()
    process.kill()


def part(marker: str) -> Hit:
    def hit(run: Benchmarking) -> None:
        run.rig.signal_part(marker, SIGKILL)

    return hit


def its_engine(run: Benchmarking) -> None:
    assert run.rig.pid
    os.kill(run.rig.pid, SIGKILL)


def cancelled(run: Benchmarking) -> None:
    run.shell(CANCEL.replace("NUMBER", str(run.number)))


def its_deployment_changed(run: Benchmarking) -> None:
    context = 4096 if run.rig.instance("generation")[0] % 2 else 3072
    run.shell(CHANGE.replace("CONTEXT", str(context)))


@contextmanager
def full_disk(run: Benchmarking) -> Iterator[None]:
    home = run.rig.panel.home
    if not os.path.ismount(home):
        pytest.skip("file systems cannot be mounted here")
    filler = home / "filler"
    try:
        with suppress(OSError):
            # What others write at the same moment fills it, too.
            fill(filler)
        yield
    finally:
        filler.unlink()


def disk_full_for_a_while(run: Benchmarking) -> None:
    done = run.row("rounds_done")[0]
    with full_disk(run):
        # It goes on although nothing can be kept.
        [process] = run.processes()
        before = process.cpu_times().user
        wait_until(lambda: process.cpu_times().user > before, 20, "it stands still")
    assert run.row("rounds_done")[0] >= done


DONE = Outcome("done", valid=True)
ROWS = (
    Row("benchmark", "SIGKILL of its process", "ready", measuring(its_process, Outcome("failed", valid=False, says="was ended from outside")), UNTOUCHED, within_s=60),
    Row("benchmark", "SIGKILL of its process, with a trial", "ready", measuring_a_trial(its_process, Outcome("failed", valid=False, says="was ended from outside")), UNTOUCHED, within_s=60),
    Row("benchmark", "cancelled", "ready", measuring(cancelled, Outcome("cancelled", valid=False, says="It was cancelled")), UNTOUCHED, within_s=60),
    Row("benchmark", "SIGKILL of the agent", "ready", measuring(part("agent"), DONE), UNTOUCHED, within_s=60),
    Row("benchmark", "SIGKILL of the broker", "ready", measuring(part("valkey-server"), DONE), UNTOUCHED, within_s=60),
    Row("benchmark", "SIGKILL of the web server", "ready", measuring(part("serve"), Outcome("done", valid=False, says="not whole")), UNTOUCHED, within_s=60),
    Row("benchmark", "SIGKILL of the engine", "ready", measuring(its_engine, Outcome("done", valid=False)), Ends(is_same=False, restarts=1), within_s=60),
    Row("benchmark", "its deployment is changed", "ready", measuring(its_deployment_changed, Outcome("done", valid=False, says="was started again or changed")), Ends(is_same=False), within_s=60),
    Row("benchmark", "a full disk for a while", "ready", measuring(disk_full_for_a_while, DONE), UNTOUCHED, within_s=60),
)  # fmt: skip
