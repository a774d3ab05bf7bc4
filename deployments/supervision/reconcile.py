"""Decides what to do next with one instance.

Pure: what is desired, what is observed, the time → a decision.

The time is monotonic, so that a changed wall clock restarts and expires nothing.
"""

from __future__ import annotations

from dataclasses import replace

from deployments.states import InstanceState as S
from deployments.supervision.decision import (
    Action,
    Decision,
    Desired,
    Health,
    Limits,
    Memory,
    Observed,
)
from deployments.supervision.log_reading import CRASHED_BY_SIGNAL, Cause

NEVER_READY = Cause(
    "never_ready",
    "The engine did not get ready in time.",
    "The log tells where it hangs; try a smaller model.",
    permanent=True,
)
ALREADY = "it is ending"
# No failure: why there is no process yet. It goes with the start.
WAITING = "waiting"
HUNG = Cause(
    "hung",
    "The engine accepts connections and does not answer.",
    "It is started again.",
)

CLOSED = Cause(
    "hung",
    "The engine's process lives and no longer accepts connections.",
    "It is started again.",
)


def decide(
    desired: Desired,
    seen: Observed,
    memory: Memory,
    now_s: float,
    limits: Limits,
    seed: int = 0,
) -> Decision:
    """The next step. The caller does `action` and keeps `memory`."""
    if seen.is_alive:
        why = why_it_ends(desired, seen, memory)
        if why:
            return _ending(desired, seen, memory, now_s, limits, why)
        return _living(desired, seen, memory, now_s, limits, seed)
    if not desired.running:
        return _to(memory, S.STOPPED, now_s, "", Action.CLEAR)
    if memory.state == S.STOPPING:
        memory = replace(
            memory, state=S.STOPPED, terminated_s=None, terminations=0, next_start_s=0.0
        )
    elif memory.state in (S.STARTING, S.LOADING, S.READY, S.UNHEALTHY) and seen.cause:
        if (
            seen.was_at_work
            and seen.cause.code == CRASHED_BY_SIGNAL
            and memory.state in (S.READY, S.UNHEALTHY)
        ):
            return _ended_by_request(seen.cause, desired, memory, now_s, limits, seed)
        return _ended(seen.cause, desired, memory, now_s, limits, seed)
    return _starting(desired, memory, now_s)


def why_it_ends(desired: Desired, seen: Observed, memory: Memory) -> str:
    """Why a living process ought to end; empty when it may stay.

    One that was only waited for may stay after all.
    """
    if not desired.running:
        return desired.why_not
    if memory.state == S.STOPPING and memory.terminated_s is not None:
        return ALREADY
    if seen.generation != desired.generation:
        return "it is replaced by its new settings"
    if desired.needs_restart:
        return "a device server it uses was started again"
    return ""


def _to(
    memory: Memory,
    state: S,
    now_s: float,
    reason: str,
    action: Action = Action.NOTHING,
    cause: Cause | None = None,
) -> Decision:
    """Into a state; the clock of the state starts again when it is another."""
    changed = memory.state != state
    if changed:
        memory = replace(memory, state=state, since_s=now_s)
    if state in (S.STOPPED, S.FAILED, S.CRASHED):
        memory = replace(memory, terminated_s=None, terminations=0, ready_s=None)
    return Decision(action, memory, reason, cause, changed)


def _ending(
    desired: Desired,
    seen: Observed,
    memory: Memory,
    now_s: float,
    limits: Limits,
    reason: str,
) -> Decision:
    """What is on its way may finish first.

    Then SIGTERM; again after a while, because llama-server waits for its clients; then SIGKILL.
    """
    decision = _to(memory, S.STOPPING, now_s, "" if reason == ALREADY else reason)
    memory = decision.memory
    if seen.health != Health.SILENT:
        memory = replace(memory, answered_s=now_s)
    decision = replace(decision, memory=memory)
    if memory.terminated_s is None:
        # One that hangs finishes nothing.
        hangs = now_s - memory.answered_s >= limits.hang_s
        if (
            seen.is_busy
            and not hangs
            and (rest_s := desired.drain_s - (now_s - memory.since_s)) > 0
        ):
            return replace(decision, drains_s=rest_s)
        memory = replace(memory, terminated_s=now_s, terminations=1)
        return replace(decision, action=Action.TERMINATE, memory=memory)
    elapsed = now_s - memory.terminated_s
    if elapsed >= limits.kill_s:
        return replace(decision, action=Action.KILL, reason="it did not end by itself")
    again_s = limits.cut_s if seen.is_busy else limits.terminate_again_s
    if elapsed >= again_s and memory.terminations < 2:
        return replace(
            decision, action=Action.TERMINATE, memory=replace(memory, terminations=2)
        )
    return decision


def _living(
    desired: Desired,
    seen: Observed,
    memory: Memory,
    now_s: float,
    limits: Limits,
    seed: int,
) -> Decision:
    memory = replace(memory, generation=desired.generation)
    if seen.health in (Health.LOADING, Health.READY):
        memory = replace(memory, answered_s=now_s)
    if seen.wrong:
        return _never_ready(seen.wrong, memory, now_s)
    if seen.health == Health.READY and not seen.is_checked and memory.ready_s is None:
        return _to(memory, S.LOADING, now_s, "its first answer is checked")
    if seen.health == Health.READY:
        return _answering(memory, now_s, limits)
    if memory.ready_s is not None:
        return _not_answering(seen, memory, now_s, limits, seed)
    return _loading(desired, seen, memory, now_s, limits)


