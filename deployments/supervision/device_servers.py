"""The servers behind devices: one for each stand-in, and one for each device this host offers to
other hosts."""

from __future__ import annotations

import zlib

from django.conf import settings
from django.db.models import Q, QuerySet

from deployments.engines.probe.portable_cpu import library_env
from deployments.instances import ports
from deployments.models import Instance
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import PORT, InstancePlan
from deployments.services.discovery import rpc_server_path
from deployments.supervision.decision import Desired
from deployments.supervision.namespaces import are_available
from gpus.host import engine_cores
from gpus.models import Device, Host
from omni.addresses import is_loopback
from omni.errors import OmniError
from omni.interfaces import own_ipv4

RPC_ROLE = "rpc"
# The generation of stand-ins in a network namespace; one that is found running outside of it is
# replaced.
APART = 2
# Two stand-ins and an engine share the cores of the machine they stand on.
RPC_THREADS = max(1, engine_cores() // 2)


def is_offered(device: Device) -> bool:
    return device.kind != Device.Kind.RPC and device.name in settings.OMNI_RPC_DEVICES


def server_address(device: Device) -> str:
    """A stand-in serves this machine alone."""
    if is_offered(device):
        return str(settings.OMNI_RPC_ADDRESS)
    return ports.LOOPBACK


def keeps_old_endpoint(device: Device) -> bool:
    """Its address is still written down, and nothing is offered there any more."""
    if device.kind == Device.Kind.RPC or device.name in settings.OMNI_RPC_DEVICES:
        return False
    return device.endpoint != ""


def devices_to_serve(host: Host) -> QuerySet[Device]:
    """Those that `keep_rows` may have something to do for."""
    is_served = Q(is_stand_in=True) | Q(name__in=settings.OMNI_RPC_DEVICES)
    has_endpoint = Q(endpoint__gt="") & ~Q(kind=Device.Kind.RPC)
    return host.devices.filter(is_served | has_endpoint)


def keep_rows(host: Host) -> None:
    """One instance for each device that is served; those of devices no longer offered go, and their
    process too."""
    devices = list(host.devices.select_related("instance"))
    for device in devices:
        is_served = device.is_stand_in or is_offered(device)
        has_instance = getattr(device, "instance", None) is not None
        if is_served and not has_instance:
            Instance.objects.create(host=host, device=device, role=RPC_ROLE)
        elif has_instance and not is_served:
            Instance.objects.filter(device=device).delete()
    unoffered = [device for device in devices if keeps_old_endpoint(device)]
    if unoffered:
        host.devices.filter(pk__in=[device.pk for device in unoffered]).update(
            endpoint=""
        )


def desired(device: Device) -> Desired:
    """Another address is another generation, so that a server that is found running at the old one
    is replaced.

    A link that is down takes its address along: a start waits until it is back.
    """
    if not is_offered(device):
        return Desired(
            running=device.is_present, generation=APART if are_available() else 1
        )
    address = server_address(device)
    there = is_loopback(address) or address in own_ipv4()
    missing = () if there else (f"the address {address} (OMNI_RPC_ADDRESS)",)
    return Desired(
        device.is_present, zlib.crc32(address.encode()) >> 1, blocked_by=missing
    )


def rpc_plan(device: Device) -> InstancePlan:
    """Raises OmniError (rpc_server_missing)."""
    binary = rpc_server_path()
    if binary is None:
        text = f"No ggml-rpc-server was found for the device {device.name}."
        raise OmniError(
            "rpc_server_missing", text, "Install an engine that has one, then scan."
        )
    address = server_address(device)
    argv = [str(binary), "-H", address, "-p", PORT, "-t", str(RPC_THREADS)]
    # RDMA in the RPC back end has had memory errors.
    env = {"GGML_RPC_NO_RDMA": "1", **library_env(str(binary))}
    if is_offered(device):
        name, card = own_name(device)
        argv += ["-d", name]
        env |= card
    launch = LaunchFacts(bind_address=address)
    return InstancePlan(RPC_ROLE, tuple(argv), env, launch=launch)


def own_name(device: Device) -> tuple[str, dict[str, str]]:
    """What the server's process calls the device, and the environment in which it does.

    A card is chosen by its UUID, since an index changes with the driver's order; alone it is the
    first.
    """
    if device.kind != Device.Kind.CUDA or device.gpu is None:
        return device.name, {}
    return "CUDA0", {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": device.gpu.uuid,
    }


def moved(device: Device, endpoint: str) -> None:
    """Writes down where a device is served now, on this host and where other hosts of this database
    use it."""
    before = (
        Device.objects.filter(pk=device.pk).values_list("endpoint", flat=True).first()
    )
    Device.objects.filter(pk=device.pk).update(endpoint=endpoint)
    if before and before != endpoint and is_offered(device):
        users = Device.objects.filter(
            kind=Device.Kind.RPC, is_stand_in=False, endpoint=before
        )
        users.exclude(host=device.host_id).update(endpoint=endpoint)
    device.endpoint = endpoint
