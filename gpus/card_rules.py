"""What is wrong with one card: a sample in, findings out.

One function per rule; CARD_RULES is the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from gpus.cards import data_sheet
from gpus.findings import Evidence, Finding, Held, Quantity
from gpus.links import (
    BUSY_PERCENT,
    SeenLink,
    link_gbps,
    link_shortfall,
    link_text,
)
from gpus.sample import CardSample
from omni.units import bytes_text, celsius_text, percent_text, watts_text

FULL_CARD_SHARE = 0.97
POWER_LIMIT = "power limit"
# Below this much of its default a power limit was lowered by somebody; NVML's figures are rounded.
POWER_SHARE = 0.99


def _failed(card: CardSample) -> Finding | None:
    if card.state not in ("lost", "error"):
        return None
    if card.state == "lost":
        title = f"{card.name} is lost"
    else:
        title = f"{card.name} cannot be read"
    return Finding(
        f"card_{card.state}",
        "error",
        title,
        card.error,
        "Look at the kernel log (dmesg) for Xid messages, check power and slot, restart"
        " the machine.",
        "Power, heat, the slot or a riser; now and then the driver.",
        card.key,
        (Evidence("Driver", card.error),),
    )


# --- link -----------------------------------------------------------------------------------------
def _link(card: CardSample) -> Finding | None:
    shortfall = link_shortfall(
        card.pcie_generation,
        card.pcie_width,
        card.pcie_generation_max,
        card.pcie_width_max,
        card.utilisation_percent,
    )
    if not shortfall:
        return None
    now = link_gbps(card.pcie_generation, card.pcie_width)
    best = link_gbps(card.pcie_generation_max, card.pcie_width_max)
    evidence = (
        Evidence("Link under load", link_text(card.pcie_generation, card.pcie_width)),
        Evidence(
            "Card and slot can do",
            link_text(card.pcie_generation_max, card.pcie_width_max),
        ),
        Evidence("Utilisation", percent_text(card.utilisation_percent), passing=True),
    )
    return Finding(
        "link_below_best",
        "caution",
        f"{card.name}: slow link",
        shortfall,
        "Look at the slot, the riser and the BIOS setting of the slot.",
        "The link was trained below what both ends can do: a riser, a card that is not"
        " fully seated, or a generation fixed in the BIOS.",
        card.key,
        evidence,
        _held(card, Quantity.LINK_GBPS, now, best),
    )


def _link_seen(card: CardSample, seen: SeenLink) -> Finding | None:
    """Of an idle card, by its link when it last worked."""
    if (card.utilisation_percent or 0) >= BUSY_PERCENT:
        return None
    at_work = replace(
        card,
        pcie_generation=seen.generation,
        pcie_width=seen.width,
        utilisation_percent=seen.utilisation_percent,
    )
    finding = _link(at_work)
    if finding is None:
        return None
    at = datetime.fromtimestamp(seen.at_s, UTC).strftime("%H:%M UTC")
    seen_at = Evidence("Seen", at, passing=True)
    text = f"{finding.text} That was at {at}; the card is idle now."
    return replace(finding, text=text, evidence=(*finding.evidence, seen_at))


def _slot(card: CardSample) -> Finding | None:
    """NVML counts card and slot together; what the card alone could is told apart."""
    together, alone = card.pcie_generation_max, card.pcie_generation_card
    if not (together and alone and card.pcie_width_max) or together >= alone:
        return None
    now = link_gbps(together, card.pcie_width_max)
    best = link_gbps(alone, card.pcie_width_max)
    return Finding(
        "slot_generation",
        "info",
        f"{card.name}: the slot is slower than the card",
        f"The card could do generation {alone}; with this slot it is generation"
        f" {together} at most.",
        "Use a slot of the processor's newest generation, and look for a limit of the"
        " slot in the BIOS.",
        "An older slot, a chipset's slot, or a generation limited in the BIOS.",
        card.key,
        (
            Evidence("Card", f"generation {alone}"),
            Evidence("Card in this slot", link_text(together, card.pcie_width_max)),
        ),
        _held(card, Quantity.LINK_GBPS, now, best),
    )


def _held(
    card: CardSample, quantity: Quantity, now: float | None, mended: float | None
) -> tuple[Held, ...]:
    if now is None or mended is None or now == mended:
        return ()
    return (Held(card.key, quantity, now, mended),)


# --- clocks and power -----------------------------------------------------------------------------
def _clock_held(card: CardSample) -> tuple[Held, ...]:
    """The part of its data sheet's boost clock that a busy card calculates at."""
    sheet = data_sheet(card.model or card.name, card.memory_total_bytes)
    busy = (card.utilisation_percent or 0) >= BUSY_PERCENT
    if not (busy and sheet and sheet.boost_mhz and card.clock_mhz):
        return ()
    share = card.clock_mhz / sheet.boost_mhz
    if share >= 1:
        return ()
    return (Held(card.key, Quantity.CLOCK_SHARE, share, 1.0),)


