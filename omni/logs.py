"""What the log leaves out."""

from __future__ import annotations

import logging


class NoTracebackOfRefusals(logging.Filter):
    """A request that is refused is a line: its traceback says nothing about a fault, and anybody
    could fill disks with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "status_code", 500) < 500:
            record.exc_info = None
        return True
