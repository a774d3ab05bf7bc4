"""A session with NVML: its start, its cards, one look at everything. A lost card does not hide the
others; what each card is asked stands in gpus.nvml_fields.

A card that fell off its bus can take down whoever asks for it: the sampler asks from a process of
its own, everybody else through `look`.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml

from gpus.cards import data_sheet
from gpus.nvml_fields import (
    LOST,
    NOT_SUPPORTED,
    CardFailed,
    Questions,
    fast_facts,
    link_traffic,
    slow_facts,
    static_facts,
    text_of,
    watts,
)
from gpus.sample import CardIdentity, CardSample, NvmlReport, NvmlState, told_apart

log = logging.getLogger(__name__)

# The link and limits change slowly; a card that fails is left alone for a while.
SLOW_EVERY_S = 5.0
FAILED_AGAIN_S = 10.0
# What goes over one card's link takes 40 ms to read.
LINK_EVERY_S = 0.4
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


class Card:
    """One card: its handle, what never changes of it, and what changes slowly."""

    def __init__(self, index: int, slow_after_s: float = SLOW_EVERY_S) -> None:
        self.ask: Questions | None = None
        self.identity = CardIdentity(index)
        self.static: dict[str, Any] = {}
        self.slow: dict[str, Any] = {}
        self.link: dict[str, Any] = {}
        # Cards take turns, so that no tick asks all of them for everything.
        self.slow_after_s = slow_after_s
        self.slow_due_s = self.ask_again_s = float("-inf")
        self.failed: CardSample | None = None
        try:
            ask = Questions(pynvml.nvmlDeviceGetHandleByIndex(index))
            self.static = static_facts(ask)
            self.identity = _identity(index, Questions(ask.handle), self.static)
            self.ask = ask
        except (pynvml.NVMLError, CardFailed) as error:
            lost = (
                getattr(error, "value", None) in LOST
                or getattr(error, "state", "") == "lost"
            )
            self.identity = CardIdentity(
                index,
                state="lost" if lost else "error",
                error=f"The card cannot be opened: {str(error).rstrip('.')}.",
            )

    @property
    def key(self) -> str:
        return self.identity.uuid or f"GPU{self.identity.index}"

    def sample(self, now_s: float) -> CardSample:
        known: dict[str, Any] = {
            "key": self.key,
            "name": self.identity.shown_name,
            "model": self.identity.model,
            "memory_total_bytes": self.identity.memory_total_bytes,
            "has_unified_memory": self.identity.has_unified_memory,
        }
        if self.ask is None:
            return CardSample(
                **known, state=self.identity.state, error=self.identity.error
            )
        if self.failed and now_s < self.ask_again_s:
            return self.failed
        try:
            found = self._facts(self.ask, now_s)
            self.failed = None
            return CardSample(
                **known,
                **self.static,
                **found,
                pcie_generation_max=self.identity.pcie_generation_max,
                pcie_width_max=self.identity.pcie_width_max,
                unanswered=dict(self.ask.unanswered),
            )
        except CardFailed as error:
            self.ask_again_s = now_s + FAILED_AGAIN_S
            self.failed = CardSample(**known, state=error.state, error=str(error))
            return self.failed

    def read_link(self) -> None:
        """Its samples have the reading until `forget_link`."""
        if self.ask and not self.failed:
            # A card that is lost says so in its sample.
            with suppress(CardFailed):
                self.link = link_traffic(self.ask)

    def forget_link(self) -> None:
        self.link = {}

    def _facts(self, ask: Questions, now_s: float) -> dict[str, Any]:
        ask.asks_all = now_s >= self.slow_due_s
        if ask.asks_all:
            self.slow = slow_facts(ask)
            is_first = self.slow_due_s == float("-inf")
            self.slow_due_s = now_s + (self.slow_after_s if is_first else SLOW_EVERY_S)
        return {**fast_facts(ask), **self.slow, **self.link}


class Nvml:
    """A session with NVML. `start` once, then `sample` each tick.

    Only in a process that may be lost.
    """

    def __init__(self) -> None:
        self.state = NvmlState("not_started")
        self.cards: list[Card] = []
        self._links_read = 0
        self._link_due_s = float("-inf")

    def start(self) -> NvmlState:
        """Also again, when it failed before or its cards do: handles do not outlive a driver
        reload."""
        self.cards = []
        try:
            pynvml.nvmlInit()
            driver = _driver_version()
            count = pynvml.nvmlDeviceGetCount()
            self.cards = [
                Card(index, SLOW_EVERY_S * (index + 1) / count)
                for index in range(count)
            ]
            self._tell_apart()
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
        unopened = any(card.ask is None for card in self.cards)
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
        self._tell_apart()

    def _tell_apart(self) -> None:
        for card, identity in zip(self.cards, told_apart(self.identities), strict=True):
            card.identity = identity

    def sample(
        self, now_s: float, *, with_links: bool = False
    ) -> tuple[CardSample, ...]:
        """`with_links`: each sample has its card's newest reading; links are read in turns."""
        if not with_links:
            for card in self.cards:
                card.forget_link()
        elif self.cards and now_s >= self._link_due_s:
            self._link_due_s = now_s + LINK_EVERY_S
            self.cards[self._links_read % len(self.cards)].read_link()
            self._links_read += 1
        return tuple(card.sample(now_s) for card in self.cards)


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


