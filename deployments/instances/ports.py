"""Free ports for engines, from the configured range."""

from __future__ import annotations

import socket
from collections.abc import Collection

from omni.addresses import LOOPBACK as LOOPBACK
from omni.errors import OmniError


def is_free(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def choose(
    first: int, last: int, taken: Collection[int], address: str = LOOPBACK
) -> int:
    """The lowest port of first–last that nobody has. Raises OmniError (ports_exhausted)."""
    for port in range(first, last + 1):
        if port not in taken and is_free(port, address):
            return port
    raise OmniError(
        "ports_exhausted",
        f"No port from {first} to {last} is free.",
        "Stop a deployment, or widen OMNI_ENGINE_PORTS.",
    )
