"""What one card answers NVML: each question by itself, with the reason where there is no answer.

`static_facts` are asked once, `slow_facts` every few seconds, `fast_facts` at each tick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pynvml

from gpus.processes import named
from gpus.sample import CardProcess, CardState, MigSlice

log = logging.getLogger(__name__)

# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean "slower than it could be".
_THROTTLE = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power limit",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync boost group",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature (driver)",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature (hardware)",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
    # These two have their older names only.
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board limit",
    pynvml.nvmlClocksThrottleReasonReliability: "reliability (voltage)",
}
LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_GPU_NOT_FOUND}
# After these the whole card is in doubt when it cannot even tell its memory; before that, one
# sensor is.
_FAULTS = {
    pynvml.NVML_ERROR_UNKNOWN,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_IRQ_ISSUE,
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_TIMEOUT,
}
NOT_SUPPORTED = "not supported by card or driver"
_REASONS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "not known to this driver",
    pynvml.NVML_ERROR_NO_PERMISSION: "not allowed to the panel's user",
}
# pid_max of the kernel can be no higher (proc(5)).
MOST_PID = 1 << 22
_MEMORY = "memory_used_bytes"


class CardFailed(Exception):
    """The card is lost, or gives errors where it should give numbers."""

    def __init__(self, state: CardState, text: str) -> None:
        super().__init__(text)
        self.state = state


class Questions:
    """Asks one card; `unanswered` has the reason by the field that was asked for."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.unanswered: dict[str, str] = {}
        # What was not answered is asked again with the slow ones only.
        self.asks_all = True

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """None when this card or driver does not answer. Raises CardFailed."""
        if not self.asks_all and name in self.unanswered and name != _MEMORY:
            return None
        try:
            answer = function(self.handle, *arguments)
        except pynvml.NVMLError as error:
            self.unanswered[name] = self._reason(name, error)
            return None
        self.unanswered.pop(name, None)
        return answer

    def _reason(self, name: str, error: pynvml.NVMLError) -> str:
        if error.value in LOST:
            raise CardFailed("lost", f"The card fell off its bus ({error}).") from None
        if error.value in _FAULTS and name == _MEMORY:
            raise CardFailed(
                "error", f"The driver answers with an error: {error}."
            ) from None
        reason = _REASONS.get(error.value, f"driver error: {error}")
        if error.value not in _REASONS and self.unanswered.get(name) != reason:
            log.warning("%s: %s", name, error)
        return reason


def text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return str(value or "")


# --- asked once -----------------------------------------------------------------------------------
def static_facts(ask: Questions) -> dict[str, Any]:
    """What does not change while the driver is loaded."""
    limits = ask(
        "power_limit_min_watts", pynvml.nvmlDeviceGetPowerManagementLimitConstraints
    )
    if limits is None and "power_limit_min_watts" in ask.unanswered:
        ask.unanswered["power_limit_max_watts"] = ask.unanswered[
            "power_limit_min_watts"
        ]
    bar1 = ask("bar1_total_bytes", pynvml.nvmlDeviceGetBAR1MemoryInfo)
    return {
        "clock_max_mhz": _max_clock(ask, "clock_max_mhz", pynvml.NVML_CLOCK_SM),
        "memory_clock_max_mhz": _max_clock(
            ask, "memory_clock_max_mhz", pynvml.NVML_CLOCK_MEM
        ),
        "power_limit_default_watts": watts(
            ask(
                "power_limit_default_watts",
                pynvml.nvmlDeviceGetPowerManagementDefaultLimit,
            )
        ),
        "power_limit_min_watts": watts(limits[0]) if limits else None,
        "power_limit_max_watts": watts(limits[1]) if limits else None,
        "temperature_slowdown_celsius": _threshold(
            ask,
            "temperature_slowdown_celsius",
            pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
        ),
        "temperature_shutdown_celsius": _threshold(
            ask,
            "temperature_shutdown_celsius",
            pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
        ),
        "bar1_total_bytes": bar1.bar1Total if bar1 else None,
        "pcie_generation_card": ask(
            "pcie_generation_card", pynvml.nvmlDeviceGetGpuMaxPcieLinkGeneration
        ),
    }


