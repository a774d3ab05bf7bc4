"""What is wrong with the host and what it should have: facts in, findings out.

One function per rule; the rules stand in tables. Those of one card are in gpus.card_rules, those of
slots and cards beside each other in gpus.slot_rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpus.findings import Evidence, Finding
from gpus.sample import CardIdentity, NvmlState
from gpus.visible import visible
from omni.addresses import is_loopback
from omni.units import GIB, bytes_text

LOW_DISK_BYTES = 10 * GIB
LOW_RAM_SHARE = 0.05
MUCH_SWAP_BYTES = 2 * GIB


@dataclass(frozen=True)
class HostFacts:
    nvml: NvmlState
    ram_total_bytes: int
    ram_available_bytes: int
    swap_used_bytes: int
    disk_free_bytes: int
    home: str
    # Of the whole machine, where a control group leaves this process less.
    machine_ram_bytes: int = 0
    cores: int = 0
    machine_cores: int = 0
    # CUDA_VISIBLE_DEVICES; None where it is not set.
    visible_cards: str | None = None


# --- the host -------------------------------------------------------------------------------------
def _nvml(facts: HostFacts) -> Finding | None:
    state = facts.nvml.state
    if state in ("ok", "", "not_started"):
        return None
    calm = state in ("library_missing", "no_devices")
    if calm:
        title = "No NVIDIA card is seen"
    else:
        title = "The NVIDIA driver does not answer as it should"
    severity = "info" if calm else "error"
    return Finding(f"nvml_{state}", severity, title, facts.nvml.text, facts.nvml.fix)


def _ram(facts: HostFacts) -> Finding | None:
    if facts.ram_available_bytes >= LOW_RAM_SHARE * facts.ram_total_bytes:
        return None
    text = (
        f"{bytes_text(facts.ram_available_bytes)} of"
        f" {bytes_text(facts.ram_total_bytes)} are left."
    )
    return Finding(
        "ram_low",
        "caution",
        "Main memory is nearly full",
        text,
        "Stop a deployment that uses the CPU.",
        "Layers on the CPU, a cache in main memory, or other programs.",
        evidence=(
            Evidence("Free", bytes_text(facts.ram_available_bytes), passing=True),
            Evidence("In all", bytes_text(facts.ram_total_bytes)),
        ),
    )


def _swap(facts: HostFacts) -> Finding | None:
    if facts.swap_used_bytes < MUCH_SWAP_BYTES:
        return None
    text = (
        f"{bytes_text(facts.swap_used_bytes)} are swapped out; layers on the CPU become"
        " very slow."
    )
    return Finding(
        "swap_used",
        "caution",
        "The machine swaps",
        text,
        "Free main memory, or load with mlock.",
        "More was wanted than there is, now or earlier.",
        evidence=(
            Evidence("Swapped out", bytes_text(facts.swap_used_bytes), passing=True),
        ),
    )


def _disk(facts: HostFacts) -> Finding | None:
    if facts.disk_free_bytes >= LOW_DISK_BYTES:
        return None
    text = f"{bytes_text(facts.disk_free_bytes)} are free where {facts.home} lies."
    return Finding(
        "disk_low",
        "caution",
        "The disk is nearly full",
        text,
        "Remove models or old logs.",
        evidence=(
            Evidence("Free", bytes_text(facts.disk_free_bytes), passing=True),
            Evidence("Folder", facts.home),
        ),
    )


def _limits(facts: HostFacts) -> Finding | None:
    parts = []
    if facts.ram_total_bytes < facts.machine_ram_bytes:
        parts.append(
            f"{bytes_text(facts.ram_total_bytes)} of"
            f" {bytes_text(facts.machine_ram_bytes)} of main memory"
        )
    if facts.cores < facts.machine_cores:
        parts.append(f"{facts.cores} of {facts.machine_cores} cores")
    if not parts:
        return None
    text = (
        f"The panel and its engines may use {' and '.join(parts)}; plans count with"
        " that."
    )
    fix = (
        "Raise the limits of the container or service (cgroup), or of its CPU affinity,"
        " if that is not meant."
    )
    return Finding(
        "limited", "info", "Only a part of the machine may be used", text, fix
    )


def _visible_cards(facts: HostFacts) -> Finding | None:
    if facts.visible_cards is None:
        return None
    text = (
        f"CUDA_VISIBLE_DEVICES is {facts.visible_cards!r}: CUDA engines see these"
        " cards, in this order."
    )
    fix = (
        "Numbers count in bus order, as nvidia-smi does. Start the panel without it to"
        " use every card."
    )
    return Finding("cards_hidden", "info", "CUDA_VISIBLE_DEVICES is set", text, fix)


HOST_RULES: tuple[Callable[[HostFacts], Finding | None], ...] = (
    _nvml,
    _ram,
    _swap,
    _disk,
    _limits,
    _visible_cards,
)


# --- the agent ------------------------------------------------------------------------------------
WORK = {
    "supervision": "The agent cannot look after the engines",
    "library": "The agent cannot look after the library",
    "broker": (
        "The broker does not answer: pages do not change by themselves, commands take"
        " two seconds longer"
    ),
    "discovery": "Looking for devices, engines and models failed",
    "cards": "Asking the engines which cards they see failed",
    "history": "What deployments do is not kept for their charts",
    "alerts": "The agent cannot look for alerts",
    "alert_messages": "Messages of alerts cannot be sent",
}


def agent_findings(problems: Mapping[str, str]) -> list[Finding]:
    """What the agent wrote of its own failures, by the names of WORK."""
    fix = "It tries again by itself; agent.log in OMNI_HOME's logs has the details."
    return [
        Finding(f"agent_{w}", "error", WORK.get(w, w), _sentence(text), fix, subject=w)
        for w, text in problems.items()
    ]


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


# --- devices across hosts -------------------------------------------------------------------------
def offer_findings(
    address: str, offered: Sequence[str], known: Collection[str], used: Sequence[str]
) -> list[Finding]:
    """Of devices offered at an address, by name, and of the addresses at which devices of other
    hosts are used."""
    findings = []
    if offered:
        text = (
            f"{', '.join(offered)} at {address}: ggml-rpc-server asks for no password,"
            " encrypts nothing, and has had holes by which a caller reads memory and"
            " runs code (CVE-2024-42478, CVE-2024-42479, CVE-2026-34159)."
        )
        fix = (
            "Only a cable between two machines or a WireGuard link; unset"
            " OMNI_RPC_DEVICES to offer nothing."
        )
        severity = "info" if is_loopback(address) else "caution"
        findings.append(
            Finding(
                "rpc_offered", severity, "Devices are offered to other hosts", text, fix
            )
        )
    missing = [name for name in offered if name not in known]
    if missing:
        text = (
            f"OMNI_RPC_DEVICES names {', '.join(missing)}; there are"
            f" {', '.join(sorted(known)) or 'none'}."
        )
        fix = "Correct it and start the panel again."
        findings.append(
            Finding(
                "rpc_device_unknown",
                "error",
                "A device that is to be offered is not there",
                text,
                fix,
            )
        )
    far = [endpoint for endpoint in used if not is_loopback(endpoint)]
    if far:
        text = f"Weights and prompts go to {', '.join(far)} as they are."
        fix = "Only a cable between two machines or a WireGuard link."
        findings.append(
            Finding(
                "rpc_used",
                "info",
                "Devices of other hosts are used without encryption",
                text,
                fix,
            )
        )
    return findings


# --- cards and what was asked for ---------------------------------------------------------------
def host_findings(facts: HostFacts) -> list[Finding]:
    return [finding for rule in HOST_RULES if (finding := rule(facts))]


def unusable_findings(
    cards: Iterable[CardIdentity], usable: Collection[str], hidden: str | None
) -> list[Finding]:
    """Cards that the driver lists and no engine does; `usable` are the UUIDs of those that some
    engine lists, `hidden` is CUDA_VISIBLE_DEVICES."""
    # Who hides cards on purpose need not be told that they are not used.
    shown = visible(
        sorted(cards, key=lambda card: (card.pci_bus_id, card.index)), hidden
    )
    names = [card.shown_name for card in shown if card.uuid not in usable]
    if not names:
        return []
    if len(names) > 1:
        which = "Cards that no engine can use"
    else:
        which = "A card that no engine can use"
    text = (
        f"{' and '.join(names)}: no engine that is known here lists"
        f" {'them' if len(names) > 1 else 'it'}."
    )
    fix = (
        "Install a llama.cpp built with CUDA, name it in OMNI_LLAMA_SERVER or"
        " OMNI_ENGINES, and scan."
    )
    return [
        Finding(
            "card_unusable",
            "caution",
            which,
            text,
            fix,
            "No engine is built for them, or its driver library is missing.",
            evidence=(Evidence("Seen by the driver only", ", ".join(names)),),
        )
    ]


def absent_findings(
    known: Iterable[CardIdentity], seen: Iterable[str]
) -> list[Finding]:
    """Cards that were here once and that the driver does not list any more."""
    here = set(seen)
    return [
        Finding(
            "card_absent",
            "caution",
            f"{card.shown_name} is not there any more",
            f"The driver does not list {card.uuid}.",
            fix="Taken out on purpose? Remove it under Administration. Else look at power,"
            " slot and dmesg.",
            subject=card.uuid,
            evidence=(Evidence("UUID", card.uuid), Evidence("Slot", card.pci_bus_id)),
        )
        for card in known
        if card.uuid not in here
    ]
