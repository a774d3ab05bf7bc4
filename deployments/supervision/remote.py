"""Devices of other hosts, as far as the database that they share with this one tells of them.

Nobody connects to their servers to look: each serves one engine at a time, and whoever else comes
waits in its queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.models import Deployment, Instance
from deployments.services.waiting import agent_is_running
from deployments.states import LIVE, InstanceState
from gpus.models import Device


def served_elsewhere(endpoint: str, host_pk: int) -> Instance | None:
    """The server behind an address, where its host keeps it in this database."""
    rows = Instance.objects.filter(
        device__endpoint=endpoint, deployment__isnull=True
    ).exclude(host=host_pk)
    return rows.select_related("host", "device").first()


def missing_elsewhere(names: Sequence[str], deployment: Deployment) -> tuple[str, ...]:
    """Devices of other hosts that are worth waiting for, each with the reason.

    A server whose host has gone is not waited for: the start fails and says what cannot be reached.
    """
    used = Device.objects.filter(
        host=deployment.host_id, name__in=names, kind=Device.Kind.RPC, is_stand_in=False
    )
    found = []
    for device in used:
        server = served_elsewhere(device.endpoint, deployment.host_id)
        if server and server.state != InstanceState.READY and _will_come(server):
            found.append(f"{device} (its server on {server.host} is {server.state})")
        elif user := _user(device, deployment):
            found.append(f"{device} (in use by {user.deployment} on {user.host})")
    return tuple(found)


def _will_come(server: Instance) -> bool:
    return server.state != InstanceState.FAILED and agent_is_running(server.host)


def _user(device: Device, deployment: Deployment) -> Instance | None:
    """Another deployment's engine, of any host, that holds the server."""
    others = Instance.objects.filter(
        deployment__isnull=False, state__in=LIVE, pid__isnull=False
    )
    for other in others.exclude(deployment=deployment).select_related(
        "deployment", "host"
    ):
        if device.endpoint in other.launch_facts.rpc_endpoints:
            return other
    return None
