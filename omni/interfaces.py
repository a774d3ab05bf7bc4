"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import socket

import psutil


def own_ipv4() -> frozenset[str]:
    """Of the interfaces that are up."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = psutil.net_if_addrs().items()
    return frozenset(
        a.address
        for name, all_ in found
        if name in up
        for a in all_
        if a.family == socket.AF_INET
    )
