"""What the agent reads off an instance's row and off its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.utils import timezone

from deployments.engines import FLAVOURS
from deployments.models import Deployment, Engine, Instance
from deployments.planning.launch_facts import LaunchFacts
from deployments.states import InstanceState
from deployments.supervision.decision import Memory, Observed
from deployments.supervision.process import Record


def remembered(instance: Instance, now_s: float) -> Memory:
    """What an agent that starts takes over from the one before it."""
    state = InstanceState(instance.state)
    if instance.device_id and state == InstanceState.FAILED:
        state = InstanceState.STOPPED
    return Memory(
        state=state,
        generation=instance.generation,
        failures=instance.failures,
        restarts=instance.restarts,
        since_s=now_s,
        answered_s=now_s,
        ready_s=now_s
        if state in (InstanceState.READY, InstanceState.UNHEALTHY)
        else None,
        next_start_s=now_s,
    )


def ran_here(instance: Instance) -> None:
    """Its engine has run a model on this machine: from now on it counts as verified."""
    if instance.deployment:
        Engine.objects.filter(pk=instance.deployment.engine_id, ran_at=None).update(
            ran_at=timezone.now()
        )


_WATCHED = (
    "state",
    "generation",
    "restarts",
    "failures",
    "port",
    "socket",
    "pid",
    "exit_code",
    "error_code",
    "error",
    "log_line",
    "warning",
    "drains_until",
)


def values(instance: Instance) -> dict[str, object]:
    """What is worth a write, and a message to the pages, when it changes."""
    return {name: getattr(instance, name) for name in _WATCHED}


def servers_of(launch: LaunchFacts, instances: Sequence[Instance]) -> list[Instance]:
    """The device servers that an engine was told to use."""
    return [
        i for i in instances if i.device and i.device.endpoint in launch.rpc_endpoints
    ]


def busy_devices(
    wanted: Sequence[str],
    deployment: Deployment,
    instances: Sequence[Instance],
    seen: Mapping[int, Observed],
    records: Mapping[int, Record | None],
) -> tuple[str, ...]:
    """RPC devices that another deployment's engine holds: their server serves one engine at a time
    and lets a second one wait for ever."""
    busy = []
    addresses = {
        i.device.endpoint: i.device.name
        for i in instances
        if i.device and i.device.name in wanted
    }
    for other in instances:
        record = records[other.pk]
        if (
            other.deployment is None
            or other.deployment_id == deployment.pk
            or not record
            or not seen[other.pk].is_alive
        ):
            continue
        busy += [
            f"{addresses[at]} (in use by {other.deployment.name})"
            for at in record.launch.rpc_endpoints
            if at in addresses
        ]
    return tuple(busy)


def slow_load_s(launch: LaunchFacts) -> float:
    """What an engine may take to get ready besides reading its file."""
    flavour = FLAVOURS.get(launch.flavour)
    if flavour:
        return flavour.slow_load_s
    return 0.0


def is_newer(server: Record | None, user: Record | None) -> bool:
    return bool(
        server and user and server.ticks and user.ticks and server.ticks > user.ticks
    )
