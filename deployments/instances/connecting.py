"""Where an engine of ours listens, and the key that it asks for."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from deployments.instances.address import (
    EngineAddress,
    Process,
    port_address,
    socket_address,
)
from deployments.models import Instance


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
    if port and process:
        return port_address(port, process, key_path(instance))
    return None


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
        if address.key_path:
            return Path(address.key_path).read_text().strip()
        return ""
    except OSError:
        return ""