def _throttled(card: CardSample) -> Finding | None:
    """Running into the power limit is what a busy card does; anything else wants a hand."""
    others = [reason for reason in card.throttle if reason != POWER_LIMIT]
    if not others:
        return None
    evidence = [Evidence("Held down by", ", ".join(others))]
    if card.clock_mhz is not None:
        clock = f"{card.clock_mhz:.0f} MHz"
        if card.clock_max_mhz:
            clock += f" of {card.clock_max_mhz:.0f}"
        evidence.append(Evidence("Clock", clock, passing=True))
    if card.temperature_celsius is not None:
        heat = celsius_text(card.temperature_celsius)
        if card.temperature_slowdown_celsius:
            heat += (
                f", slows down from {celsius_text(card.temperature_slowdown_celsius)}"
            )
        evidence.append(Evidence("Temperature", heat, passing=True))
    return Finding(
        "throttled",
        "caution",
        f"{card.name} runs slower than it could",
        f"Its clocks are held down by: {', '.join(others)}.",
        "Heat wants better cooling; a power brake, a better supply or its cable.",
        "The card protects itself.",
        card.key,
        tuple(evidence),
        _clock_held(card),
    )


def _power_limited(card: CardSample) -> Finding | None:
    if POWER_LIMIT not in card.throttle:
        return None
    if card.power_limit_watts:
        limit = f"{card.power_limit_watts:.0f} W"
    else:
        limit = "its limit"
    return Finding(
        "power_limited",
        "info",
        f"{card.name} is at its power limit",
        f"It draws all it may ({limit}) and lowers its clocks for that.",
        subject=card.key,
        evidence=(Evidence("Power limit", limit),),
    )


def _power_limit_low(card: CardSample) -> Finding | None:
    limit, default = card.power_limit_watts, card.power_limit_default_watts
    if not (limit and default) or limit >= POWER_SHARE * default:
        return None
    is_reached = POWER_LIMIT in card.throttle
    more = " It holds the clocks down now." if is_reached else ""
    return Finding(
        "power_limit_low",
        "caution" if is_reached else "info",
        f"{card.name}: power limit below its default",
        f"It may draw {watts_text(limit)} of {watts_text(default)}.{more}",
        f"sudo nvidia-smi -i {card.key} -pl {default:.0f}, where supply and cooling"
        " carry it.",
        "Somebody, or a service at start, lowered it.",
        card.key,
        (
            Evidence("Limit", watts_text(limit)),
            Evidence("Default", watts_text(default)),
        ),
        _clock_held(card) if is_reached else (),
    )


# --- memory ---------------------------------------------------------------------------------------
def _full(card: CardSample) -> Finding | None:
    used = card.memory_used_bytes
    total = card.memory_total_bytes
    if card.is_stand_in or used is None or not total or used < FULL_CARD_SHARE * total:
        return None
    text = f"{bytes_text(used)} of {bytes_text(total)} are used."
    return Finding(
        "card_full",
        "caution",
        f"{card.name}: memory nearly full",
        text,
        "Give its deployment a shorter context, a smaller quant or fewer layers.",
        subject=card.key,
        evidence=(
            Evidence("Used", bytes_text(used), passing=True),
            Evidence("In all", bytes_text(total)),
        ),
    )


def _small_window(card: CardSample) -> Finding | None:
    if card.has_resizable_bar is not False:
        return None
    return Finding(
        "rebar_off",
        "info",
        f"{card.name}: Resizable BAR is off",
        f"The processor reaches {bytes_text(card.bar1_total_bytes)} of"
        f" {bytes_text(card.memory_total_bytes)} at a time: models load slower, and"
        " cards cannot read each other's memory.",
        "Switch Above 4G Decoding and Resizable BAR on in the BIOS.",
        "It is off in the BIOS, or the mainboard does not have it.",
        card.key,
        (
            Evidence("BAR1", bytes_text(card.bar1_total_bytes)),
            Evidence("Memory", bytes_text(card.memory_total_bytes)),
        ),
    )


# --- health ---------------------------------------------------------------------------------------
class Xid(NamedTuple):
    severity: str
    meaning: str
    fix: str


