"""Signals exactly the process that is meant: a pid alone may have changed hands."""

from __future__ import annotations

import os
import signal

from deployments.supervision.runner import start_ticks


def signal_exactly(pid: int, ticks: int | None, number: signal.Signals) -> bool:
    """False when the process that began at these clock ticks is gone; another with its pid is never
    touched."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The handle holds the process: compared after opening, the pid cannot change hands any
        # more.
        if start_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
