"""What is measured at one moment.

None is what nobody can know here; it is never replaced by a zero.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

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
    # What card and slot can do together; `pcie_generation_card` is what the card alone could.
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    pcie_generation_card: int | None = None
    power_limit_watts: float | None = None
    # It has no memory of its own and uses the host's.
    has_unified_memory: bool = False
    # Of its memory, and single-precision arithmetic (10¹² operations per second), both at full
    # clock.
    memory_bandwidth_gbps: float | None = None
    tflops: float | None = None
    state: CardState = "ok"
    error: str = ""
    # Another card of this host has the same name.
    is_one_of_several: bool = False

    @property
    def shown_name(self) -> str:
        number = f"GPU {self.index}"
        if self.is_one_of_several:
            return f"{self.name} ({number})"
        return self.name or number

    @property
    def model(self) -> str | None:
        """What its maker calls it, where the name that is shown says more."""
        return self.name if self.is_one_of_several else None


@dataclass(frozen=True)
class CardProcess:
    """A process that uses a card; `name` is '' when it cannot be seen from here."""

    pid: int
    name: str = ""
    memory_bytes: int | None = None
    # It draws as well, or does nothing else: a desktop.
    draws: bool = False
    # Process ids of who started it, the nearest first.
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class MigSlice:
    """A part of a card that MIG made a device of its own; `profile` is its size (1g.24gb)."""

    uuid: str
    profile: str = ""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None


@dataclass(frozen=True)
class CardSample:
    """A card (or the process that stands in for one) now.

    `key` is the GPU's UUID or the device's name. `unanswered` has the reason for each field that
    was asked for and not answered.
    """

    key: str
    name: str
    state: CardState = "ok"
    error: str = ""
    is_stand_in: bool = False
    # What its maker calls it, where `name` has a number beside that.
    model: str | None = None
    # --- memory and use
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    has_unified_memory: bool = False
    # What the driver keeps for itself; a part of what is used.
    memory_reserved_bytes: int | None = None
    # The window through which the processor reaches its memory.
    bar1_total_bytes: int | None = None
    utilisation_percent: float | None = None
    # How much of the time its memory was read or written.
    memory_utilisation_percent: float | None = None
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    processes: tuple[CardProcess, ...] | None = None
    # --- heat and power
    temperature_celsius: float | None = None
    temperature_slowdown_celsius: float | None = None
    temperature_shutdown_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    fan_percent: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    power_limit_default_watts: float | None = None
    power_limit_min_watts: float | None = None
    power_limit_max_watts: float | None = None
    # Since the driver was loaded.
    energy_joules: float | None = None
    # --- clocks
    clock_mhz: float | None = None
    clock_max_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_clock_max_mhz: float | None = None
    # 0 is the fastest, 15 the slowest.
    performance_state: int | None = None
    # Why its clocks are lower than they could be; see gpus.nvml_fields for the words.
    throttle: tuple[str, ...] = ()
    # --- link
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    pcie_generation_card: int | None = None
    # Packets that had to be sent again.
    pcie_replays: int | None = None
    # What it sends and receives over its link; read in turns, only while somebody wants to know.
    link_tx_gbps: float | None = None
    link_rx_gbps: float | None = None
    # --- health
    ecc_enabled: bool | None = None
    # Since the driver was loaded.
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_rows: int | None = None
    # The newest error message of its driver since the sampler started, and when.
    xid: int | None = None
    xid_at_ms: int | None = None
    persistence_mode: bool | None = None
    mig_enabled: bool | None = None
    mig_slices: tuple[MigSlice, ...] = ()
    unanswered: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_resizable_bar(self) -> bool | None:
        """Whether the processor reaches all of its memory at once; None where nobody can know."""
        if not self.bar1_total_bytes or not self.memory_total_bytes:
            return None
        # NVML's total leaves out what ECC and the driver keep.
        return self.bar1_total_bytes >= 0.9 * self.memory_total_bytes


def read_card(body: Mapping[str, Any]) -> CardSample:
    """A card of a frame; what another version wrote into it is left out."""
    known = {name: body[name] for name in _CARD_FIELDS if name in body}
    known["throttle"] = tuple(known.get("throttle", ()))
    known["mig_slices"] = tuple(
        MigSlice(**part) for part in known.get("mig_slices", ())
    )
    if known.get("processes") is not None:
        known["processes"] = tuple(
            CardProcess(**{**each, "parents": tuple(each.get("parents", ()))})
            for each in known["processes"]
        )
    return CardSample(**known)


_CARD_FIELDS = tuple(each.name for each in fields(CardSample))


def with_host_memory(
    cards: Sequence[CardSample], used_bytes: int, total_bytes: int
) -> list[CardSample]:
    """Cards without memory of their own have the host's."""
    return [
        replace(card, memory_used_bytes=used_bytes, memory_total_bytes=total_bytes)
        if card.has_unified_memory and card.state == "ok"
        else card
        for card in cards
    ]