def _max_clock(ask: Questions, name: str, clock: int) -> float | None:
    found: float | None = ask(name, pynvml.nvmlDeviceGetMaxClockInfo, clock)
    return found


def _threshold(ask: Questions, name: str, which: int) -> float | None:
    found = ask(name, pynvml.nvmlDeviceGetTemperatureThreshold, which)
    # Drivers that dropped a threshold answer 0.
    return float(found) if found else None


# --- asked every few seconds ----------------------------------------------------------------------
def slow_facts(ask: Questions) -> dict[str, Any]:
    """Dearer calls, and facts that seldom change."""
    return _slow_sensors(ask) | _slow_link(ask) | _health(ask) | _mig(ask)


def _slow_sensors(ask: Questions) -> dict[str, Any]:
    reserved = ask(
        "memory_reserved_bytes", pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2
    )
    encoder = ask("encoder_percent", pynvml.nvmlDeviceGetEncoderUtilization)
    decoder = ask("decoder_percent", pynvml.nvmlDeviceGetDecoderUtilization)
    state = ask("performance_state", pynvml.nvmlDeviceGetPerformanceState)
    return {
        "memory_reserved_bytes": reserved.reserved if reserved else None,
        "encoder_percent": float(encoder[0]) if encoder else None,
        "decoder_percent": float(decoder[0]) if decoder else None,
        # NVML's "unknown" is 32.
        "performance_state": state if state is not None and state < 16 else None,
        "memory_clock_mhz": ask(
            "memory_clock_mhz", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM
        ),
        "power_limit_watts": watts(
            ask("power_limit_watts", pynvml.nvmlDeviceGetEnforcedPowerLimit)
        ),
        "memory_temperature_celsius": ask(
            "memory_temperature_celsius", _memory_temperature
        ),
        "fan_percent": ask("fan_percent", _fan_percent),
        "processes": ask("processes", _processes),
    }


def _slow_link(ask: Questions) -> dict[str, Any]:
    return {
        "pcie_generation": ask(
            "pcie_generation", pynvml.nvmlDeviceGetCurrPcieLinkGeneration
        ),
        "pcie_width": ask("pcie_width", pynvml.nvmlDeviceGetCurrPcieLinkWidth),
        "pcie_replays": ask("pcie_replays", pynvml.nvmlDeviceGetPcieReplayCounter),
    }


def _health(ask: Questions) -> dict[str, Any]:
    ecc = ask("ecc_enabled", pynvml.nvmlDeviceGetEccMode)
    persistence = ask("persistence_mode", pynvml.nvmlDeviceGetPersistenceMode)
    rows = ask("remapped_rows", pynvml.nvmlDeviceGetRemappedRows)
    count = pynvml.nvmlDeviceGetTotalEccErrors
    since_start = pynvml.NVML_VOLATILE_ECC
    return {
        "ecc_enabled": bool(ecc[0]) if ecc else None,
        "ecc_corrected": ask(
            "ecc_corrected",
            count,
            pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
            since_start,
        ),
        "ecc_uncorrected": ask(
            "ecc_uncorrected",
            count,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            since_start,
        ),
        "remapped_rows": rows[0] + rows[1] if rows else None,
        "persistence_mode": None if persistence is None else bool(persistence),
    }


def _mig(ask: Questions) -> dict[str, Any]:
    mode = ask("mig_enabled", pynvml.nvmlDeviceGetMigMode)
    is_on = bool(mode and mode[0])
    return {
        "mig_enabled": None if mode is None else is_on,
        "mig_slices": _mig_slices(ask.handle) if is_on else (),
    }


def _mig_slices(handle: Any) -> tuple[MigSlice, ...]:
    """The slices of a card in MIG mode, as far as they tell what they are."""
    try:
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return ()
    found = []
    for place in range(most):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except pynvml.NVMLError:
            # Places need not be filled from the first on.
            continue
        found.append(_slice(part))
    return tuple(found)


def _slice(handle: Any) -> MigSlice:
    ask = Questions(handle)
    memory = ask("memory", pynvml.nvmlDeviceGetMemoryInfo)
    name = text_of(ask("name", pynvml.nvmlDeviceGetName))
    return MigSlice(
        uuid=text_of(ask("uuid", pynvml.nvmlDeviceGetUUID)),
        profile=name.rpartition(" MIG ")[2],
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
    )


