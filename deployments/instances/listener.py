"""Whether an engine itself listens at its address: a port of a dead one is taken by whoever is
quickest, key and prompts included."""

from __future__ import annotations

from deployments.instances.address import EngineAddress
from omni.listeners import own_listener


class NotTheEngine(Exception):
    """Something else listens there, or it cannot be seen who does: nothing may be sent."""


def listener_at(address: EngineAddress) -> str:
    """Which socket listens there; empty where nobody else can. Raises NotTheEngine."""
    if address.owner is None or address.port is None:
        return ""

    try:
        found = own_listener(address.owner.pid, address.owner.ticks, address.port)
    except OSError as error:
        raise NotTheEngine(f"who listens at {address} cannot be seen") from error
    if found is None:
        raise NotTheEngine(f"what listens at {address} is not the engine")
    return found
