"""Devices across hosts and stand-ins: parts of the Rig page, and adding and removing them; a device
server's log."""

from __future__ import annotations

import getpass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET, require_POST

from deployments.models import Instance
from deployments.services import remote_devices
from deployments.services import stand_ins as cpu_stand_ins
from deployments.services.discovery import local_host
from deployments.states import InstanceState
from deployments.supervision.namespaces import are_available
from gpus.card_facts import memory_shares, owned_processes
from gpus.facts import latest_sample
from gpus.models import Device
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, go_to, is_htmx


@require_GET
def across(request: HtmxHttpRequest) -> HttpResponse:
    """The lists alone fetch themselves again: what is being typed beside them stays."""
    part = "_across_lists" if request.GET.get("part") == "lists" else "_across"
    return render(request, f"deployments/{part}.html", _context())


def _context(**typed: Any) -> dict[str, Any]:
    host = local_host()
    served = list(remote_devices.served_here(host))
    offered = list(remote_devices.offered(host))
    return {
        "served": served,
        "added": remote_devices.added(host),
        "offered": offered,
        "in_transit": any(
            device.instance.state != InstanceState.READY
            for device in (*served, *offered)
        ),
        "rpc_address": settings.OMNI_RPC_ADDRESS,
        "rpc_devices": settings.OMNI_RPC_DEVICES,
    } | typed


@require_POST
def add(request: HtmxHttpRequest) -> HttpResponse:
    typed = request.POST.get("endpoint", "").strip()[:80]
    try:
        device = remote_devices.device_add(
            host=local_host(), endpoint=typed, user=request.user
        )
    except OmniError as error:
        if not is_htmx(request):
            raise
        return render(
            request, "deployments/_across.html", _context(typed=typed, error=error)
        )
    return _done(request, f"{device.name} is {device.description}.")


@require_POST
def remove(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    device = get_object_or_404(remote_devices.added(local_host()), pk=pk)
    remote_devices.device_remove(device=device, user=request.user)
    return _done(request, f"{device.name} at {device.endpoint} is removed.")


def _done(request: HtmxHttpRequest, text: str) -> HttpResponse:
    """The whole page again: the device has a card, and charts, of its own."""
    messages.success(request, text)
    return go_to(request, "gpus:rig")


# --- stand-ins ------------------------------------------------------------------------------------
@require_GET
def stand_ins(request: HtmxHttpRequest) -> HttpResponse:
    """What they are and who can reach them, with the button; nothing where there is a GPU."""
    host = local_host()
    if cpu_stand_ins.has_gpu(host):
        return HttpResponse("")
    context = {
        "devices": cpu_stand_ins.present(host),
        "is_apart": are_available(),
        "by_environment": bool(settings.OMNI_STAND_IN_DEVICES),
        "user_name": getpass.getuser(),
    }
    return render(request, "deployments/_stand_ins.html", context)


@require_POST
def stand_ins_switch(request: HtmxHttpRequest) -> HttpResponse:
    host = local_host()
    on = request.POST.get("on")
    if on == "1":
        cpu_stand_ins.stand_ins_on(host=host, user=request.user)
        return _done(
            request, "Two stand-ins are added; their servers start within seconds."
        )
    cpu_stand_ins.stand_ins_off(host=host, user=request.user)
    return _done(request, "The stand-ins are removed.")


@require_GET
def card_processes(request: HtmxHttpRequest, key: str) -> HttpResponse:
    """Who uses a card now: the engines of deployments, and others by name. A part of its page."""
    host = local_host()
    sample = latest_sample(host.name, key)
    instances = Instance.objects.filter(host=host, pid__isnull=False)
    owners = [
        (instance.pid or 0, instance)
        for instance in instances.select_related("deployment", "device")
    ]
    if sample is None:
        nothing = "Nothing is measured now."
    elif sample.processes is None:
        nothing = f"N/A: {sample.unanswered.get('processes', 'not reported')}."
    else:
        nothing = "No process uses this card."
    rows = owned_processes(sample, owners) if sample else []
    shares = memory_shares(sample, rows) if sample else ()
    context = {"key": key, "rows": rows, "nothing": nothing, "shares": shares}
    return render(request, "deployments/_card_processes.html", context)


@require_GET
def server(request: HtmxHttpRequest, name: str) -> HttpResponse:
    """What runs behind a device that this host serves, with its log."""
    device = get_object_or_404(Device, host=local_host(), name=name)
    instance = get_object_or_404(Instance, device=device)
    context = {
        "device": device,
        "instance": instance,
        "history": instance.transitions.all()[:30],
    }
    return render(request, "deployments/device_server.html", context)
