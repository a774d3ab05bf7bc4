"""What a decision about a process is made of: what is desired, seen and remembered."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum

from deployments.states import InstanceState as S
from deployments.supervision.log_reading import Cause
from omni.backoff import backoff_s


class Health(StrEnum):
    NONE = "none"  # no process
    REFUSED = "refused"  # nothing listens
    LOADING = "loading"
    READY = "ready"
    SILENT = "silent"  # accepts connections and does not answer


class Action(StrEnum):
    NOTHING = "nothing"
    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    CLEAR = "clear"  # no process and none wanted: give its port back


@dataclass(frozen=True)
class Limits:
    """Times in seconds."""

    terminate_again_s: float = 5.0
    # The same for one that was given time to finish and has not: its clients are cut off.
    cut_s: float = 1.0
    kill_s: float = 7.0
    hang_s: float = 20.0
    # Shorter silences happen on a busy machine and are no news.
    blink_s: float = 2.0
    load_base_s: float = 60.0
    # A file is read at no less than this, from a slow disk.
    load_bytes_per_s: float = 50e6
    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    most_failures: int = 5
    healthy_after_s: float = 600.0

    def load_s(self, file_bytes: int) -> float:
        return self.load_base_s + file_bytes / self.load_bytes_per_s

    def delay_s(self, failures: int, seed: int) -> float:
        """1, 2, 4 … 60 s, up to a quarter more or less, the same for the same seed."""
        plain = backoff_s(failures, self.first_delay_s, self.longest_delay_s)
        return plain * (0.75 + 0.5 * random.Random(seed * 1009 + failures).random())


@dataclass(frozen=True)
class Desired:
    """`generation` is what ought to run; `blocked_by` names what must be ready before a start."""

    running: bool
    generation: int
    file_bytes: int = 0
    blocked_by: tuple[str, ...] = ()
    # How long requests on their way may go on before it is ended.
    drain_s: float = 0.0
    # Grows when a server this instance depends on was started again: a connection to the old one is
    # dead.
    needs_restart: bool = False
    slow_load_s: float = 0.0
    why_not: str = "stop was asked for"


@dataclass(frozen=True)
class Observed:
    health: Health = Health.NONE
    generation: int | None = None
    cause: Cause | None = None  # why it ended, when it did
    # It is healthy; what it answers is not known yet, or is wrong.
    is_checked: bool = True
    wrong: Cause | None = None
    # Requests are on their way to its deployment.
    is_busy: bool = False
    # It ended while it worked on requests: one of them may have ended it.
    was_at_work: bool = False

    @property
    def is_alive(self) -> bool:
        return self.health != Health.NONE


@dataclass(frozen=True)
class Memory:
    """What the agent remembers of an instance from tick to tick. Times are monotonic seconds."""

    state: S = S.STOPPED
    generation: int = 0
    failures: int = 0
    restarts: int = 0
    since_s: float = 0.0
    answered_s: float = 0.0
    ready_s: float | None = None
    next_start_s: float = 0.0
    terminated_s: float | None = None
    terminations: int = 0


@dataclass(frozen=True)
class Decision:
    action: Action
    memory: Memory
    reason: str = ""
    cause: Cause | None = None
    changed: bool = field(default=False)
    # Seconds for which requests on their way may still go on; 0 when nothing is waited for.
    drains_s: float = 0.0

    @property
    def is_draining(self) -> bool:
        return self.drains_s > 0
