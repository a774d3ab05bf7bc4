"""Collects what the doctor looks at."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from gpus import pci, visible
from gpus.card_rules import card_findings
from gpus.doctor import (
    absent_findings,
    agent_findings,
    host_findings,
    offer_findings,
    unusable_findings,
)
from gpus.findings import Finding, by_severity
from gpus.host import host_facts
from gpus.link_history import last_under_load
from gpus.models import Device, Gpu, Host, KnownFinding
from gpus.nvml import look
from gpus.recent import last_frame
from gpus.sample import (
    CardIdentity,
    CardSample,
    NvmlState,
    named,
    read_card,
    told_apart,
    with_xid,
)
from gpus.slot_rules import Places, slot_findings


@dataclass(frozen=True)
class Seen:
    """One look at a host: what was found, and the cards as they were."""

    findings: tuple[Finding, ...]
    samples: tuple[CardSample, ...]


def latest_findings(host: Host) -> list[Finding]:
    """By what the sampler last saw."""
    return list(seen_lately(host).findings)


def seen_now(host: Host) -> Seen:
    """Everything of this host and its cards, asked of the driver now."""
    report = look()
    known = known_cards(host)
    seen = {identity.uuid for identity in report.identities}
    missing = [card for card in known if card.uuid not in seen]
    identities = told_apart(named(report.identities, missing))
    # What drivers reported before is known to who waits for it.
    lately = {sample.key: sample for sample in latest_samples(host.name)}
    samples = [
        replace(
            with_xid(sample, lately.get(sample.key)),
            name=identity.shown_name,
            model=identity.model,
        )
        for identity, sample in zip(identities, report.samples, strict=True)
    ]
    here = [identity.uuid for identity in identities]
    return _seen(host, report.state, samples, here)


def seen_lately(host: Host) -> Seen:
    """The same from what the sampler last saw: nobody waits for a driver while a page is made."""
    nvml = NvmlState(
        host.nvml_state, host.nvml_text, host.driver_version, host.nvml_fix
    )
    here = host.gpus.exclude(state=Gpu.State.ABSENT).values_list("uuid", flat=True)
    return _seen(host, nvml, latest_samples(host.name), list(here))


def places(host: Host, driver_version: str, here: Collection[str]) -> Places:
    """Where the cards are that are there."""
    cards = tuple(card for card in known_cards(host) if card.uuid in here)
    return Places(cards, pci.tree(), driver_version, pci.kernel_modules())


def unhidden(host: Host, findings: Sequence[Finding]) -> list[Finding]:
    """Those that nobody knows of as they are now."""
    known = known_findings(host)
    return [each for each in findings if not known_row(each, known)]


def known_findings(host: Host) -> dict[tuple[str, str], KnownFinding]:
    """By code and subject."""
    rows = host.known_findings.select_related("known_by")
    return {(row.code, row.subject): row for row in rows}


def known_row(
    finding: Finding, known: Mapping[tuple[str, str], KnownFinding]
) -> KnownFinding | None:
    """Of a finding that is as it was when somebody said that it is known."""
    row = known.get((finding.code, finding.subject))
    return row if row and row.fingerprint == finding.fingerprint else None


def _seen(
    host: Host, nvml: NvmlState, samples: Sequence[CardSample], here: Sequence[str]
) -> Seen:
    findings = agent_findings(host.problems)
    findings += host_findings(host_facts(settings.OMNI_HOME.root, nvml))
    for sample in samples:
        findings += card_findings(sample, last_under_load(host, sample.key))
    known = known_cards(host)
    findings += slot_findings(places(host, nvml.driver_version, here))
    findings += absent_findings(known, here)
    findings += _unusable_findings(host) + _offer_findings(host)
    return Seen(tuple(by_severity(findings)), tuple(samples))


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
    """All that were ever seen there, by their number."""
    cards = [
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
    return told_apart(cards)
