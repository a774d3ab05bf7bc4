"""Names of the processes that use a card."""

from __future__ import annotations

import psutil


def process_name(pid: int) -> str:
    """'' for one that cannot be seen from here: it ended, or it is outside of this container."""
    try:
        return str(psutil.Process(pid).name())[:60]
    except psutil.Error:
        return ""
