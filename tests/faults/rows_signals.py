"""SIGKILL and SIGSTOP of an engine and of its runner, in every state."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSEGV, SIGSTOP, SIGTERM, Signals

from tests.faults.rig import Rig
from tests.faults.table import AGAIN, UNTOUCHED, Ends, Row

Strike = Callable[[Rig], None]
KILLED = Ends(is_same=False, restarts=1, code="killed", says=("SIGKILL", "memory"))
STOPPED = Ends("stopped")
HUNG = Ends(is_same=False, restarts=1, code="hung", says=("does not answer",))
STUCK = Ends("failed", code="never_ready", says=("did not get ready",))
SLOW_THEN_SERVE = ("slow", "serve")


def engine(*numbers: Signals) -> Strike:
    def strike(rig: Rig) -> None:
        for number in numbers:
            rig.signal(number)

    return strike


def runner(*numbers: Signals) -> Strike:
    def strike(rig: Rig) -> None:
        for number in numbers:
            rig.signal(number, runner=True)

    return strike


def runner_halts_then_engine_dies(rig: Rig) -> None:
    """Nobody is left who could tell why it ended."""
    rig.signal(SIGSTOP, runner=True)
    rig.signal(SIGKILL)


def killed_each_time_it_is_ready(rig: Rig) -> None:
    for _ in range(2):
        pid = rig.instance.pid
        rig.signal(SIGKILL)
        rig.until(lambda pid=pid: rig.state == "ready" and rig.instance.pid != pid, 20)
    rig.signal(SIGKILL)


ROWS = (
    Row("engine", "SIGKILL", "starting", engine(SIGKILL), KILLED),
    Row("engine", "SIGKILL", "loading", engine(SIGKILL), KILLED, SLOW_THEN_SERVE),
    Row("engine", "SIGKILL", "ready", engine(SIGKILL), KILLED, ("serve",)),
    Row("engine", "SIGKILL", "generating", engine(SIGKILL), KILLED),
    Row("engine", "SIGKILL", "stopping", engine(SIGKILL), STOPPED),
    Row("engine", "SIGKILL", "unhealthy", engine(SIGKILL), KILLED, ("serve",)),
    Row("engine", "SIGSEGV", "ready", engine(SIGSEGV), Ends(is_same=False, restarts=1, code="crashed", says=("SIGSEGV",)), ("serve",)),
    Row("engine", "SIGKILL three times", "ready", killed_each_time_it_is_ready,
        Ends("failed", code="killed", says=("3 times in a row", "Start tries again")), ("serve",), mend=lambda rig: None),
    Row("engine", "ends by itself", "ready", engine(SIGTERM), AGAIN, ("serve",)),
    Row("engine", "SIGSTOP", "starting", engine(SIGSTOP), STUCK, SLOW_THEN_SERVE, mend=lambda rig: None),
    Row("engine", "SIGSTOP", "loading", engine(SIGSTOP), STUCK, SLOW_THEN_SERVE, mend=lambda rig: None),
    Row("engine", "SIGSTOP", "ready", engine(SIGSTOP), HUNG, ("serve",)),
    Row("engine", "SIGSTOP", "generating", engine(SIGSTOP), HUNG),
    Row("engine", "SIGSTOP", "stopping", engine(SIGSTOP), STOPPED, ("deaf",)),
    Row("engine", "SIGSTOP and SIGCONT", "ready", engine(SIGSTOP, SIGCONT), UNTOUCHED, ("serve",)),
    Row("runner", "SIGKILL", "starting", runner(SIGKILL), KILLED, SLOW_THEN_SERVE),
    Row("runner", "SIGKILL", "loading", runner(SIGKILL), KILLED, SLOW_THEN_SERVE),
    Row("runner", "SIGKILL", "ready", runner(SIGKILL), KILLED, ("serve",)),
    Row("runner", "SIGKILL", "generating", runner(SIGKILL), KILLED),
    Row("runner", "SIGKILL", "stopping", runner(SIGKILL), STOPPED, ("deaf",)),
    Row("runner", "SIGKILL", "unhealthy", runner(SIGKILL), KILLED, ("serve",)),
    Row("runner", "SIGKILL, the engine has children", "ready", runner(SIGKILL), KILLED, ("family", "serve")),
    Row("engine", "SIGKILL, it has children", "ready", engine(SIGKILL), KILLED, ("family", "serve")),
    Row("runner", "SIGTERM, SIGINT, SIGHUP", "ready", runner(SIGTERM, SIGINT, SIGHUP), UNTOUCHED, ("serve",)),
    Row("runner", "SIGSTOP", "ready", runner(SIGSTOP), UNTOUCHED, ("serve",)),
    Row("runner", "SIGSTOP", "stopping", runner(SIGSTOP), STOPPED, ("deaf",)),
    Row("runner", "SIGSTOP, then SIGKILL of the engine", "ready", runner_halts_then_engine_dies,
        Ends(is_same=False, restarts=1, code="hung", says=("no longer accepts connections",)), ("serve",)),
    Row("engine", "accepts and never answers", "stopped", Rig.start, STUCK, ("mute", "serve"), mend=lambda rig: None),
    Row("engine", "answers what is not HTTP", "stopped", Rig.start, STUCK, ("garbage", "serve"), mend=lambda rig: None),
    Row("engine", "answers a byte at a time", "stopped", Rig.start, STUCK, ("drip", "serve"), mend=lambda rig: None),
    Row("engine", "answers 503 for ever", "stopped", Rig.start, STUCK, ("loading", "serve"), mend=lambda rig: None),
)  # fmt: skip
