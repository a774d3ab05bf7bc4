"""What a card's page tells of it now: figures in groups, and the reason where one is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gpus.links import link_gbps
from gpus.sample import CardSample
from omni.units import (
    MIB,
    UNKNOWN,
    bytes_text,
    celsius_text,
    gbps_text,
    percent_text,
    watts_text,
)

JOULES_PER_KWH = 3.6e6
NOT_MEASURED = "nothing is measured now"
NO_ANSWER = "not reported"


@dataclass(frozen=True)
class Fact:
    """One figure; `reason` says why there is none, `explained` what it is."""

    label: str
    text: str = UNKNOWN
    reason: str = ""
    explained: str = ""
    at: datetime | None = None

    @property
    def is_unknown(self) -> bool:
        return self.text == UNKNOWN


@dataclass(frozen=True)
class FactGroup:
    title: str
    facts: tuple[Fact, ...]


def card_facts(card: CardSample | None) -> tuple[FactGroup, ...]:
    """Of the newest sample; None where nothing was measured."""
    sample = card or CardSample("", "")
    why = _Reasons(sample, is_measured=card is not None)
    return (
        FactGroup("Clocks and throttling", tuple(_clocks(sample, why))),
        FactGroup("Power and energy", tuple(_power(sample, why))),
        FactGroup("Temperature and fan", tuple(_heat(sample, why))),
        FactGroup("Link", tuple(_link(sample, why))),
        FactGroup("Memory and use", tuple(_memory(sample, why))),
        FactGroup("Health", tuple(_health(sample, why))),
    )


class _Reasons:
    """Makes facts: where the text is N/A, with the reason that the field has."""

    def __init__(self, card: CardSample, *, is_measured: bool) -> None:
        self.card = card
        self.is_measured = is_measured

    def __call__(
        self,
        label: str,
        name: str,
        text: str,
        explained: str = "",
        at: datetime | None = None,
    ) -> Fact:
        reason = "" if text != UNKNOWN else self._reason(name)
        return Fact(label, text, reason, explained, at)

    def _reason(self, name: str) -> str:
        if not self.is_measured:
            return NOT_MEASURED
        if self.card.state in ("lost", "error"):
            return "the card does not answer"
        usual = "read in a moment" if name.startswith("link_") else NO_ANSWER
        return self.card.unanswered.get(name, usual)


# --- the groups -----------------------------------------------------------------------------------
def _clocks(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    yield fact("Core", "clock_mhz", _of(card.clock_mhz, card.clock_max_mhz))
    yield fact(
        "Memory",
        "memory_clock_mhz",
        _of(card.memory_clock_mhz, card.memory_clock_max_mhz),
    )
    state = UNKNOWN if card.performance_state is None else f"P{card.performance_state}"
    yield fact(
        "Performance state",
        "performance_state",
        state,
        "P0 is the fastest, P15 the slowest; idle cards are at P8",
    )
    is_told = (
        fact.is_measured and card.state == "ok" and "throttle" not in card.unanswered
    )
    held = ", ".join(card.throttle) or "nothing"
    yield fact(
        "Throttled by",
        "throttle",
        held if is_told else UNKNOWN,
        "Clocks event reasons of the driver",
    )


def _power(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    yield fact("Now", "power_watts", watts_text(card.power_watts))
    yield fact("Limit", "power_limit_watts", watts_text(card.power_limit_watts))
    yield fact(
        "Default limit",
        "power_limit_default_watts",
        watts_text(card.power_limit_default_watts),
    )
    yield fact("Limit may be", "power_limit_min_watts", _power_range(card))
    energy = UNKNOWN
    if card.energy_joules is not None:
        energy = f"{card.energy_joules / JOULES_PER_KWH:.2f} kWh"
    yield fact("Energy", "energy_joules", energy, "Since the driver was loaded")


def _power_range(card: CardSample) -> str:
    low, high = card.power_limit_min_watts, card.power_limit_max_watts
    if low is None or high is None:
        return UNKNOWN
    return f"{low:.0f} to {high:.0f} W"


def _heat(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    for label, name, value in (
        ("GPU", "temperature_celsius", card.temperature_celsius),
        ("Memory", "memory_temperature_celsius", card.memory_temperature_celsius),
        (
            "Slows down at",
            "temperature_slowdown_celsius",
            card.temperature_slowdown_celsius,
        ),
        (
            "Shuts down at",
            "temperature_shutdown_celsius",
            card.temperature_shutdown_celsius,
        ),
    ):
        yield fact(label, name, celsius_text(value))
    yield fact("Fan", "fan_percent", percent_text(card.fan_percent))


def _link(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    yield fact(
        "Now",
        "pcie_generation",
        _link_text(card.pcie_generation, card.pcie_width),
        "An idle card lowers its generation to save power",
    )
    yield fact(
        "Card and slot",
        "pcie_generation_max",
        _link_text(card.pcie_generation_max, card.pcie_width_max),
        "The best that the two can do together",
    )
    alone = card.pcie_generation_card
    yield fact(
        "Card alone",
        "pcie_generation_card",
        UNKNOWN if alone is None else f"Gen {alone}",
    )
    yield fact("Sends", "link_tx_gbps", gbps_text(card.link_tx_gbps))
    yield fact("Receives", "link_rx_gbps", gbps_text(card.link_rx_gbps))
    yield fact(
        "Replays",
        "pcie_replays",
        _count(card.pcie_replays),
        "Packets sent again; many mean a bad riser or slot",
    )


def _link_text(generation: int | None, width: int | None) -> str:
    """Gen 4 × 16, 31.5 GB/s."""
    if not generation or not width:
        return UNKNOWN
    speed = link_gbps(generation, width)
    return f"Gen {generation} × {width}" + (f", {gbps_text(speed)}" if speed else "")


def _memory(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    used = UNKNOWN
    if card.memory_used_bytes is not None:
        used = f"{bytes_text(card.memory_used_bytes)} of {bytes_text(card.memory_total_bytes)}"
    shared = "The host's: this card has no memory of its own"
    yield fact(
        "Used", "memory_used_bytes", used, shared if card.has_unified_memory else ""
    )
    yield fact(
        "Kept by the driver",
        "memory_reserved_bytes",
        bytes_text(card.memory_reserved_bytes),
    )
    yield fact(
        "Utilisation", "utilisation_percent", percent_text(card.utilisation_percent)
    )
    yield fact(
        "Memory controller",
        "utilisation_percent",
        percent_text(card.memory_utilisation_percent),
        "How much of the time memory was read or written",
    )
    yield fact("Encoder", "encoder_percent", percent_text(card.encoder_percent))
    yield fact("Decoder", "decoder_percent", percent_text(card.decoder_percent))


def _health(card: CardSample, fact: _Reasons) -> Iterator[Fact]:
    yield fact("ECC", "ecc_enabled", _switch(card.ecc_enabled))
    yield fact(
        "Corrected errors",
        "ecc_corrected",
        _count(card.ecc_corrected),
        "Since the driver was loaded",
    )
    yield fact(
        "Uncorrected errors",
        "ecc_uncorrected",
        _count(card.ecc_uncorrected),
        "Since the driver was loaded",
    )
    yield fact("Remapped rows", "remapped_rows", _count(card.remapped_rows))
    yield _xid(card, fact)
    yield fact(
        "Resizable BAR",
        "bar1_total_bytes",
        _bar(card),
        "Whether the processor reaches all of the card's memory at once",
    )
    yield fact("Persistence mode", "persistence_mode", _switch(card.persistence_mode))
    yield fact("MIG", "mig_enabled", _switch(card.mig_enabled))


def _xid(card: CardSample, fact: _Reasons) -> Fact:
    explained = "The driver's number of what went wrong, since the machine started"
    if card.xid is None or card.xid_at_ms is None:
        return fact(
            "Last Xid error", "xid", "none" if fact.is_measured else UNKNOWN, explained
        )
    at = datetime.fromtimestamp(card.xid_at_ms / 1000, UTC)
    return fact("Last Xid error", "xid", str(card.xid), explained, at)


def _bar(card: CardSample) -> str:
    is_on = card.has_resizable_bar
    if is_on is None:
        return UNKNOWN
    return f"{'on' if is_on else 'off'}, {bytes_text(card.bar1_total_bytes)}"


def _of(now_mhz: float | None, most_mhz: float | None) -> str:
    if now_mhz is None:
        return UNKNOWN
    return f"{now_mhz:.0f}" + (f" of {most_mhz:.0f} MHz" if most_mhz else " MHz")


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _switch(value: bool | None) -> str:
    if value is None:
        return UNKNOWN
    return "on" if value else "off"


# --- processes ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ProcessRow:
    """A process on the card; `owner` is what it belongs to, None for somebody else's."""

    pid: int
    name: str
    memory_bytes: int | None
    draws: bool
    owner: object | None = None


