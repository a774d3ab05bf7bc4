"""The rules of alerts: what each watches, its usual limits, and what to do when it fires.

A rule fires when its value is at its threshold, or beyond, for so many seconds, and clears when it
is back at `clears_at` for so many: between the two it stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite

from omni.errors import OmniError


class Severity(StrEnum):
    """Worst first."""

    ERROR = "error"
    CAUTION = "caution"
    INFO = "info"


LONGEST_S = 86_400
SEVERITIES = tuple(Severity)


@dataclass(frozen=True)
class Limits:
    """What somebody may set of a rule."""

    threshold: float
    clears_at: float
    for_s: int = 60
    clears_for_s: int = 60
    severity: Severity = Severity.CAUTION
    is_on: bool = True


@dataclass(frozen=True)
class Rule:
    """One thing that is watched, for each card, host or deployment apart.

    `unit` is that of its value; a rule without one is about yes or no, and has no threshold to set.
    """

    code: str
    title: str
    watches: str
    fix: str
    limits: Limits
    unit: str = ""
    fires_above: bool = True
    lowest: float = 0.0
    highest: float = 100.0

    @property
    def is_yes_or_no(self) -> bool:
        return not self.unit

    def is_bad(self, value: float) -> bool:
        if self.fires_above:
            return value >= self.limits.threshold
        return value <= self.limits.threshold

    def is_good(self, value: float) -> bool:
        if self.fires_above:
            return value <= self.limits.clears_at
        return value >= self.limits.clears_at

    def with_limits(self, limits: Limits) -> Rule:
        """Raises OmniError (bad_limits) where it could never clear or would never fire."""
        check(self, limits)
        return replace(self, limits=limits)


def _yes(severity: Severity, for_s: int = 0, clears_for_s: int = 30) -> Limits:
    """Of what is there or not: 1 is yes."""
    return Limits(1, 0, for_s, clears_for_s, severity)


RULES: tuple[Rule, ...] = (
    Rule(
        "gpu_temperature",
        "GPU temperature",
        "The core of each card.",
        "Look at its fans and the air around it; a lower power limit makes it cooler.",
        Limits(85, 78),
        "°C",
        highest=150,
    ),
    Rule(
        "gpu_throttle",
        "GPU throttled",
        "Clocks held down by temperature, the hardware or the power brake; a power"
        " limit alone is no alert.",
        "Look at its cooling, its power cables and the power supply.",
        _yes(Severity.CAUTION, 30, 60),
    ),
    Rule(
        "gpu_link",
        "PCIe link below its rating",
        "What the link carries beside what card and slot can do, under load only: an"
        " idle card lowers it to save power.",
        "Seat the card again, look at riser and BIOS settings of the slot.",
        Limits(90, 99, 60, 60),
        "% of its rating",
        fires_above=False,
    ),
    Rule(
        "gpu_memory",
        "GPU memory nearly full",
        "Memory in use on each card.",
        "Another process may need more than is left: lower a context, or stop something.",
        Limits(98.5, 97, 300, 60, Severity.INFO),
        "% of its memory",
    ),
    Rule(
        "gpu_xid",
        "Xid error",
        "Errors that the NVIDIA driver reports of a card, for ten minutes after each.",
        "dmesg has the line with NVRM: Xid; NVIDIA's list of Xid errors says what it means.",
        _yes(Severity.ERROR, 0, 0),
    ),
    Rule(
        "gpu_ecc",
        "Uncorrected memory errors",
        "ECC errors of a card that could not be corrected since the driver was loaded.",
        "Restart the machine; a card on which they come again needs to be replaced.",
        _yes(Severity.ERROR, 0, 0),
    ),
    Rule(
        "gpu_lost",
        "GPU lost",
        "Cards that were known and cannot be read any more.",
        "Restart the machine and look at power and riser. One that was taken out is"
        " deleted under Administration.",
        _yes(Severity.ERROR, 10, 10),
    ),
    Rule(
        "ram",
        "Main memory nearly used up",
        "Main memory that programs can still have.",
        "Stop a deployment that uses the CPU, or give it fewer layers there.",
        Limits(5, 8, 60, 60),
        "% free",
        fires_above=False,
    ),
    Rule(
        "disk",
        "Disk nearly full",
        "Free space where OMNI_HOME lies.",
        "Remove models or old logs.",
        Limits(10, 12, 60, 60),
        "GiB free",
        fires_above=False,
        highest=1 << 20,
    ),
    Rule(
        "agent_away",
        "Agent away",
        "The agents of other hosts of this database: those that reported once and do not"
        " now.",
        "Start the panel or the agent on it, or look at the network between them. A host"
        " that was given up is deleted under Administration.",
        _yes(Severity.ERROR, 60, 10),
    ),
    Rule(
        "deployment_failed",
        "Deployment failed",
        "Deployments that ought to run and are not started again by themselves.",
        "Its page has the cause and the log; press Start when it is mended.",
        _yes(Severity.ERROR, 0, 10),
    ),
    Rule(
        "deployment_restarting",
        "Deployment keeps restarting",
        "How often in a row a process of it ended by itself before it ran for long.",
        "Its page has the cause and the log.",
        Limits(2, 0, 0, 0),
        "times in a row",
    ),
    Rule(
        "first_token",
        "Time to first token",
        "The median of a deployment's requests in the last five minutes, when there"
        " are three or more.",
        "More slots, shorter prompts or another strategy; Activity shows who waits.",
        Limits(30, 20, 60, 60),
        "s",
        highest=LONGEST_S,
    ),
    Rule(
        "gateway_errors",
        "Requests fail",
        "The share of a deployment's requests in the last five minutes that ended in an"
        " error of ours or of the engine (status 500 and above), when there are three or"
        " more.",
        "Activity lists them with their errors.",
        Limits(20, 5, 0, 60),
        "% of requests",
    ),
)
BY_CODE = {rule.code: rule for rule in RULES}


def check(rule: Rule, limits: Limits) -> None:
    """Raises OmniError (bad_limits)."""
    if not all(isfinite(value) for value in (limits.threshold, limits.clears_at)):
        raise _bad("The thresholds have to be numbers.")
    for value in (limits.threshold, limits.clears_at):
        if not rule.is_yes_or_no and not rule.lowest <= value <= rule.highest:
            raise _bad(f"{value:g} is not from {rule.lowest:g} to {rule.highest:g}.")
    gap = limits.threshold - limits.clears_at
    if (gap if rule.fires_above else -gap) <= 0:
        side = "below" if rule.fires_above else "above"
        raise _bad(f"It has to clear {side} {limits.threshold:g}, where it fires.")
    for seconds in (limits.for_s, limits.clears_for_s):
        if not 0 <= seconds <= LONGEST_S:
            raise _bad(f"{seconds} s is not from 0 to {LONGEST_S}.")


def _bad(text: str) -> OmniError:
    return OmniError("bad_limits", text)
