"""The only module that talks to NVML.

Every question may go unanswered (None); a lost card does not hide the others.

A card that fell off its bus can take down whoever asks for it: the sampler asks from a process of
its own, everybody else through `look`.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml

from gpus.cards import data_sheet
from gpus.sample import CardIdentity, CardSample, CardState, NvmlReport, NvmlState

log = logging.getLogger(__name__)

# The link and limits change slowly; a card that fails is left alone for a while.
SLOW_EVERY_S = 5.0
FAILED_AGAIN_S = 10.0
LOOK_TIMEOUT_S = 15.0
ROOT = Path(__file__).resolve().parent.parent

# NVML's error → state, why, what to do. Any other error while it starts is "error".
_START_FAILURES: dict[int, tuple[str, str, str]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "library_missing",
        "No NVIDIA driver was found (libnvidia-ml.so.1).",
        "Without NVIDIA cards that is as it should be; with one, install the driver.",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "driver_not_loaded",
        "The NVIDIA driver is installed but not loaded.",
        "Run `modprobe nvidia`, or restart the machine.",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "version_mismatch",
        "The NVIDIA driver was upgraded and the old one is still loaded.",
        "Restart the machine.",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "no_permission",
        "This user may not open /dev/nvidia*.",
        "Add it to the group that owns them.",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "version_mismatch",
        "The NVIDIA driver is too old to be asked.",
        "Install a current one.",
    ),
}
# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean "slower than it could be".
_THROTTLE = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power limit",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature (driver)",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature (hardware)",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
_UNANSWERED = {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_GPU_NOT_FOUND}
# After these the whole card is in doubt, not one sensor.
_FAULTS = {
    pynvml.NVML_ERROR_UNKNOWN,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_IRQ_ISSUE,
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_TIMEOUT,
}
_said: set[str] = set()


class CardFailed(Exception):
    """The card is lost, or gives errors where it should give numbers."""

    def __init__(self, state: CardState, text: str) -> None:
        super().__init__(text)
        self.state = state


def query(function: Callable[..., Any], *arguments: Any) -> Any:
    """One NVML call; None when this card or driver does not answer it. Raises CardFailed."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _LOST:
            raise CardFailed("lost", f"The card fell off its bus ({error}).") from None
        if error.value in _FAULTS:
            raise CardFailed(
                "error", f"The driver answers with an error: {error}."
            ) from None
        if error.value not in _UNANSWERED and function.__name__ not in _said:
            _said.add(function.__name__)
            log.warning("%s: %s", function.__name__, error)
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return str(value or "")


class Card:
    """One card: its handle, what never changes of it, and what changes slowly."""

    def __init__(self, index: int) -> None:
        self.handle: Any = None
        self.identity = CardIdentity(index)
        self.slow: dict[str, Any] = {}
        self.slow_due_s = self.ask_again_s = float("-inf")
        self.failed: CardSample | None = None
        try:
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self.identity = _identity(index, self.handle)
        except (pynvml.NVMLError, CardFailed) as error:
            lost = (
                getattr(error, "value", None) in _LOST
                or getattr(error, "state", "") == "lost"
            )
            self.handle = None
            self.identity = CardIdentity(
                index,
                state="lost" if lost else "error",
                error=f"The card cannot be opened: {str(error).rstrip('.')}.",
            )

    @property
    def key(self) -> str:
        return self.identity.uuid or f"GPU{self.identity.index}"

    def sample(self, now_s: float, *, with_link: bool = False) -> CardSample:
        name = self.identity.shown_name
        total_bytes = self.identity.memory_total_bytes
        known: dict[str, Any] = {
            "key": self.key,
            "name": name,
            "memory_total_bytes": total_bytes,
        }
        if self.handle is None:
            return CardSample(
                **known, state=self.identity.state, error=self.identity.error
            )
        if self.failed and now_s < self.ask_again_s:
            return self.failed
        try:
            if now_s >= self.slow_due_s:
                self.slow = _slow(self.handle, self.identity)
                self.slow_due_s = now_s + SLOW_EVERY_S
            self.failed = None
            link = _link(self.handle) if with_link else {}
            return CardSample(**known, **_fast(self.handle), **self.slow, **link)
        except CardFailed as error:
            self.ask_again_s = now_s + FAILED_AGAIN_S
            self.failed = CardSample(**known, state=error.state, error=str(error))
            return self.failed


