"""What is wrong with the rig: facts in, findings out. One function per rule; the rules stand in tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from gpus.links import link_shortfall
from gpus.sample import CardSample
from omni.units import GIB, bytes_text

LOW_DISK_BYTES = 10 * GIB
LOW_RAM_SHARE, FULL_CARD_SHARE = 0.05, 0.97
MUCH_SWAP_BYTES = 2 * GIB


@dataclass(frozen=True)
class Finding:
    """`severity` is info, caution or error."""

    code: str
    severity: str
    title: str
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class HostFacts:
    nvml_state: str
    nvml_text: str
    ram_total_bytes: int
    ram_available_bytes: int
    swap_used_bytes: int
    disk_free_bytes: int
    home: str


@dataclass(frozen=True)
class CardFacts:
    sample: CardSample

    @classmethod
    def from_sample(cls, sample: CardSample) -> CardFacts:
        return cls(sample)


def _nvml(facts: HostFacts) -> Finding | None:
    if facts.nvml_state in ("ok", "", "not_started"):
        return None
    calm = facts.nvml_state in ("library_missing", "no_devices")
    title = "No NVIDIA card is seen" if calm else "The NVIDIA driver does not answer"
    return Finding(f"nvml_{facts.nvml_state}", "info" if calm else "error", title, facts.nvml_text)


def _ram(facts: HostFacts) -> Finding | None:
    if facts.ram_available_bytes >= LOW_RAM_SHARE * facts.ram_total_bytes:
        return None
    text = f"{bytes_text(facts.ram_available_bytes)} of {bytes_text(facts.ram_total_bytes)} are left."
    return Finding("ram_low", "caution", "Main memory is nearly full", text, "Stop a deployment that uses the CPU.")


def _swap(facts: HostFacts) -> Finding | None:
    if facts.swap_used_bytes < MUCH_SWAP_BYTES:
        return None
    text = f"{bytes_text(facts.swap_used_bytes)} are swapped out; layers on the CPU become very slow."
    return Finding("swap_used", "caution", "The machine swaps", text, "Free main memory, or load with mlock.")


def _disk(facts: HostFacts) -> Finding | None:
    if facts.disk_free_bytes >= LOW_DISK_BYTES:
        return None
    text = f"{bytes_text(facts.disk_free_bytes)} are free where {facts.home} lies."
    return Finding("disk_low", "caution", "The disk is nearly full", text, "Remove models or old logs.")


HOST_RULES: tuple[Callable[[HostFacts], Finding | None], ...] = (_nvml, _ram, _swap, _disk)


def _link(facts: CardFacts) -> Finding | None:
    card = facts.sample
    text = link_shortfall(
        card.pcie_generation, card.pcie_width, card.pcie_generation_max, card.pcie_width_max,
        card.utilisation_percent,
    )  # fmt: skip
    return Finding("link_below_best", "caution", f"{card.name}: slow link", text) if text else None


def _throttle(facts: CardFacts) -> Finding | None:
    card = facts.sample
    if not card.throttle:
        return None
    text = f"Its clocks are held down by: {', '.join(card.throttle)}."
    fix = "A power cap is your own setting; heat wants better cooling; a power brake, a better supply."
    return Finding("throttled", "caution", f"{card.name} runs slower than it could", text, fix)


def _full(facts: CardFacts) -> Finding | None:
    card = facts.sample
    used, total = card.memory_used_bytes, card.memory_total_bytes
    if used is None or not total or used < FULL_CARD_SHARE * total:
        return None
    text = f"{bytes_text(used)} of {bytes_text(total)} are used."
    return Finding("card_full", "caution", f"{card.name}: memory nearly full", text, "Lower the context or layers.")


CARD_RULES: tuple[Callable[[CardFacts], Finding | None], ...] = (_link, _throttle, _full)


def host_rules(facts: HostFacts) -> list[Finding]:
    return [finding for rule in HOST_RULES if (finding := rule(facts))]


def card_rules(facts: CardFacts) -> list[Finding]:
    return [finding for rule in CARD_RULES if (finding := rule(facts))]
