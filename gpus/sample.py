"""What is measured at one moment. None is what nobody can know here; it is never replaced by a zero."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CardSample:
    """A card (or the process that stands in for one) now. `key` is the GPU's UUID or the device's name."""

    key: str
    name: str
    state: str = "ok"
    error: str = ""
    is_stand_in: bool = False
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilisation_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    fan_percent: float | None = None
    clock_mhz: float | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    throttle: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostSample:
    cpu_percent: float
    ram_used_bytes: int
    ram_total_bytes: int
    swap_used_bytes: int
    load_1: float


@dataclass(frozen=True)
class NvmlState:
    """Whether NVML answers; `text` says what to do when it does not."""

    state: str
    text: str = ""
    driver_version: str = ""


@dataclass(frozen=True)
class Sample:
    at_ms: int
    host: HostSample
    cards: tuple[CardSample, ...]
    nvml: NvmlState

    def frame(self) -> str:
        """The JSON text that every viewer gets."""
        cards = [_without_none(asdict(card)) for card in self.cards]
        body: dict[str, Any] = {
            "type": "frame",
            "at": self.at_ms,
            "host": asdict(self.host),
            "cards": cards,
            "nvml": asdict(self.nvml),
        }
        return json.dumps(body, separators=(",", ":"))

    def point(self) -> str:
        """The few numbers that charts draw, for those who come later: [at, cpu, ram, {key: [memory, …]}]."""
        cards = {
            card.key: [
                card.memory_used_bytes,
                card.utilisation_percent,
                card.temperature_celsius,
                card.power_watts,
            ]
            for card in self.cards
        }
        return json.dumps(
            [self.at_ms, self.host.cpu_percent, self.host.ram_used_bytes, cards], separators=(",", ":")
        )

    def metrics(self) -> dict[tuple[str, str], float]:
        """(card, metric) → value, for the roll-ups; what is unknown is left out."""
        found: dict[tuple[str, str], float | None] = {
            ("host", "cpu_percent"): self.host.cpu_percent,
            ("host", "memory_used_bytes"): self.host.ram_used_bytes,
        }
        for card in self.cards:
            found |= {(card.key, name): getattr(card, name) for name in ROLLED_UP}
        return {key: float(value) for key, value in found.items() if value is not None}


ROLLED_UP = ("memory_used_bytes", "utilisation_percent", "temperature_celsius", "power_watts")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
