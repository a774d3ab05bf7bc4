"""CPU-backed stand-ins: RPC servers of this machine that take the place of GPUs, where somebody
asked for them."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import transaction

from deployments.models import Binding
from gpus.discovery import keep_stand_ins, stand_ins_wanted
from gpus.models import Device, Gpu, Host
from omni.errors import OmniError
from omni.roles.rights import ADD_DEVICES, require

log = logging.getLogger(__name__)

# Two are what it takes to try every strategy.
USUAL_COUNT = 2


def has_gpu(host: Host) -> bool:
    """A card of NVML's, or one that only an engine knows."""
    others = host.devices.filter(is_present=True).exclude(
        kind__in=(Device.Kind.CPU, Device.Kind.RPC)
    )
    return host.gpus.exclude(state=Gpu.State.ABSENT).exists() or others.exists()


def stand_ins_on(*, host: Host, user: Any = None) -> None:
    """Switches two of them on; the agent starts their servers. Raises OmniError (has_gpu)."""
    require(user, ADD_DEVICES)
    if has_gpu(host):
        raise OmniError(
            "has_gpu",
            "Stand-ins take the place of GPUs, and this host has one.",
            "Use the GPU.",
        )
    _keep(host, USUAL_COUNT)
    log.info("%s switched stand-ins on", user or "somebody")


def stand_ins_off(*, host: Host, user: Any = None) -> None:
    """Switches them off; the agent ends their servers.

    Raises OmniError (in_use, set_by_environment).
    """
    require(user, ADD_DEVICES)
    if settings.OMNI_STAND_IN_DEVICES:
        text = (
            f"OMNI_STAND_IN_DEVICES={settings.OMNI_STAND_IN_DEVICES} switches them on."
        )
        raise OmniError("set_by_environment", text, "Start Omni without it.")
    users = _users(host)
    if users:
        text = f"The stand-ins are used by {', '.join(users)}."
        raise OmniError("in_use", text, "Give them other devices or delete them first.")
    _keep(host, 0)
    log.info("%s switched stand-ins off", user or "somebody")


def _keep(host: Host, count: int) -> None:
    with transaction.atomic():
        Host.objects.filter(pk=host.pk).update(stand_ins=count)
        keep_stand_ins(host, stand_ins_wanted(host), host.ram_bytes)


def _users(host: Host) -> list[str]:
    names = set(host.devices.filter(is_stand_in=True).values_list("name", flat=True))
    bindings = Binding.objects.filter(deployment__host=host).select_related(
        "deployment"
    )
    return sorted({b.deployment.name for b in bindings if names & set(b.devices)})


def present(host: Host) -> list[Device]:
    return list(host.devices.filter(is_stand_in=True, is_present=True))