_RESTART = "Restart the machine; if it comes again, have the card looked at."
_PROGRAM = "Look at the log of the engine that used the card."
# NVIDIA's "Xid Errors" manual, chapter "Xid catalog".
XIDS = {
    13: Xid("caution", "a program's fault on the card", _PROGRAM),
    31: Xid("caution", "a program read memory that is not its own", _PROGRAM),
    43: Xid("caution", "a program's work on the card was stopped", _PROGRAM),
    45: Xid("info", "a program's work was cleaned up when it ended", _PROGRAM),
    48: Xid("error", "memory error that ECC could not correct", _RESTART),
    62: Xid("error", "the card's own controller stopped", _RESTART),
    63: Xid("caution", "a row of memory is to be remapped", _RESTART),
    64: Xid("error", "a row of memory could not be remapped", _RESTART),
    74: Xid("error", "fault of an NVLink", "Look at the bridge between the cards."),
    79: Xid(
        "error",
        "the card fell off its bus",
        "Check power, slot and riser; restart the machine.",
    ),
    94: Xid("caution", "contained memory error", _RESTART),
    95: Xid("error", "memory error that was not contained", _RESTART),
    109: Xid("caution", "a program's work took too long to change", _PROGRAM),
    119: Xid("error", "the card's own processor (GSP) does not answer", _RESTART),
    120: Xid("error", "fault of the card's own processor (GSP)", _RESTART),
}
_OTHER_XID = Xid("caution", "see NVIDIA's list of Xid errors", _RESTART)


def _xid(card: CardSample) -> Finding | None:
    if card.xid is None:
        return None
    known = XIDS.get(card.xid, _OTHER_XID)
    return Finding(
        "xid",
        known.severity,
        f"{card.name}: driver error Xid {card.xid}",
        f"The driver reported Xid {card.xid}: {known.meaning}.",
        known.fix,
        "The kernel log (dmesg) has the whole message.",
        card.key,
        # One more is another fault.
        (Evidence("Xid", str(card.xid)), Evidence("At", f"{card.xid_at_ms or 'N/A'}")),
    )


def _memory_errors(card: CardSample) -> Finding | None:
    wrong, mended = card.ecc_uncorrected or 0, card.ecc_corrected or 0
    rows = card.remapped_rows or 0
    if not (wrong or mended or rows):
        return None
    counts = (
        Evidence("Not corrected", str(wrong)),
        Evidence("Corrected", str(mended)),
        Evidence("Rows remapped", str(rows)),
    )
    if wrong:
        severity = "error"
    else:
        severity = "caution" if rows else "info"
    return Finding(
        "memory_errors",
        severity,
        f"{card.name}: memory errors",
        f"ECC counted {wrong} errors that it could not correct and {mended} that it"
        f" corrected since the driver was loaded; {rows} rows are remapped.",
        "Watch it; with errors that are not corrected, restart the machine and have the"
        " card looked at.",
        "Memory cells of the card give wrong bits.",
        card.key,
        counts,
    )


def _persistence(card: CardSample) -> Finding | None:
    if card.persistence_mode is not False:
        return None
    return Finding(
        "persistence_off",
        "info",
        f"{card.name}: persistence mode is off",
        "When nothing uses the card the driver lets it go: the next start waits for it,"
        " and its settings (a power limit) are lost.",
        "sudo systemctl enable --now nvidia-persistenced",
        "The persistence daemon does not run.",
        card.key,
        (Evidence("Persistence mode", "off"),),
    )


CARD_RULES: tuple[Callable[[CardSample], Finding | None], ...] = (
    _failed,
    _link,
    _slot,
    _throttled,
    _power_limited,
    _power_limit_low,
    _full,
    _small_window,
    _xid,
    _memory_errors,
    _persistence,
)


def card_findings(card: CardSample, seen: SeenLink | None = None) -> list[Finding]:
    """`seen` is its link when it last worked."""
    found = [finding for rule in CARD_RULES if (finding := rule(card))]
    before = _link_seen(card, seen) if seen else None
    return [*found, before] if before else found


# --- who else is in its memory --------------------------------------------------------------------
MUCH_OTHERS_BYTES = 1 << 30


def others_finding(card: CardSample, own: frozenset[int]) -> Finding | None:
    """Of memory that programs hold which are not Omni's; `own` are process ids of Omni's."""
    others = [
        process
        for process in card.processes or ()
        if process.memory_bytes and own.isdisjoint((process.pid, *process.parents))
    ]
    held = sum(process.memory_bytes or 0 for process in others)
    if held < MUCH_OTHERS_BYTES:
        return None
    names = sorted({process.name or f"process {process.pid}" for process in others})
    hold, them = ("holds", "it") if len(names) == 1 else ("hold", "them")
    return Finding(
        "card_shared",
        "caution",
        f"{card.name}: other programs hold memory",
        f"{', '.join(names)} {hold} {bytes_text(held)} of"
        f" {bytes_text(card.memory_total_bytes)}.",
        f"End {them}, or let {them} use another card.",
        "Programs that the panel did not start.",
        card.key,
        (
            Evidence("Programs", ", ".join(names)),
            Evidence("Memory", bytes_text(held), passing=True),
        ),
        (Held(card.key, Quantity.OTHERS_BYTES, float(held), 0.0),),
    )
