"""Where a server listens: an engine of ours on its Unix socket or on a port, or one that somebody
else runs."""

from __future__ import annotations

from dataclasses import dataclass

from omni.addresses import LOOPBACK


@dataclass(frozen=True)
class Process:
    """A process, not just a pid: `ticks` is when it began, in clock ticks since boot."""

    pid: int
    ticks: int


@dataclass(frozen=True)
class EngineAddress:
    """`owner` is whose the listener on the port has to be; an external server has none that is
    known here."""

    url: str
    socket: str = ""
    port: int | None = None
    owner: Process | None = None
    # The file with the key that it asks for: another one at every start.
    key_path: str = ""

    def __str__(self) -> str:
        return self.socket or self.url


def socket_address(path: str) -> EngineAddress:
    return EngineAddress("http://localhost", path)


def port_address(port: int, owner: Process, key_path: str = "") -> EngineAddress:
    return EngineAddress(f"http://{LOOPBACK}:{port}", "", port, owner, key_path)
