"""Ends every process that this OMNI_HOME ever started and that still runs.

What is desired stays as it is.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from django.conf import settings

from deployments.supervision import process

TERMINATE_AGAIN_S = 2.0


def stop_everything(host: str, timeout_s: float) -> int:
    """SIGTERM to all at once, again after a while, SIGKILL in the end; returns how many there
    were."""
    run = settings.OMNI_HOME.run
    running = [
        record for record in process.records(run) if not process.has_ended(record)
    ]
    for record in running:
        process.send_signal(record, signal.SIGTERM)
    began = time.monotonic()
    again = False
    left = list(running)
    while left and time.monotonic() - began < timeout_s:
        if not again and time.monotonic() - began > TERMINATE_AGAIN_S:
            again = True
            for record in left:
                process.send_signal(record, signal.SIGTERM)
        time.sleep(0.05)
        process.reap()
        left = [record for record in left if not process.has_ended(record)]
    for record in left:
        process.kill_group(record)
        process.wait_ended(record, 5)
    for record in running:
        # Its end was wanted; the next agent must not read it as a crash.
        process.forget(run, record.instance, record)
        if record.socket:
            Path(record.socket).unlink(missing_ok=True)
    return len(running)