def owned_processes(
    card: CardSample, owners: Sequence[tuple[int, object]]
) -> list[ProcessRow]:
    """`owners` are pairs of a process id and what runs in it; processes that it started are its
    own too."""
    by_pid = dict(owners)
    rows = []
    for process in card.processes or ():
        line = (process.pid, *process.parents)
        owner = next((by_pid[pid] for pid in line if pid in by_pid), None)
        rows.append(
            ProcessRow(
                process.pid, process.name, process.memory_bytes, process.draws, owner
            )
        )
    return rows


@dataclass(frozen=True)
class MemoryShare:
    """A part of a card's memory; `kind` is owned, other, driver or unlisted. Percent of the
    whole."""

    label: str
    kind: str
    used_bytes: int
    x_percent: float
    width_percent: float


def memory_shares(
    card: CardSample, rows: Sequence[ProcessRow]
) -> tuple[MemoryShare, ...]:
    """Who has how much of the card's own memory, as far as the driver tells; () where it does
    not."""
    total = card.memory_total_bytes
    if not total or card.memory_used_bytes is None or card.has_unified_memory:
        return ()
    parts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.memory_bytes:
            kind = "owned" if row.owner else "other"
            key = (kind, str(row.owner or row.name or "not visible from here"))
            parts[key] = parts.get(key, 0) + row.memory_bytes
    if card.memory_reserved_bytes:
        parts["driver", "Driver"] = card.memory_reserved_bytes
    unlisted = card.memory_used_bytes - sum(parts.values())
    if unlisted > LEAST_UNLISTED_BYTES:
        parts["unlisted", "In use, not listed"] = unlisted
    return tuple(_shares(parts, total))


# Less is what two looks at different moments differ by.
LEAST_UNLISTED_BYTES = 64 * MIB
_KINDS = ("owned", "other", "driver", "unlisted")


def _shares(parts: dict[tuple[str, str], int], total: int) -> Iterator[MemoryShare]:
    x = 0.0
    in_order = sorted(parts.items(), key=lambda part: _KINDS.index(part[0][0]))
    for (kind, label), used in in_order:
        width = min(100 * used / total, 100 - x)
        yield MemoryShare(label, kind, used, round(x, 2), round(width, 2))
        x += width