def _driver_version() -> str:
    try:
        return text_of(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        log.warning("the driver does not tell its version: %s", error)
        return ""


def _identity(index: int, ask: Questions, static: Mapping[str, Any]) -> CardIdentity:
    pci = ask("pci_bus_id", pynvml.nvmlDeviceGetPciInfo)
    memory = ask("memory_used_bytes", pynvml.nvmlDeviceGetMemoryInfo)
    capability = ask("compute_capability", pynvml.nvmlDeviceGetCudaComputeCapability)
    name = text_of(ask("name", pynvml.nvmlDeviceGetName))
    uuid = text_of(ask("uuid", pynvml.nvmlDeviceGetUUID))
    if not uuid:
        raise CardFailed(
            "error", f"it does not tell its UUID: {ask.unanswered['uuid']}"
        )
    # What the driver does not tell stands in the card's data sheet.
    sheet = data_sheet(name, memory.total if memory else None)
    return CardIdentity(
        index=index,
        uuid=uuid,
        name=name,
        pci_bus_id=text_of(pci.busId) if pci else "",
        memory_total_bytes=memory.total if memory else None,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        pcie_generation_max=ask(
            "pcie_generation_max", pynvml.nvmlDeviceGetMaxPcieLinkGeneration
        ),
        pcie_width_max=ask("pcie_width_max", pynvml.nvmlDeviceGetMaxPcieLinkWidth),
        pcie_generation_card=static["pcie_generation_card"],
        power_limit_watts=watts(
            ask("power_limit_watts", pynvml.nvmlDeviceGetEnforcedPowerLimit)
        ),
        # A card with memory of its own tells how much, whatever else it keeps to itself.
        has_unified_memory=ask.unanswered.get("memory_used_bytes") == NOT_SUPPORTED,
        memory_bandwidth_gbps=_bandwidth(ask, static["memory_clock_max_mhz"])
        or (sheet.bandwidth_gbps if sheet else None),
        tflops=_tflops(ask, static["clock_max_mhz"])
        or (sheet.tflops if sheet else None),
    )


def _bandwidth(ask: Questions, clock_mhz: float | None) -> float | None:
    """Twice the memory clock that NVML reports × the bus: 14,001 MHz × 512 bits are the RTX 5090's
    1,792 GB/s."""
    bits = ask("memory_bandwidth_gbps", pynvml.nvmlDeviceGetMemoryBusWidth)
    if bits and clock_mhz:
        return float(round(2 * clock_mhz * 1e6 * bits / 8 / 1e9, 1))
    return None


def _tflops(ask: Questions, clock_mhz: float | None) -> float | None:
    """Cores × 2 (a multiplication and an addition) × clock."""
    cores = ask("tflops", pynvml.nvmlDeviceGetNumGpuCores)
    if cores and clock_mhz:
        return float(round(cores * 2 * clock_mhz * 1e6 / 1e12, 1))
    return None


if __name__ == "__main__":
    _answer()
