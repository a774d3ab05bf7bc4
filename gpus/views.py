"""The rig, and one card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from gpus.card_facts import card_facts
from gpus.cards import DataSheet, data_sheet
from gpus.facts import known_cards, latest_findings, latest_sample, unhidden
from gpus.history_shown import history_context
from gpus.links import link_gbps
from gpus.models import Device, Gpu, Host
from gpus.recent import want_links
from gpus.telemetry import telemetry
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, wants_part

FINDINGS = "gpus/_findings.html"


def _host() -> Host:
    return Host.objects.get_or_create(name=settings.OMNI_HOST_NAME)[0]


@dataclass(frozen=True)
class ShownCard:
    """A card of the page: a GPU, or a device that is no card of NVML's.

    `names` are the engines' for it.
    """

    key: str
    name: str
    names: tuple[str, ...]
    gpu: Gpu | None = None
    device: Device | None = None

    @property
    def memory_bytes(self) -> int | None:
        if self.gpu:
            return self.gpu.memory_bytes
        if self.device:
            return self.device.memory_bytes
        return None

    @property
    def label(self) -> str:
        """What charts call it: short where engines have a name for it."""
        if self.gpu and self.names:
            return f"{self.names[0]} {_short(self.gpu.name)}"
        return _short(self.name)

    @property
    def is_stand_in(self) -> bool:
        return bool(self.device and self.device.is_stand_in)

    @property
    def best_link_gbps(self) -> float | None:
        if self.gpu:
            return link_gbps(self.gpu.pcie_generation_max, self.gpu.pcie_width_max)
        return None

    @property
    def sheet(self) -> DataSheet | None:
        """What its maker says of it."""
        if self.device:
            return data_sheet(self.device.description, self.memory_bytes)
        name = self.gpu.name if self.gpu else self.name
        return data_sheet(name, self.memory_bytes)


def _short(name: str) -> str:
    return name.removeprefix("NVIDIA ").removesuffix(" Workstation Edition")


def _cards(host: Host) -> list[ShownCard]:
    """GPUs in the order of their slots, then the devices that only an engine knows, then
    stand-ins."""
    devices = [
        device for device in host.devices.select_related("gpu") if device.is_present
    ]
    names = {card.uuid: card.shown_name for card in known_cards(host)}
    cards = [
        ShownCard(
            gpu.uuid,
            names.get(gpu.uuid, gpu.name),
            tuple(d.name for d in devices if d.gpu_id == gpu.pk),
            gpu=gpu,
        )
        for gpu in host.gpus.exclude(state=Gpu.State.ABSENT)
    ]
    others = [
        device
        for device in devices
        if device.gpu_id is None and device.kind != Device.Kind.CPU
    ]
    return cards + [
        ShownCard(device.name, device.name, (device.name,), device=device)
        for device in others
    ]


@require_GET
def rig(request: HtmxHttpRequest) -> HttpResponse:
    host = _host()
    cards = _cards(host)
    devices = _names_of(cards)
    # The script takes the devices out of the whole page: when a card comes or goes, which frames
    # tell it, and when engines call them something else.
    if wants_part(request) and request.htmx.target != "cards":
        part = render(request, FINDINGS, _rig_findings(host))
        part["HX-Trigger"] = json.dumps({"devices": devices})
        return part
    has_gpu = any(
        card.gpu or (card.device and card.device.kind != Device.Kind.RPC)
        for card in cards
    )
    context = {
        "host": host,
        "cards": cards,
        "devices": devices,
        "has_gpu": has_gpu,
        **_rig_findings(host),
    }
    return render(request, "gpus/rig.html", context)


def _names_of(cards: Sequence[ShownCard]) -> str:
    """Changes when engines call a card by another name."""
    return " ".join(f"{card.key}={','.join(card.names)}" for card in cards)


def _rig_findings(host: Host) -> dict[str, Any]:
    """What is quiet stands on the doctor's page and on the cards themselves."""
    findings = [
        finding
        for finding in unhidden(host, latest_findings(host))
        if finding.severity != "info" or finding.code.startswith("nvml_")
    ]
    return {"findings": findings, "telemetry": telemetry(host)}


@require_GET
def card(request: HtmxHttpRequest, key: str) -> HttpResponse:
    host = _host()
    found = _card(host, key)
    if found is None:
        raise OmniError(
            "not_found", f"There is no card {key}.", "The rig page lists the cards."
        )
    if wants_part(request) and request.htmx.target == "findings":
        return render(request, FINDINGS, _card_findings(host, key))
    if wants_part(request) and request.htmx.target == "card-facts":
        return render(request, "gpus/_card_facts.html", {"host": host, "card": found})
    if wants_part(request):
        return render(request, "gpus/_card_now.html", _now(host, found))
    context = {
        "host": host,
        **_card_findings(host, key),
        **_now(host, found),
        **history_context(host, key),
    }
    return render(request, "gpus/card.html", context)


def _card(host: Host, key: str) -> ShownCard | None:
    """Also one that was taken out: what it did is kept."""
    here = next((card for card in _cards(host) if card.key == key), None)
    gone = None if here else host.gpus.filter(uuid=key).first()
    return ShownCard(gone.uuid, gone.name, (), gpu=gone) if gone else here


def _card_findings(host: Host, key: str) -> dict[str, Any]:
    findings = [each for each in latest_findings(host) if each.subject == key]
    return {"findings": unhidden(host, findings), "telemetry": telemetry(host)}


def _now(host: Host, card: ShownCard) -> dict[str, Any]:
    """What the part of the page that fetches itself again shows."""
    sample = None
    if card.gpu:
        want_links(host.name)
        sample = latest_sample(host.name, card.key)
    return {"card": card, "groups": card_facts(sample), "sample": sample}