class Nvml:
    """A session with NVML. `start` once, then `sample` each tick.

    Only in a process that may be lost.
    """

    def __init__(self) -> None:
        self.state = NvmlState("not_started")
        self.cards: list[Card] = []
        self._links_read = 0

    def start(self) -> NvmlState:
        """Also again, when it failed before or its cards do: handles do not outlive a driver
        reload."""
        self.cards = []
        try:
            pynvml.nvmlInit()
            driver = _text(query(pynvml.nvmlSystemGetDriverVersion))
            self.cards = [Card(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except (pynvml.NVMLError, CardFailed) as error:
            code = int(getattr(error, "value", pynvml.NVML_ERROR_UNKNOWN))
            unknown = ("error", f"NVML does not start: {error}.", "")
            state, text, fix = _START_FAILURES.get(code, unknown)
            self.state = NvmlState(state, text, fix=fix)
            return self.state
        nothing = NvmlState(
            "no_devices", "The NVIDIA driver answers and reports no card.", driver
        )
        self.state = NvmlState("ok", "", driver) if self.cards else nothing
        return self.state

    def stop(self) -> None:
        self.cards, self.state = [], NvmlState("not_started")
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.info("NVML was not open: %s", error)

    @property
    def identities(self) -> tuple[CardIdentity, ...]:
        return tuple(card.identity for card in self.cards)

    @property
    def is_worth_a_restart(self) -> bool:
        """NVML did not start, a card was not opened, or not one card answers (the driver was
        reloaded)."""
        unopened = any(card.handle is None for card in self.cards)
        return (
            not self.state.is_ok or unopened or all(card.failed for card in self.cards)
        )

    def rename(self, identities: Mapping[int, CardIdentity]) -> None:
        """Tells cards that could not be opened who they are (index → identity)."""
        for card in self.cards:
            known = identities.get(card.identity.index)
            if known and not card.identity.uuid:
                card.identity = replace(
                    known, state=card.identity.state, error=card.identity.error
                )

    def sample(
        self, now_s: float, *, with_links: bool = False
    ) -> tuple[CardSample, ...]:
        """`with_links`: one card's link is read as well, another one at each call."""
        chosen = None
        if with_links and self.cards:
            chosen = self.cards[self._links_read % len(self.cards)]
            self._links_read += 1
        return tuple(
            card.sample(now_s, with_link=card is chosen) for card in self.cards
        )


def look(timeout_s: float = LOOK_TIMEOUT_S) -> NvmlReport:
    """Everything NVML has, asked by a child process: this one survives whatever a broken card
    does."""
    asking = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        answer, _ = asking.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        text = f"The NVIDIA driver does not answer within {timeout_s:.0f} s."
        fix = "Look at dmesg, then restart the machine."
        return NvmlReport(NvmlState("error", text, fix=fix))
    finally:
        _end(asking)
    if asking.returncode != 0:
        code = asking.returncode
        text = f"Asking the NVIDIA driver ended the asking process (exit code {code})."
        return NvmlReport(NvmlState("crashed", text, fix="Look at dmesg."))
    report: NvmlReport = pickle.loads(answer)  # this program's own words  # noqa: S301
    return report


def _end(asking: subprocess.Popen[bytes]) -> None:
    """Waits no longer than a moment: a process that hangs in a driver cannot even be killed."""
    asking.kill()
    with suppress(subprocess.TimeoutExpired):
        asking.wait(1)
    if asking.stdout:
        asking.stdout.close()


def _answer() -> None:
    """What the child process does: it asks NVML and writes a report to its parent."""
    nvml = Nvml()
    state = nvml.start()
    report = NvmlReport(state, nvml.identities, nvml.sample(0.0))
    sys.stdout.buffer.write(pickle.dumps(report))


def _identity(index: int, handle: Any) -> CardIdentity:
    pci = query(pynvml.nvmlDeviceGetPciInfo, handle)
    memory = query(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = query(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    name = _text(query(pynvml.nvmlDeviceGetName, handle))
    # What the driver does not tell stands in the card's data sheet.
    sheet = data_sheet(name, memory.total if memory else None)
    return CardIdentity(
        index=index,
        uuid=_text(query(pynvml.nvmlDeviceGetUUID, handle)),
        name=name,
        pci_bus_id=_text(pci.busId) if pci else "",
        memory_total_bytes=memory.total if memory else None,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        pcie_generation_max=query(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        pcie_width_max=query(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        power_limit_watts=_watts(query(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        memory_bandwidth_gbps=_bandwidth(handle)
        or (sheet.bandwidth_gbps if sheet else None),
        tflops=_tflops(handle) or (sheet.tflops if sheet else None),
    )


def _bandwidth(handle: Any) -> float | None:
    """Twice the memory clock that NVML reports × the bus: 14,001 MHz × 512 bits are the RTX 5090's
    1,792 GB/s."""
    bits = query(pynvml.nvmlDeviceGetMemoryBusWidth, handle)
    clock_mhz = query(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM)
    if bits and clock_mhz:
        return float(round(2 * clock_mhz * 1e6 * bits / 8 / 1e9, 1))
    return None


def _tflops(handle: Any) -> float | None:
    """Cores × 2 (a multiplication and an addition) × clock."""
    cores = query(pynvml.nvmlDeviceGetNumGpuCores, handle)
    clock_mhz = query(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM)
    if cores and clock_mhz:
        return float(round(cores * 2 * clock_mhz * 1e6 / 1e12, 1))
    return None


def _fast(handle: Any) -> dict[str, Any]:
    """Cheap calls, each tick."""
    memory = query(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    reasons = query(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    return {
        "memory_used_bytes": memory.used if memory else None,
        "utilisation_percent": float(rates.gpu) if rates else None,
        "power_watts": _watts(query(pynvml.nvmlDeviceGetPowerUsage, handle)),
        "temperature_celsius": _temperature(handle),
        "clock_mhz": query(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "throttle": tuple(text for bit, text in _THROTTLE.items() if reasons & bit),
    }


def _link(handle: Any) -> dict[str, Any]:
    """Each of the two takes 20 ms, in which the driver counts bytes."""
    read = pynvml.nvmlDeviceGetPcieThroughput
    return {
        "link_tx_gbps": _gbps(query(read, handle, pynvml.NVML_PCIE_UTIL_TX_BYTES)),
        "link_rx_gbps": _gbps(query(read, handle, pynvml.NVML_PCIE_UTIL_RX_BYTES)),
    }


def _gbps(kilobytes_per_second: int | None) -> float | None:
    if kilobytes_per_second is None:
        return None
    return kilobytes_per_second / 1e6


def _slow(handle: Any, identity: CardIdentity) -> dict[str, Any]:
    """Dearer calls, and facts that seldom change."""
    return {
        "power_limit_watts": _watts(
            query(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        ),
        "pcie_generation": query(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        "pcie_width": query(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        "pcie_generation_max": identity.pcie_generation_max,
        "pcie_width_max": identity.pcie_width_max,
    }


def _temperature(handle: Any) -> float | None:
    """The versioned call first; older drivers have only the other one."""
    value = query(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    if value is None:
        value = query(
            pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
        )
    if value is None:
        return None
    return float(value)


def _watts(milliwatts: int | None) -> float | None:
    if milliwatts is None:
        return None
    return milliwatts / 1000


if __name__ == "__main__":
    _answer()
