"""Turns a planned instance into a running process: checks first, then the port, then the start."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction

from deployments import slots_folder
from deployments.gguf import read_header
from deployments.model_folder import read_folder
from deployments.models import Instance
from deployments.planning.plan import KEY, PORT, InstancePlan
from deployments.supervision import device_servers, ports, process
from deployments.supervision.instances import file_stamp
from gpus.models import Device
from omni.errors import OmniError


def log_path(instance: Instance) -> Path:
    owner = instance.deployment.name if instance.deployment else f"device-{instance.device}"
    folder = settings.OMNI_HOME.logs / "instances"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{owner}-{instance.role}-{instance.ordinal}.log"


def check(plan: InstancePlan) -> None:
    """What would fail for sure is said before the start. Raises OmniError."""
    binary = plan.argv[0]
    if not os.access(binary, os.X_OK):
        text = f"The engine's program {binary} is gone or cannot be executed."
        raise OmniError("engine_missing", text, "Install it again, or choose another engine.")
    if plan.argv[1:2] == ("serve",):
        read_folder(plan.argv[2])
    for flag, value in zip(plan.argv, plan.argv[1:], strict=False):
        if flag in ("-m", "-md"):
            read_header(value)
        elif flag == "--slot-save-path":
            slots_folder.make(Path(value))


def tidy(argv: Sequence[str]) -> None:
    """Removes what an instance with this command, stopped by now, may have left in memory."""
    for flag, value in zip(argv, argv[1:], strict=False):
        if flag == "--slot-save-path" and Path(value).parent == settings.OMNI_HOME.slots:
            slots_folder.remove(Path(value))


def start(instance: Instance, plan: InstancePlan, generation: int, taken: Sequence[int]) -> process.Record:
    """Records a free port, then starts the process. Raises OmniError."""
    check(plan)
    port = _reserve_port(instance, taken)
    argv = [argument.replace(PORT, str(port)) for argument in plan.argv]
    # With the key's placeholder: what is kept and shown of an instance does not tell it.
    instance.argv, instance.env = argv, dict(plan.env)
    instance.file_stamp = file_stamp(argv)
    path = log_path(instance)
    instance.log_path = str(path)
    return process.spawn(
        settings.OMNI_HOME.run,
        instance=instance.pk,
        generation=generation,
        port=port,
        argv=argv,
        env={name: _with_key(value) for name, value in plan.env.items()},
        log_path=path,
        folder=_write_files(instance, plan, port),
        hidden=[settings.OMNI_HOME.secret("engine")],
    )


def _with_key(text: str) -> str:
    return text.replace(KEY, settings.OMNI_HOME.secret("engine")) if KEY in text else text


def _write_files(instance: Instance, plan: InstancePlan, port: int) -> Path | None:
    """The folder the process starts in, with its files, made anew at each start; None where there are none."""
    if not plan.files:
        return None
    folder = process.files_folder(settings.OMNI_HOME.run, instance.pk)
    for name, text in plan.files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(_with_key(text.replace(PORT, str(port))))
    return folder


def _reserve_port(instance: Instance, taken: Sequence[int]) -> int:
    """Keeps the port it had when that is free; a device that is served keeps its endpoint if it can."""
    address = device_servers.server_address(instance.device) if instance.device else ports.LOOPBACK
    wanted = instance.port or (_endpoint_port(instance.device) if instance.device else None)
    first, last = settings.OMNI_ENGINE_PORTS
    others = set(taken) - {instance.port}
    for _ in range(20):
        port = wanted if wanted and wanted not in others and ports.is_free(wanted, address) else None
        port = port or ports.choose(first, last, others, address)
        try:
            with transaction.atomic():
                Instance.objects.filter(pk=instance.pk).update(port=port)
                if instance.device:
                    device_servers.moved(instance.device, f"{address}:{port}")
        except IntegrityError:
            others.add(port)
            continue
        instance.port = port
        return port
    raise OmniError("ports_exhausted", "No port could be reserved.", "Widen OMNI_ENGINE_PORTS.")


def _endpoint_port(device: Device) -> int | None:
    port = device.endpoint.rpartition(":")[2]
    return int(port) if port.isdigit() else None


def command_text(argv: Sequence[str], env: dict[str, str]) -> str:
    """The exact command as a shell would take it."""
    return " ".join([*(f"{key}={shlex.quote(value)}" for key, value in env.items()), shlex.join(argv)])
