"""The only door to NVML. Every question may go unanswered (None); a lost card does not hide the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml

from gpus.sample import CardSample, NvmlState

log = logging.getLogger(__name__)

SLOW_EVERY_S = 5.0

# NVML's error → (state, what to do). Any other error while it starts is "error".
_START_FAILURES: dict[int, tuple[str, str]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "library_missing",
        "No NVIDIA driver was found (libnvidia-ml.so.1). Without NVIDIA cards that is as it should be.",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "driver_not_loaded",
        "The NVIDIA driver is installed but not loaded: run `modprobe nvidia`, or restart the machine.",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "version_mismatch",
        "The NVIDIA driver was upgraded and the old one is still loaded: restart the machine.",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "no_permission",
        "This user may not open /dev/nvidia*: check its groups.",
    ),
}
NO_CARDS = NvmlState("no_devices", "The NVIDIA driver answers and reports no card.")
# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean "slower than it could be".
_THROTTLE = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature (driver)",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature (hardware)",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_GPU_NOT_FOUND}
_unsupported_said: set[str] = set()


class CardLost(Exception):
    """The card fell off the bus."""


def query(function: Callable[..., Any], *arguments: Any) -> Any:
    """One NVML call; None when this card or driver does not answer it. Raises CardLost."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _LOST:
            raise CardLost(str(error)) from None
        if error.value not in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            _say_once(function.__name__, error)
        return None


def _say_once(name: str, error: Exception) -> None:
    if name not in _unsupported_said:
        _unsupported_said.add(name)
        log.warning("%s: %s", name, error)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


@dataclass
class Card:
    """A card's handle, what never changes of it, and what changes slowly."""

    index: int
    handle: Any = None
    uuid: str = ""
    name: str = ""
    pci_bus_id: str = ""
    memory_total_bytes: int | None = None
    compute_capability: str = ""
    pcie_generation_max: int | None = None
    pcie_width_max: int | None = None
    error: str = ""
    slow: dict[str, Any] = field(default_factory=dict)
    slow_at_s: float = float("-inf")

    @property
    def key(self) -> str:
        return self.uuid or f"GPU{self.index}"


class Nvml:
    """A session with NVML. `start` once, `cards`, then `sample` each tick."""

    def __init__(self) -> None:
        self.state = NvmlState("not_started")
        self.cards: list[Card] = []

    def start(self) -> NvmlState:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            name, text = _START_FAILURES.get(error.value, ("error", f"NVML does not start: {error}."))
            self.state = NvmlState(name, text)
            return self.state
        driver = _text(query(pynvml.nvmlSystemGetDriverVersion))
        count = query(pynvml.nvmlDeviceGetCount) or 0
        self.cards = [_open(index) for index in range(count)]
        found = NvmlState("ok", "", driver)
        self.state = found if self.cards else NvmlState(NO_CARDS.state, NO_CARDS.text, driver)
        return self.state

    def sample(self, now_s: float) -> list[CardSample]:
        return [_sample(card, now_s) for card in self.cards]


def _open(index: int) -> Card:
    """A card that cannot be opened keeps its place, with its error."""
    card = Card(index)
    try:
        card.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        card.uuid = _text(query(pynvml.nvmlDeviceGetUUID, card.handle))
        card.name = _text(query(pynvml.nvmlDeviceGetName, card.handle))
        pci = query(pynvml.nvmlDeviceGetPciInfo, card.handle)
        card.pci_bus_id = _text(pci.busId) if pci else ""
        memory = query(pynvml.nvmlDeviceGetMemoryInfo, card.handle)
        card.memory_total_bytes = memory.total if memory else None
        capability = query(pynvml.nvmlDeviceGetCudaComputeCapability, card.handle)
        card.compute_capability = f"{capability[0]}.{capability[1]}" if capability else ""
        card.pcie_generation_max = query(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, card.handle)
        card.pcie_width_max = query(pynvml.nvmlDeviceGetMaxPcieLinkWidth, card.handle)
    except (pynvml.NVMLError, CardLost) as error:
        card.error = str(error)
    return card


def _sample(card: Card, now_s: float) -> CardSample:
    known: dict[str, Any] = {"key": card.key, "name": card.name or f"GPU {card.index}"}
    known["memory_total_bytes"] = card.memory_total_bytes
    if card.handle is None:
        return CardSample(**known, state="error", error=card.error)
    try:
        if now_s - card.slow_at_s >= SLOW_EVERY_S:
            card.slow, card.slow_at_s = _slow(card), now_s
        return CardSample(**known, **_fast(card.handle), **card.slow)
    except CardLost as error:
        return CardSample(**known, state="lost", error=f"The card does not answer any more: {error}.")


def _fast(handle: Any) -> dict[str, Any]:
    """Cheap calls, each tick."""
    memory = query(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power_milliwatts = query(pynvml.nvmlDeviceGetPowerUsage, handle)
    reasons = query(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    return {
        "memory_used_bytes": memory.used if memory else None,
        "utilisation_percent": float(rates.gpu) if rates else None,
        "power_watts": power_milliwatts / 1000 if power_milliwatts is not None else None,
        "temperature_celsius": _temperature(handle),
        "clock_mhz": query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "throttle": tuple(text for bit, text in _THROTTLE.items() if reasons & bit),
    }


def _temperature(handle: Any) -> float | None:
    """The versioned call first; older drivers have only the other one."""
    value = query(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    if value is None:
        value = query(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return None if value is None else float(value)


def _slow(card: Card) -> dict[str, Any]:
    """Dearer calls, and facts that seldom change."""
    limit_milliwatts = query(pynvml.nvmlDeviceGetEnforcedPowerLimit, card.handle)
    return {
        "power_limit_watts": limit_milliwatts / 1000 if limit_milliwatts is not None else None,
        "fan_percent": query(pynvml.nvmlDeviceGetFanSpeed, card.handle),
        "pcie_generation": query(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, card.handle),
        "pcie_width": query(pynvml.nvmlDeviceGetCurrPcieLinkWidth, card.handle),
        "pcie_generation_max": card.pcie_generation_max,
        "pcie_width_max": card.pcie_width_max,
    }
