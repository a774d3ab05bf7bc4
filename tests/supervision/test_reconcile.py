"""What is done next with an instance: desired, observed and remembered in, one decision out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.states import InstanceState as S
from deployments.states import deployment_state
from deployments.supervision.decision import (
    Action,
    Desired,
    Health,
    Limits,
    Memory,
    Observed,
)
from deployments.supervision.log_reading import Cause
from deployments.supervision.reconcile import decide

LIMITS = Limits()
RUN, STOP = Desired(True, 1), Desired(False, 1)
GONE = Observed()
CRASH = Observed(cause=Cause("crashed", "It crashed.", ""), generation=1)
AT_WORK = replace(CRASH, was_at_work=True)
HOPELESS = Observed(
    cause=Cause("flag_unknown", "No such flag.", "", permanent=True), generation=1
)
NOW = 1000.0


def alive(health: Health, generation: int = 1) -> Observed:
    return Observed(health, generation)


def busy(health: Health, generation: int = 1) -> Observed:
    return replace(alive(health, generation), is_busy=True)


def memory(state: S, **values: object) -> Memory:
    known = {
        "generation": 1,
        "since_s": NOW - 1,
        "answered_s": NOW - 1,
        "next_start_s": NOW - 1,
    }
    return Memory(state=state, **{**known, **values})  # type: ignore[arg-type]


READY = {"ready_s": NOW - 5}
CASES = {
    "nothing runs and nothing ought to": (STOP, GONE, memory(S.STOPPED), Action.CLEAR, S.STOPPED),
    "it ought to run": (RUN, GONE, memory(S.STOPPED), Action.START, S.STARTING),
    "it ought to run and its device server is not there yet": (
        replace(RUN, blocked_by=("RPC0",)), GONE, memory(S.STOPPED), Action.NOTHING, S.STARTING,
    ),
    "its process is there and does not listen": (RUN, alive(Health.REFUSED), memory(S.STARTING), Action.NOTHING, S.STARTING),
    "it loads": (RUN, alive(Health.LOADING), memory(S.STARTING), Action.NOTHING, S.LOADING),
    "it loads for too long": (RUN, alive(Health.LOADING), memory(S.LOADING, next_start_s=NOW - 90), Action.KILL, S.FAILED),
    "it loads for long, as engines of its kind do": (replace(RUN, slow_load_s=600.0), alive(Health.LOADING), memory(S.LOADING, next_start_s=NOW - 90), Action.NOTHING, S.LOADING),
    "it answers": (RUN, alive(Health.READY), memory(S.LOADING), Action.NOTHING, S.READY),
    "an agent that starts finds it running": (RUN, alive(Health.READY), memory(S.READY, **READY), Action.NOTHING, S.READY),
    "stop was asked for": (STOP, alive(Health.READY), memory(S.READY, **READY), Action.TERMINATE, S.STOPPING),
    "stop was asked for while it loads": (STOP, alive(Health.LOADING), memory(S.LOADING), Action.TERMINATE, S.STOPPING),
    "it is stopping": (STOP, alive(Health.READY), memory(S.STOPPING, terminated_s=NOW - 1, terminations=1), Action.NOTHING, S.STOPPING),
    "it waits for its clients": (STOP, alive(Health.READY), memory(S.STOPPING, terminated_s=NOW - 5.5, terminations=1), Action.TERMINATE, S.STOPPING),
    "it is deaf": (STOP, alive(Health.SILENT), memory(S.STOPPING, terminated_s=NOW - 8, terminations=2), Action.KILL, S.STOPPING),
    "it has stopped": (STOP, GONE, memory(S.STOPPING, terminated_s=NOW - 1), Action.CLEAR, S.STOPPED),
    "started while it still stops": (RUN, alive(Health.READY), memory(S.STOPPING, terminated_s=NOW - 1, terminations=1), Action.NOTHING, S.STOPPING),
    "started after a stop was under way": (replace(RUN, generation=2), GONE, memory(S.STOPPING), Action.START, S.STARTING),
    "its settings were changed": (replace(RUN, generation=2), alive(Health.READY, 1), memory(S.READY, **READY), Action.TERMINATE, S.STOPPING),
    "stop was asked for and answers are on their way": (
        replace(STOP, drain_s=30), busy(Health.READY), memory(S.READY, **READY), Action.NOTHING, S.STOPPING,
    ),
    "answers are on their way and it hangs": (
        replace(STOP, drain_s=60), busy(Health.SILENT),
        memory(S.STOPPING, since_s=NOW - 25, answered_s=NOW - 21), Action.TERMINATE, S.STOPPING,
    ),
    "the last answer has ended": (
        replace(STOP, drain_s=30), alive(Health.READY), memory(S.STOPPING, since_s=NOW - 3), Action.TERMINATE, S.STOPPING,
    ),
    "answers are on their way for too long": (
        replace(STOP, drain_s=30), busy(Health.READY), memory(S.STOPPING, since_s=NOW - 30), Action.TERMINATE, S.STOPPING,
    ),
    "it was ended for good and its clients still wait": (
        replace(STOP, drain_s=30), busy(Health.READY), memory(S.STOPPING, since_s=NOW - 32, terminated_s=NOW - 1.5, terminations=1),
        Action.TERMINATE, S.STOPPING,
    ),
    "it is started again while its answers finish": (
        RUN, busy(Health.READY), memory(S.STOPPING, since_s=NOW - 3, ready_s=NOW - 50), Action.NOTHING, S.READY,
    ),
    "its settings were changed and answers are on their way": (
        replace(RUN, generation=2, drain_s=30), busy(Health.READY, 1), memory(S.READY, **READY), Action.NOTHING, S.STOPPING,
    ),
    "a device server it uses was started again": (
        replace(RUN, needs_restart=True), alive(Health.READY), memory(S.READY, **READY), Action.TERMINATE, S.STOPPING,
    ),
    "it crashed": (RUN, CRASH, memory(S.READY, **READY), Action.NOTHING, S.CRASHED),
    "it crashed while loading": (RUN, CRASH, memory(S.LOADING), Action.NOTHING, S.CRASHED),
    "it crashed and waits": (RUN, GONE, memory(S.CRASHED, next_start_s=NOW + 3), Action.NOTHING, S.CRASHED),
    "it crashed and the wait is over": (RUN, GONE, memory(S.CRASHED, next_start_s=NOW - 0.1), Action.START, S.STARTING),
    "it crashed for the fifth time at work on requests": (RUN, AT_WORK, memory(S.READY, failures=4, **READY), Action.NOTHING, S.CRASHED),
    "it ended for the fifth time at work, and by no signal": (RUN, replace(CRASH, cause=Cause("exited", "It ended.", ""), was_at_work=True), memory(S.READY, failures=4, **READY), Action.NOTHING, S.FAILED),
    "it crashed while loading for the fifth time, and requests waited": (RUN, AT_WORK, memory(S.LOADING, failures=4), Action.NOTHING, S.FAILED),
    "it crashed for the fifth time": (RUN, CRASH, memory(S.LOADING, failures=4), Action.NOTHING, S.FAILED),
    "its end is for good": (RUN, HOPELESS, memory(S.STARTING), Action.NOTHING, S.FAILED),
    "it has failed and nobody asked again": (RUN, GONE, memory(S.FAILED, failures=5), Action.NOTHING, S.FAILED),
    "it has failed and somebody presses Start": (replace(RUN, generation=2), GONE, memory(S.FAILED, failures=5), Action.START, S.STARTING),
    "it has failed and is stopped": (STOP, GONE, memory(S.FAILED), Action.CLEAR, S.STOPPED),
    "it blinks": (RUN, alive(Health.SILENT), memory(S.READY, **READY), Action.NOTHING, S.READY),
    "it does not answer": (RUN, alive(Health.SILENT), memory(S.READY, ready_s=NOW - 50, answered_s=NOW - 5), Action.NOTHING, S.UNHEALTHY),
    "it hangs": (RUN, alive(Health.SILENT), memory(S.UNHEALTHY, ready_s=NOW - 50, answered_s=NOW - 21), Action.KILL, S.CRASHED),
    "it no longer listens": (RUN, alive(Health.REFUSED), memory(S.UNHEALTHY, ready_s=NOW - 50, answered_s=NOW - 5), Action.NOTHING, S.UNHEALTHY),
    "it has not listened for long": (RUN, alive(Health.REFUSED), memory(S.UNHEALTHY, ready_s=NOW - 50, answered_s=NOW - 21), Action.KILL, S.CRASHED),
    "it never gets ready": (RUN, alive(Health.LOADING), memory(S.LOADING, next_start_s=NOW - 61), Action.KILL, S.FAILED),
    "a large file may take longer": (
        replace(RUN, file_bytes=400_000_000_000), alive(Health.LOADING), memory(S.LOADING, next_start_s=NOW - 61), Action.NOTHING, S.LOADING,
    ),
    "the host was started again": (RUN, GONE, memory(S.READY, **READY), Action.START, S.STARTING),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_next_step_when(case: str) -> None:
    desired, seen, before, action, state = CASES[case]
    decision = decide(desired, seen, before, NOW, LIMITS)
    assert (decision.action, decision.memory.state) == (action, state)
    assert decision.changed == (before.state != state) or before.state in (
        S.STOPPING,
        S.CRASHED,
        S.FAILED,
    )


def test_how_long_answers_may_still_take_is_told() -> None:
    decision = decide(
        replace(STOP, drain_s=30),
        busy(Health.READY),
        memory(S.STOPPING, since_s=NOW - 12),
        NOW,
        LIMITS,
    )
    assert decision.drains_s == 18 and decision.is_draining


def test_delays_double_to_a_minute_and_differ_between_instances() -> None:
    delays = [LIMITS.delay_s(failures, seed=1) for failures in range(1, 10)]
    assert all(
        0.75 * plain <= delay <= 1.25 * plain
        for plain, delay in zip([1, 2, 4, 8, 16, 32, 60, 60, 60], delays, strict=True)
    )
    assert (
        LIMITS.delay_s(3, seed=1)
        == LIMITS.delay_s(3, seed=1)
        != LIMITS.delay_s(3, seed=2)
    )


def test_delay_when_a_device_server_fails_for_weeks_stays_about_a_minute() -> None:
    assert 45 <= LIMITS.delay_s(20_000, seed=1) <= 75


def test_a_start_by_hand_forgets_earlier_failures() -> None:
    decision = decide(
        replace(RUN, generation=2),
        GONE,
        memory(S.FAILED, failures=5, restarts=4),
        NOW,
        LIMITS,
    )
    assert (decision.memory.failures, decision.memory.restarts) == (0, 0)


def test_ten_healthy_minutes_forget_earlier_failures_and_nine_do_not() -> None:
    for healthy_s, failures in ((601, 0), (540, 4)):
        seen = decide(
            RUN,
            alive(Health.READY),
            memory(S.READY, failures=4, ready_s=NOW - healthy_s),
            NOW,
            LIMITS,
        )
        assert seen.memory.failures == failures


def test_what_is_waited_for_is_told_where_failures_are() -> None:
    decision = decide(
        replace(RUN, blocked_by=("RPC0 (in use by other)",)),
        GONE,
        memory(S.STARTING),
        NOW,
        LIMITS,
    )
    assert (
        decision.cause and decision.cause.text == "It waits for RPC0 (in use by other)."
    )


def test_a_restart_is_counted_and_a_first_start_is_not() -> None:
    assert decide(RUN, GONE, memory(S.STOPPED), NOW, LIMITS).memory.restarts == 0
    assert decide(RUN, GONE, memory(S.CRASHED), NOW, LIMITS).memory.restarts == 1
    waiting = decide(
        replace(RUN, blocked_by=("RPC0",)), GONE, memory(S.CRASHED), NOW, LIMITS
    )
    assert (waiting.memory.state, waiting.memory.restarts) == (S.STARTING, 1)
    assert decide(RUN, GONE, waiting.memory, NOW + 1, LIMITS).memory.restarts == 1


@pytest.mark.parametrize(
    ("states", "desired", "error", "expected"),
    [
        ([], "stopped", False, "stopped"),
        ([], "running", False, "starting"),
        ([], "running", True, "failed"),
        (["ready", "ready"], "running", False, "ready"),
        (["ready", "loading"], "running", False, "loading"),
        (["ready", "failed"], "running", False, "failed"),
        (["stopped"], "running", False, "starting"),
        (["stopped", "stopping"], "stopped", False, "stopping"),
        (["crashed", "starting"], "running", False, "crashed"),
    ],
)
def test_what_instances_add_up_to(
    states: list[str], desired: str, error: bool, expected: str
) -> None:
    assert deployment_state(states, desired=desired, error=error) == expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [([], "stopped"), (["stopped"], "stopped"), (["stopping"], "stopping")],
)
def test_what_is_unloaded_is_stopped_although_it_ought_to_run(
    states: list[str], expected: str
) -> None:
    assert deployment_state(states, desired="running", unloaded=True) == expected
