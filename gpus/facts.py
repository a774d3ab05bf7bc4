"""Collects what the doctor looks at."""

from __future__ import annotations

import json
import time
from typing import Any

from django.conf import settings

from gpus import visible
from gpus.doctor import (
    SEVERITIES,
    Finding,
    absent_findings,
    agent_findings,
    card_findings,
    host_findings,
    offer_findings,
    unusable_findings,
)
from gpus.host import host_facts
from gpus.models import Device, Gpu, Host
from gpus.nvml import look
from gpus.recent import last_frame
from gpus.sample import CardIdentity, CardSample, NvmlState, named, read_card


def diagnose(host: Host) -> list[Finding]:
    """Every finding of this host and its cards, asked of the driver now."""
    report = look()
    known = known_cards(host)
    seen = {identity.uuid for identity in report.identities}
    identities = named(
        report.identities, [card for card in known if card.uuid not in seen]
    )
    findings = agent_findings(host.problems) + host_findings(
        host_facts(settings.OMNI_HOME.root, report.state)
    )
    for identity, sample in zip(identities, report.samples, strict=True):
        findings += card_findings(
            CardSample(**{**vars(sample), "name": identity.shown_name})
        )
    findings += _offer_findings(host) + _unusable_findings(host)
    return findings + absent_findings(known, (identity.uuid for identity in identities))


def latest_findings(host: Host) -> list[Finding]:
    """The same from what the sampler last saw: nobody waits for a driver while a page is made."""
    nvml = NvmlState(
        host.nvml_state, host.nvml_text, host.driver_version, host.nvml_fix
    )
    findings = agent_findings(host.problems) + host_findings(
        host_facts(settings.OMNI_HOME.root, nvml)
    )
    for sample in latest_samples(host.name):
        # What is normal for a busy card stands on the card itself.
        findings += [
            finding for finding in card_findings(sample) if finding.severity != "info"
        ]
    here = host.gpus.exclude(state=Gpu.State.ABSENT).values_list("uuid", flat=True)
    findings += absent_findings(known_cards(host), here) + _unusable_findings(host)
    # What is quiet about devices across hosts stands with them.
    findings += [
        finding for finding in _offer_findings(host) if finding.severity != "info"
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _unusable_findings(host: Host) -> list[Finding]:
    here = set(host.gpus.filter(state=Gpu.State.OK).values_list("uuid", flat=True))
    listed = host.devices.filter(is_present=True, gpu__isnull=False).values_list(
        "gpu__uuid", flat=True
    )
    return unusable_findings(
        [card for card in known_cards(host) if card.uuid in here],
        set(listed),
        visible.wanted(),
    )


def _offer_findings(host: Host) -> list[Finding]:
    own = (
        host.devices.filter(is_present=True)
        .exclude(kind=Device.Kind.RPC)
        .values_list("name", flat=True)
    )
    used = host.devices.filter(kind=Device.Kind.RPC, is_stand_in=False).values_list(
        "endpoint", flat=True
    )
    return offer_findings(
        settings.OMNI_RPC_ADDRESS, settings.OMNI_RPC_DEVICES, list(own), list(used)
    )


def latest_sample(host_name: str, key: str) -> CardSample | None:
    """Of one card; None when nothing was measured for a while."""
    frame: dict[str, Any] = json.loads(last_frame(host_name) or "null") or {}
    if time.time() * 1000 - frame.get("at", 0) > FRESH_MS:
        return None
    cards = (read_card(card) for card in frame["cards"] if card["key"] == key)
    return next(cards, None)


def latest_samples(host_name: str) -> list[CardSample]:
    """Of the last frame; empty when there is none, or one without cards."""
    frame: dict[str, Any] = json.loads(last_frame(host_name) or "null") or {}
    return [read_card(card) for card in frame.get("cards", ())]


# An older frame comes from a sampler that has stopped.
FRESH_MS = 30_000


def memory_in_use(host_name: str) -> dict[str, int]:
    """Bytes in use now by card key, the host's RAM under 'host'; what is not known is left out."""
    frame: dict[str, Any] = json.loads(last_frame(host_name) or "null") or {}
    if time.time() * 1000 - frame.get("at", 0) > FRESH_MS:
        return {}
    used = {card["key"]: card.get("memory_used_bytes") for card in frame["cards"]}
    used["host"] = frame["host"].get("ram_used_bytes")
    return {key: int(value) for key, value in used.items() if value is not None}


def known_cards(host: Host) -> list[CardIdentity]:
    return [
        CardIdentity(
            index=gpu.index,
            uuid=gpu.uuid,
            name=gpu.name,
            pci_bus_id=gpu.pci_bus_id,
            memory_total_bytes=gpu.memory_bytes,
            compute_capability=gpu.compute_capability,
            pcie_generation_max=gpu.pcie_generation_max,
            pcie_width_max=gpu.pcie_width_max,
            memory_bandwidth_gbps=gpu.memory_bandwidth_gbps,
            tflops=gpu.tflops,
            power_limit_watts=gpu.power_limit_watts,
        )
        for gpu in host.gpus.order_by("index")
    ]