def _never_ready(cause: Cause, memory: Memory, now_s: float) -> Decision:
    """Kills what will not get ready; the failure that counts is the one of its end."""
    decision = _to(memory, S.FAILED, now_s, cause.text, Action.KILL, cause)
    kept = replace(decision.memory, failures=memory.failures + 1)
    return replace(decision, memory=kept)


def _answering(memory: Memory, now_s: float, limits: Limits) -> Decision:
    """Ready; once it has been for long, earlier failures are forgotten."""
    ready_s = now_s if memory.ready_s is None else memory.ready_s
    is_healthy_for_long = now_s - ready_s >= limits.healthy_after_s
    failures = 0 if is_healthy_for_long else memory.failures
    kept = replace(memory, ready_s=ready_s, failures=failures)
    return _to(kept, S.READY, now_s, "it answers")


def _not_answering(
    seen: Observed, memory: Memory, now_s: float, limits: Limits, seed: int
) -> Decision:
    """It was ready before: a blink, an engine that loads again, or one that hangs."""
    cause = CLOSED if seen.health == Health.REFUSED else HUNG
    silent_s = now_s - memory.answered_s
    if silent_s >= limits.hang_s:
        return _give_up_on(cause, memory, now_s, limits, seed)
    if seen.health == Health.LOADING:
        return _to(memory, S.LOADING, now_s, "it loads its model again")
    if silent_s < limits.blink_s and seen.health == Health.SILENT:
        return Decision(Action.NOTHING, memory)
    return _to(memory, S.UNHEALTHY, now_s, "it does not answer", cause=cause)


def _loading(
    desired: Desired, seen: Observed, memory: Memory, now_s: float, limits: Limits
) -> Decision:
    """It has never been ready: it starts, it loads, or that takes too long."""
    if memory.state == S.STARTING:
        began_s = memory.since_s
    else:
        began_s = memory.answered_s
    started_s = memory.next_start_s or began_s

    longest_s = limits.load_s(desired.file_bytes) + desired.slow_load_s
    if now_s - started_s >= longest_s:
        return _never_ready(NEVER_READY, memory, now_s)

    if seen.health in (Health.LOADING, Health.SILENT):
        return _to(memory, S.LOADING, now_s, "it loads its model")
    return _to(memory, S.STARTING, now_s, "its process runs")


def _give_up_on(
    cause: Cause, memory: Memory, now_s: float, limits: Limits, seed: int
) -> Decision:
    """Kills what no longer answers; it is started again like one that crashed."""
    decision = _ended(
        cause, Desired(True, memory.generation), memory, now_s, limits, seed
    )
    return replace(decision, action=Action.KILL)


def _ended(
    cause: Cause,
    desired: Desired,
    memory: Memory,
    now_s: float,
    limits: Limits,
    seed: int,
) -> Decision:
    failures = memory.failures + 1
    memory = replace(memory, failures=failures, generation=desired.generation)
    if cause.permanent:
        return _to(memory, S.FAILED, now_s, cause.text, cause=cause)
    if failures >= limits.most_failures:
        reason = f"{cause.text} It failed {failures} times in a row and is not started again."
        return _to(
            memory,
            S.FAILED,
            now_s,
            reason,
            cause=replace(cause, text=reason, fix="Start tries again."),
        )
    delay_s = limits.delay_s(failures, seed)
    decision = _to(
        memory,
        S.CRASHED,
        now_s,
        f"{cause.text} Next start in {delay_s:.0f} s.",
        cause=cause,
    )
    return replace(
        decision, memory=replace(decision.memory, next_start_s=now_s + delay_s)
    )


def _ended_by_request(
    cause: Cause,
    desired: Desired,
    memory: Memory,
    now_s: float,
    limits: Limits,
    seed: int,
) -> Decision:
    """Not its own failure: one client's request must not take a deployment from all the others for
    good."""
    delay_s = limits.delay_s(1, seed)
    reason = f"{cause.text} It was at work on requests. Next start in {delay_s:.0f} s."
    decision = _to(
        replace(memory, generation=desired.generation),
        S.CRASHED,
        now_s,
        reason,
        cause=cause,
    )
    return replace(
        decision, memory=replace(decision.memory, next_start_s=now_s + delay_s)
    )


def refused(
    cause: Cause,
    desired: Desired,
    memory: Memory,
    now_s: float,
    limits: Limits,
    seed: int = 0,
) -> Decision:
    """A start that could not be made: like a crash, and given up at once when only a change can
    help."""
    return _ended(cause, desired, memory, now_s, limits, seed)


def _starting(desired: Desired, memory: Memory, now_s: float) -> Decision:
    """No process, and there ought to be one."""
    if memory.generation != desired.generation:
        # Somebody asked again: what failed before is forgotten.
        memory = replace(
            memory,
            generation=desired.generation,
            failures=0,
            restarts=0,
            next_start_s=0.0,
            ready_s=None,
        )
        if memory.state in (S.FAILED, S.CRASHED):
            memory = replace(memory, state=S.STOPPED)
    if memory.state == S.FAILED:
        return Decision(Action.NOTHING, memory)
    if memory.state == S.CRASHED and now_s < memory.next_start_s:
        return Decision(Action.NOTHING, memory)
    again = memory.state == S.CRASHED
    memory = replace(memory, restarts=memory.restarts + again)
    if desired.blocked_by:
        names = ", ".join(desired.blocked_by)
        return _to(
            memory,
            S.STARTING,
            now_s,
            f"waits for {names}",
            cause=Cause(WAITING, f"It waits for {names}.", ""),
        )
    memory = replace(memory, ready_s=None, answered_s=now_s, next_start_s=now_s)
    return _to(
        memory, S.STARTING, now_s, "started again" if again else "started", Action.START
    )
