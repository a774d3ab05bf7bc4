"""The one way to an engine of ours: nothing is sent before it is sure that the engine itself
listens."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from django.conf import settings

from deployments.instances.address import EngineAddress, Process, port_address, socket_address
from deployments.models import Instance
from omni.addresses import LOOPBACK
from omni.listeners import own_listener


# --- where ----------------------------------------------------------------------------------------
def address_of(instance: Instance) -> EngineAddress | None:
    """Where an instance of ours listens, by its row; None where it has no process."""
    process = None
    if instance.pid and instance.start_time:
        process = Process(instance.pid, int(instance.start_time))
    return engine_address(instance.pk, instance.socket, instance.port, process)


def engine_address(
    instance: int, path: str, port: int | None, process: Process | None
) -> EngineAddress | None:
    if path:
        return socket_address(path)
    return port_address(port, process, key_path(instance)) if port and process else None


def key_path(instance: int) -> str:
    """The file with the key of an instance's engine. Versions before this one had one key for
    all."""
    path = own_key_path(instance)
    return str(path if path.exists() else settings.OMNI_HOME.secret_file("engine"))


def socket_path(deployment: str, role: str, ordinal: int) -> Path:
    """Where an instance listens: the same at every start, so that a plan can say it."""
    place = f".{ordinal}" if ordinal else ""
    return settings.OMNI_HOME.engine_socket(f"{deployment}.{role}{place}")


def own_key_path(instance: int) -> Path:
    return settings.OMNI_HOME.run / "instances" / f"{instance}.key"


def key_of(address: EngineAddress) -> str:
    """What the engine asks for, read each time; empty for one with a socket, whose folder
    keeps others out."""
    try:
        return Path(address.key_path).read_text().strip() if address.key_path else ""
    except OSError:
        return ""


# --- how ------------------------------------------------------------------------------------------
def checked(address: EngineAddress) -> str:
    """Which socket listens there.

    Raises ConnectionRefusedError where it is not the engine's: nothing may be sent.
    """
    if address.owner is None or address.port is None:
        return ""
    if (found := own_listener(address.owner.pid, address.owner.ticks, address.port)) is None:
        raise ConnectionRefusedError(f"what listens at {address} is not the engine")
    return found


def connect(address: EngineAddress, timeout_s: float) -> socket.socket:
    """Raises OSError."""
    connection = socket.socket(socket.AF_UNIX if address.socket else socket.AF_INET)
    connection.settimeout(timeout_s)
    try:
        before = checked(address)
        connection.connect(address.socket or (LOOPBACK, address.port))
        # Whoever listened before listens still: so this connection is to it.
        if checked(address) != before:
            raise ConnectionRefusedError(f"{address} changed hands")
    except OSError:
        connection.close()
        raise
    return connection


class EngineConnection(http.client.HTTPConnection):
    """For one request to an engine of ours."""

    def __init__(self, address: EngineAddress, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.address, self.timeout_s = address, timeout_s

    def connect(self) -> None:
        self.sock = connect(self.address, self.timeout_s)

    def ask(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        """Raises OSError and HTTPException."""
        headers = {"Content-Type": "application/json"}
        if key := key_of(self.address):
            headers["Authorization"] = f"Bearer {key}"
        self.request(method, path, body, headers)
        return self.getresponse()
