"""Devices of other hosts: those that are offered to this one, and those that were added to it."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from django.db import IntegrityError
from django.db.models import QuerySet

from deployments.engines.probe.binary import remote_device
from deployments.models import Binding
from deployments.services.defaults import default_engine
from gpus.models import Device, Host
from omni.addresses import parse_endpoint
from omni.errors import OmniError
from omni.roles.rights import ADD_DEVICES, REMOVE_DEVICES, require

log = logging.getLogger(__name__)
# After the stand-ins, before the CPU.
POSITION = 200

# What probing says of a port rather than of a device.
ABOUT_THE_PORT = frozenset(
    {"device_unreachable", "device_silent", "device_not_understood"}
)


def added(host: Host) -> QuerySet[Device]:
    return host.devices.filter(kind=Device.Kind.RPC, is_stand_in=False)


def served_here(host: Host) -> QuerySet[Device]:
    """This host's own devices that its agent serves to others, with their servers."""
    return _served(Device.objects.filter(host=host))


def offered(host: Host) -> QuerySet[Device]:
    """What the other hosts of this database offer and this one has not added."""
    taken = added(host).values_list("endpoint", flat=True)
    return _served(Device.objects.exclude(host=host)).exclude(endpoint__in=taken)


def _served(devices: QuerySet[Device]) -> QuerySet[Device]:
    rows = (
        devices.exclude(kind=Device.Kind.RPC)
        .filter(instance__isnull=False)
        .exclude(endpoint="")
    )
    return rows.select_related("host", "instance").order_by(
        "host__name", "position", "name"
    )


def device_add(*, host: Host, endpoint: str, user: Any = None) -> Device:
    """Makes a device of another host one of this host's, after asking for it once.

    Raises OmniError (bad_endpoint, device_known, no_engine, device_unreachable, device_version,
    device_count).
    """
    require(user, ADD_DEVICES)
    address, port = parse_endpoint(endpoint)
    endpoint = f"{address}:{port}"
    known = host.devices.filter(endpoint=endpoint).first()
    if known:
        if known.kind != Device.Kind.RPC:
            said = "is served by this host itself"
        else:
            said = f"is {known.name} already"
        raise OmniError(
            "device_known",
            f"{endpoint} {said}.",
            "Give the address of another host's device.",
        )
    try:
        listed = remote_device(default_engine(host), endpoint)
    except OmniError as error:
        raise (
            _nothing_there(endpoint) if error.code in ABOUT_THE_PORT else error
        ) from None
    source = (
        _served(Device.objects.exclude(host=host)).filter(endpoint=endpoint).first()
    )
    if source:
        what = f"{source.name} on host {source.host.name}"
    else:
        what = f"RPC device on host {address}"
    if source and source.description:
        what = f"{what}: {source.description}"
    try:
        device = Device.objects.create(
            host=host,
            name=_free_name(host),
            kind=Device.Kind.RPC,
            endpoint=endpoint,
            description=what[:200],
            memory_bytes=listed.total_bytes,
            position=POSITION,
        )
    except IntegrityError:
        raise OmniError(
            "device_known", f"{endpoint} was added just now.", "Look at the list again."
        ) from None
    log.info("%s added the device %s at %s", user or "somebody", device.name, endpoint)
    return device


def _nothing_there(endpoint: str) -> OmniError:
    """One answer for a port that is closed, silent or another program's: nobody finds out by it
    what a network has."""
    text = f"No server can be reached at {endpoint} that an engine of this host understands."
    fix = (
        "Is ggml-rpc-server started on that address, free, of the same build, and with no firewall"
        " between?"
    )
    return OmniError("device_unreachable", text, fix, retry=True)


def device_remove(*, device: Device, user: Any = None) -> None:
    """Raises OmniError (in_use) that names the deployments."""
    require(user, REMOVE_DEVICES)
    bindings = Binding.objects.filter(deployment__host=device.host_id).select_related(
        "deployment"
    )
    users = sorted({b.deployment.name for b in bindings if device.name in b.devices})
    if users:
        text = f"The device {device.name} is used by {', '.join(users)}."
        raise OmniError("in_use", text, "Give them other devices or delete them first.")
    log.info(
        "%s removed the device %s at %s",
        user or "somebody",
        device.name,
        device.endpoint,
    )
    device.delete()


def _free_name(host: Host) -> str:
    """Names of devices that are absent now are not given again: deployments may still mean them."""
    taken = set(host.devices.values_list("name", flat=True))
    return next(name for n in itertools.count() if (name := f"RPC{n}") not in taken)
