"""Turns a planned instance into a running process: checks first, then the port, then the start."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import yaml
from django.conf import settings
from django.db import IntegrityError, transaction

from deployments.formats.gguf import read_header
from deployments.formats.model_folder import read_folder
from deployments.instances import ports, slots_folder
from deployments.instances.connecting import own_key_path, socket_path
from deployments.instances.model_files import file_stamp
from deployments.models import Instance
from deployments.planning.launch_facts import LaunchFacts, read_launch_facts
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PORT,
    SOCKET,
    Filling,
    InstancePlan,
    filled,
    filled_argv,
)
from deployments.supervision import device_servers, process
from deployments.supervision.instance_lock import held_for_start, write_private
from deployments.supervision.namespaces import are_available
from deployments.supervision.refusals import refusals
from gpus.models import Device
from omni.errors import OmniError


def log_path(instance: Instance) -> Path:
    if instance.deployment:
        owner = instance.deployment.name
    else:
        owner = f"device-{instance.device}"
    folder = settings.OMNI_HOME.logs / "instances"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{owner}-{instance.role}-{instance.ordinal}.log"


def check(plan: InstancePlan) -> None:
    """What would fail for sure is said before the start. Raises OmniError."""
    if not os.access(plan.program, os.X_OK):
        text = f"The engine's program {plan.program} is gone or cannot be executed."
        raise OmniError(
            "engine_missing", text, "Install it again, or choose another engine."
        )
    for path in filter(None, (plan.launch.model_path, plan.launch.draft_path)):
        if plan.launch.is_folder:
            read_folder(path)
        else:
            read_header(path)
    if plan.launch.slots_folder:
        slots_folder.make(Path(plan.launch.slots_folder))


def tidy(launch: LaunchFacts, socket: str = "") -> None:
    """Removes what an instance that was started so, stopped by now, may have left: KV caches and
    its socket."""
    if socket and Path(socket).parent == settings.OMNI_HOME.sockets:
        Path(socket).unlink(missing_ok=True)
    folder = Path(launch.slots_folder)
    if launch.slots_folder and folder.parent == settings.OMNI_HOME.slots:
        slots_folder.remove(folder)


def start(
    instance: Instance, plan: InstancePlan, generation: int, taken: Sequence[int]
) -> process.Record:
    """Records a free port, then starts the process.

    Raises OmniError; with already_running neither the row nor a file was touched.
    """
    check(plan)
    with held_for_start(settings.OMNI_HOME.run, instance.pk) as lock:
        return _start(instance, plan, generation, taken, lock)


def _start(
    instance: Instance,
    plan: InstancePlan,
    generation: int,
    taken: Sequence[int],
    lock: int,
) -> process.Record:
    at = _endpoint(instance, plan, taken)
    key = secrets.token_urlsafe(32)
    path_of_key = own_key_path(instance.pk)
    # With the key's placeholder: what is kept and shown of an instance does not tell it.
    places: Filling = {
        SOCKET: at.socket,
        PORT: at.port or 0,
        KEY_FILE: str(path_of_key),
        KEY: KEY,
    }
    argv = filled_argv(plan.argv, places)
    instance.argv, instance.env = argv, filled(plan.env, places)
    instance.launch = filled(plan.launch.document(), places)
    launch = read_launch_facts(instance.launch)
    instance.file_stamp = file_stamp(launch)
    path = log_path(instance)
    instance.log_path = str(path)
    filling: Filling = {**places, KEY: key}
    with refusals():
        write_private(path_of_key, key)
        folder = _write_files(instance, plan, filling)
    return process.spawn(
        settings.OMNI_HOME.run,
        instance=instance.pk,
        lock=lock,
        generation=generation,
        at=at,
        argv=argv,
        env=filled(plan.env, filling),
        log_path=path,
        launch=launch,
        folder=folder,
        hidden=[key],
        is_apart=is_apart(instance, plan),
    )


def is_apart(instance: Instance, plan: InstancePlan) -> bool:
    """Whether it runs in the network namespace of the stand-ins: they do, and so do those that use
    them.

    Raises OmniError (engine_needs_sockets) for an engine that nobody outside would reach in it.
    """
    if instance.device:
        return instance.device.is_stand_in and are_available()
    stand_ins = Device.objects.filter(
        host=instance.host_id, name__in=plan.needs_devices, is_stand_in=True
    )
    if not (are_available() and stand_ins.exists()):
        return False
    if SOCKET not in plan.placeholders:
        text = (
            "Stand-ins are out of reach of everything but their engine, and this build listens on"
            " ports alone."
        )
        raise OmniError(
            "engine_needs_sockets",
            text,
            "Use a newer build of llama.cpp, or the CPU as the device.",
        )
    return True


def _endpoint(
    instance: Instance, plan: InstancePlan, taken: Sequence[int]
) -> process.Endpoint:
    """Where it listens: on its own Unix socket, or on a port reserved for it."""
    if SOCKET not in plan.placeholders:
        port = _reserve_port(instance, taken)
        instance.socket = ""
        return process.Endpoint(port=port)
    path = socket_path(
        instance.deployment.name if instance.deployment else "",
        instance.role,
        instance.ordinal,
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # Of the process before: a socket's file stays when who listened has gone.
    path.unlink(missing_ok=True)
    instance.port, instance.socket = None, str(path)
    return process.Endpoint(socket=str(path))


def _write_files(
    instance: Instance, plan: InstancePlan, filling: Filling
) -> Path | None:
    """The folder the process starts in, with its files, made at each start; None where there
    are none."""
    if not plan.files:
        return None
    folder = process.files_folder(settings.OMNI_HOME.run, instance.pk)
    for name, data in plan.files.items():
        write_private(
            folder / name, yaml.safe_dump(filled(data, filling), sort_keys=False)
        )
    return folder


def _reserve_port(instance: Instance, taken: Sequence[int]) -> int:
    """Keeps the port it had when that is free; a device that is served keeps its endpoint if it
    can."""
    if instance.device:
        address = device_servers.server_address(instance.device)
    else:
        address = ports.LOOPBACK
    wanted = instance.port or (
        _endpoint_port(instance.device) if instance.device else None
    )
    first, last = settings.OMNI_ENGINE_PORTS
    others = set(taken) - {instance.port}
    for _ in range(20):
        if wanted and wanted not in others and ports.is_free(wanted, address):
            port = wanted
        else:
            port = None
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
    raise OmniError(
        "ports_exhausted", "No port could be reserved.", "Widen OMNI_ENGINE_PORTS."
    )


def _endpoint_port(device: Device) -> int | None:
    port = device.endpoint.rpartition(":")[2]
    if port.isdigit():
        return int(port)
    return None
