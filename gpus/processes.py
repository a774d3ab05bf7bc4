"""Who the processes are that use a card."""

from __future__ import annotations

from dataclasses import replace

import psutil

from gpus.sample import CardProcess


def named(process: CardProcess) -> CardProcess:
    """With its name, and the processes that it was started by; without for one that cannot be seen
    from here: it ended, or it is outside of this container."""
    try:
        found = psutil.Process(process.pid)
        parents = tuple(parent.pid for parent in found.parents())
        return replace(process, name=str(found.name())[:60], parents=parents)
    except psutil.Error:
        return process