def _memory_temperature(handle: Any) -> float:
    """Raises NVMLError: what the field's own return code says."""
    [value] = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_MEMORY_TEMP])
    # GeForce cards answer 0 for a sensor that they do not have.
    if value.nvmlReturn == pynvml.NVML_SUCCESS and not value.value.uiVal:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal)


def _fan_percent(handle: Any) -> float:
    """Of the fastest fan. Raises NVMLError, also for a card without one."""
    count = pynvml.nvmlDeviceGetNumFans(handle)
    if not count:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return float(
        max(pynvml.nvmlDeviceGetFanSpeed_v2(handle, fan) for fan in range(count))
    )


# --- processes ------------------------------------------------------------------------------------
def _processes(handle: Any) -> tuple[CardProcess, ...]:
    """Who uses the card, most memory first. Raises NVMLError."""
    computing = _listed(pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle), False)
    try:
        drawing = _listed(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle), True)
    except pynvml.NVMLError as error:
        if error.value in LOST:
            raise
        drawing = []
    found: dict[int, CardProcess] = {}
    for process in [*computing, *drawing]:
        found[process.pid] = _joined(found.get(process.pid), process)
    largest_first = sorted(found.values(), key=lambda each: -(each.memory_bytes or 0))
    return tuple(named(process) for process in largest_first)


def _listed(rows: Iterable[Any], draws: bool) -> list[CardProcess]:
    """Raises NVMLError for a list that makes no sense: drivers of another layout gave process ids
    like 4294967295."""
    found = [
        CardProcess(row.pid, memory_bytes=row.usedGpuMemory, draws=draws)
        for row in rows
    ]
    if any(not 0 < process.pid <= MOST_PID for process in found):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
    return found


def _joined(one: CardProcess | None, other: CardProcess) -> CardProcess:
    if one is None:
        return other
    sizes = [each.memory_bytes for each in (one, other) if each.memory_bytes]
    return replace(
        one, memory_bytes=max(sizes, default=None), draws=one.draws or other.draws
    )


# --- asked at each tick ---------------------------------------------------------------------------
def fast_facts(ask: Questions) -> dict[str, Any]:
    memory = ask(_MEMORY, pynvml.nvmlDeviceGetMemoryInfo)
    rates = ask("utilisation_percent", pynvml.nvmlDeviceGetUtilizationRates)
    reasons = ask("throttle", pynvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
    return {
        "memory_used_bytes": memory.used if memory else None,
        "utilisation_percent": float(rates.gpu) if rates else None,
        "memory_utilisation_percent": float(rates.memory) if rates else None,
        "power_watts": watts(ask("power_watts", pynvml.nvmlDeviceGetPowerUsage)),
        "energy_joules": watts(
            ask("energy_joules", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        ),
        "temperature_celsius": ask("temperature_celsius", _temperature),
        "clock_mhz": ask(
            "clock_mhz", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM
        ),
        "throttle": tuple(text for bit, text in _THROTTLE.items() if reasons & bit),
    }


def _temperature(handle: Any) -> float:
    """The versioned call first; older drivers have only the other one. Raises NVMLError."""
    try:
        found = pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    except pynvml.NVMLError as error:
        if error.value in LOST:
            raise
        found = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
    return float(found)


# --- asked while somebody measures ----------------------------------------------------------------
def link_traffic(ask: Questions) -> dict[str, Any]:
    """Each of the two takes 20 ms, in which the driver counts bytes."""
    read = pynvml.nvmlDeviceGetPcieThroughput
    return {
        "link_tx_gbps": _gbps(
            ask("link_tx_gbps", read, pynvml.NVML_PCIE_UTIL_TX_BYTES)
        ),
        "link_rx_gbps": _gbps(
            ask("link_rx_gbps", read, pynvml.NVML_PCIE_UTIL_RX_BYTES)
        ),
    }


def _gbps(kilobytes_per_second: int | None) -> float | None:
    if kilobytes_per_second is None:
        return None
    return kilobytes_per_second / 1e6


def watts(value: int | None) -> float | None:
    """Watts from milliwatts, joules from millijoules."""
    if value is None:
        return None
    return value / 1000