def with_xid(card: CardSample, known: CardSample | None) -> CardSample:
    """With the driver's error that another sample of it has."""
    if known is None or known.xid is None:
        return card
    return replace(card, xid=known.xid, xid_at_ms=known.xid_at_ms)


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


class CardReader(Protocol):
    """Reads cards of one maker: gpus.nvml reads NVIDIA's; another may stand beside it."""

    @property
    def identities(self) -> tuple[CardIdentity, ...]: ...

    def start(self) -> NvmlState: ...

    def stop(self) -> None: ...

    def sample(
        self, now_s: float, *, with_links: bool = False
    ) -> tuple[CardSample, ...]: ...


@dataclass(frozen=True)
class Sample:
    at_ms: int
    host: HostSample
    cards: tuple[CardSample, ...]
    nvml: NvmlState

    def frame(self) -> str:
        """All that was measured, as JSON: what is kept for who asks later."""
        body = {
            "type": "frame",
            "at": self.at_ms,
            "host": vars(self.host),
            "cards": [_without_none(vars(card)) for card in self.cards],
            "nvml": vars(self.nvml),
        }
        return json.dumps(body, separators=(",", ":"), default=vars)

    def live_frame(self) -> str:
        """The same with no more of each card than pages show at every tick."""
        body = {
            "type": "frame",
            "at": self.at_ms,
            "host": vars(self.host),
            "cards": [_shown_live(card) for card in self.cards],
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
            ("host", "swap_used_bytes"): self.host.swap_used_bytes,
            ("host", "load_1"): self.host.load_1,
        }
        for card in self.cards:
            found |= {(card.key, name): getattr(card, name) for name in KEPT}
        return {key: float(value) for key, value in found.items() if value is not None}


CHARTED = (
    "memory_used_bytes",
    "utilisation_percent",
    "temperature_celsius",
    "power_watts",
)


# What the history has of a card (gpus/charts.py says how it is drawn).
KEPT = (
    *CHARTED,
    "memory_utilisation_percent",
    "clock_mhz",
    "memory_clock_mhz",
    "memory_temperature_celsius",
    "fan_percent",
    "encoder_percent",
    "decoder_percent",
    "pcie_generation",
    "pcie_width",
    "link_tx_gbps",
    "link_rx_gbps",
)


# What the gauges of pages show (static/js/gauges.js).
LIVE = (
    "key",
    "name",
    "state",
    "error",
    "is_stand_in",
    "memory_used_bytes",
    "memory_total_bytes",
    "utilisation_percent",
    "temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "pcie_generation",
    "pcie_width",
    "pcie_generation_max",
    "pcie_width_max",
    "throttle",
)


def _shown_live(card: CardSample) -> dict[str, Any]:
    values = vars(card)
    return {name: value for name in LIVE if (value := values[name]) is not None}


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


def told_apart(cards: Sequence[CardIdentity]) -> list[CardIdentity]:
    """The cards of one host; those that share a name are marked as such."""
    times = Counter(card.name for card in cards if card.name)
    return [replace(card, is_one_of_several=times[card.name] > 1) for card in cards]


def _same(
    identity: CardIdentity, missing: Sequence[CardIdentity]
) -> CardIdentity | None:
    at_index = next((known for known in missing if known.index == identity.index), None)
    return at_index or (missing[0] if len(missing) == 1 else None)


def _as_known(identity: CardIdentity, known: CardIdentity) -> CardIdentity:
    return replace(
        known, index=identity.index, state=identity.state, error=identity.error
    )
