"""Xid errors as the driver reports them: who waits for them is blocked, so a thread waits."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from gpus.nvml_fields import text_of

log = logging.getLogger(__name__)

# One wait lasts this long; nobody can end it earlier.
WAIT_MS = 250
RETRY_S = 30.0


@dataclass(frozen=True)
class Xid:
    """NVIDIA's number of what went wrong (79: fell off the bus), and when it was heard of."""

    code: int
    at_ms: int


class XidWatch:
    """Waits in a thread of its own from `start` to `stop`; `last` has the newest of each card, by
    UUID.

    The driver must be open meanwhile.
    """

    def __init__(self) -> None:
        self.last: dict[str, Xid] = {}
        self.is_watching = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="xid", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """A thread that hangs in the driver is left behind."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout_s)
        self._thread = None

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._watch(stop)
            except pynvml.NVMLError as error:
                log.info("Xid errors are not reported now: %s", error)
            stop.wait(RETRY_S)

    def _watch(self, stop: threading.Event) -> None:
        """Until it is told to stop, or no card reports any. Raises NVMLError."""
        events = pynvml.nvmlEventSetCreate()
        try:
            uuids = _register(events)
            self.is_watching = bool(uuids)
            while uuids and not stop.is_set():
                self._wait(events, uuids)
        finally:
            self.is_watching = False
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(events)

    def _wait(self, events: Any, uuids: dict[int, str]) -> None:
        try:
            event = pynvml.nvmlEventSetWait_v2(events, WAIT_MS)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT:
                return
            raise
        uuid = uuids.get(_address(event.device))
        if uuid and event.eventType & pynvml.nvmlEventTypeXidCriticalError:
            self.last[uuid] = Xid(int(event.eventData), int(time.time() * 1000))
            log.warning("Xid %d of %s", event.eventData, uuid)


def _register(events: Any) -> dict[int, str]:
    """Handle → UUID of the cards that report Xid errors."""
    found = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        with suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = text_of(pynvml.nvmlDeviceGetUUID(handle))
            pynvml.nvmlDeviceRegisterEvents(
                handle, pynvml.nvmlEventTypeXidCriticalError, events
            )
            found[_address(handle)] = uuid
    return found


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
