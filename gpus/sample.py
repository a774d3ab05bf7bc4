"""What is measured at one moment.

None is what nobody can know here; it is never replaced by a zero.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

CardState = Literal["ok", "starting", "lost", "error"]


@dataclass(frozen=True)
class CardIdentity:
    """What never changes of a card.

    `uuid` is '' when the card could not be opened; `error` says why.
    """

    index: int
    uuid: str = ""
    name: str = ""
    pci_bus_id: str = ""
    memory_total_bytes: int | None = None
    compute_capability: str = ""
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    power_limit_watts: float | None = None
    # Of its memory, and single-precision arithmetic (10¹² operations per second), both at full
    # clock.
    memory_bandwidth_gbps: float | None = None
    tflops: float | None = None
    state: CardState = "ok"
    error: str = ""

    @property
    def shown_name(self) -> str:
        return self.name or f"GPU {self.index}"


@dataclass(frozen=True)
class CardSample:
    """A card (or the process that stands in for one) now.

    `key` is the GPU's UUID or the device's name.
    """

    key: str
    name: str
    state: CardState = "ok"
    error: str = ""
    is_stand_in: bool = False
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilisation_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clock_mhz: float | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    # What it sends and receives over its link; read only while somebody measures.
    link_tx_gbps: float | None = None
    link_rx_gbps: float | None = None
    # Why its clocks are lower than they could be; see gpus.nvml for the words.
    throttle: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostSample:
    """`cpu_percent` is None at the very first look: a share needs two."""

    cpu_percent: float | None
    ram_used_bytes: int
    ram_total_bytes: int
    swap_used_bytes: int
    load_1: float


@dataclass(frozen=True)
class NvmlState:
    """Whether NVML answers; when it does not, `text` says why and `fix` what to do, a sentence
    each."""

    state: str
    text: str = ""
    driver_version: str = ""
    fix: str = ""

    @property
    def is_ok(self) -> bool:
        return self.state == "ok"


@dataclass(frozen=True)
class NvmlReport:
    """One look at everything NVML has."""

    state: NvmlState
    identities: tuple[CardIdentity, ...] = ()
    samples: tuple[CardSample, ...] = ()


@dataclass(frozen=True)
class Sample:
    at_ms: int
    host: HostSample
    cards: tuple[CardSample, ...]
    nvml: NvmlState

    def frame(self) -> str:
        """The JSON text that every viewer gets."""
        body = {
            "type": "frame",
            "at": self.at_ms,
            "host": vars(self.host),
            "cards": [_without_none(vars(card)) for card in self.cards],
            "nvml": vars(self.nvml),
        }
        return json.dumps(body, separators=(",", ":"))

    def point(self) -> str:
        """The few numbers that charts draw, for those who come later: [at, cpu, ram, {key: [CHARTED
        …]}]."""
        cards = {
            card.key: [getattr(card, name) for name in CHARTED] for card in self.cards
        }
        body = [self.at_ms, self.host.cpu_percent, self.host.ram_used_bytes, cards]
        return json.dumps(body, separators=(",", ":"))

    def metrics(self) -> dict[tuple[str, str], float]:
        """(card, metric) → value, for the roll-ups; what is unknown is left out."""
        found: dict[tuple[str, str], float | None] = {
            ("host", "cpu_percent"): self.host.cpu_percent,
            ("host", "memory_used_bytes"): self.host.ram_used_bytes,
        }
        for card in self.cards:
            found |= {(card.key, name): getattr(card, name) for name in CHARTED}
        return {key: float(value) for key, value in found.items() if value is not None}


CHARTED = (
    "memory_used_bytes",
    "utilisation_percent",
    "temperature_celsius",
    "power_watts",
)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def named(
    identities: Sequence[CardIdentity], missing: Sequence[CardIdentity]
) -> list[CardIdentity]:
    """Gives cards that could not be opened the name of the known card they must be.

    A card that is lost before the driver is asked has no UUID to show. `missing` are the known
    cards of the host that no other card is; one at the same index is taken first, then the only one
    left.
    """
    left = list(missing)
    result = []
    for identity in identities:
        found = None if identity.uuid else _same(identity, left)
        if found:
            left.remove(found)
        result.append(_as_known(identity, found) if found else identity)
    return result


def _same(
    identity: CardIdentity, missing: Sequence[CardIdentity]
) -> CardIdentity | None:
    at_index = next((known for known in missing if known.index == identity.index), None)
    return at_index or (missing[0] if len(missing) == 1 else None)


def _as_known(identity: CardIdentity, known: CardIdentity) -> CardIdentity:
    return replace(
        known, index=identity.index, state=identity.state, error=identity.error
    )
