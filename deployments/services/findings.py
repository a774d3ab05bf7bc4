"""Findings of this host with what they cost each deployment, and which of them are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from deployments.advice.engine_findings import EngineSeen, engine_findings
from deployments.advice.finding_costs import (
    Cost,
    Devices,
    as_it_is,
    costs,
    mended,
    unknown_costs,
)
from deployments.advice.library_findings import (
    DiskSeen,
    ModelSeen,
    disk_findings,
    memory_findings,
)
from deployments.engines.probe.cuda_code import cuda_code
from deployments.library.disk_speed import read_gbps
from deployments.models import Deployment, Engine, Model
from deployments.planning.corrections import Past
from deployments.planning.plan import DeviceFacts, Plan
from deployments.services.fitting import past_of
from deployments.services.plans import (
    Setup,
    holds_memory,
    plan_on,
    rig_facts,
    setup_of,
)
from gpus.card_rules import others_finding
from gpus.facts import (
    Seen,
    known_cards,
    known_findings,
    known_row,
    seen_lately,
    seen_now,
)
from gpus.findings import Finding, Held, by_severity
from gpus.models import Gpu, Host, KnownFinding
from omni.errors import OmniError
from omni.roles.rights import HIDE_FINDINGS, require

Document = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A finding, what it costs, and whether somebody knows of it."""

    finding: Finding
    costs: tuple[Cost, ...] = ()
    known: KnownFinding | None = None

    @property
    def is_known(self) -> bool:
        return self.known is not None

    def document(self) -> Document:
        finding = self.finding
        return {
            "code": finding.code,
            "severity": finding.severity,
            "title": finding.title,
            "text": finding.text,
            "fix": finding.fix,
            "cause": finding.cause,
            "subject": finding.subject,
            "known": self.is_known,
            "evidence": [
                {"name": each.name, "text": each.text} for each in finding.evidence
            ],
            "costs": [
                {
                    "deployment": cost.deployment,
                    "metric": cost.metric,
                    "change_percent": cost.change_percent,
                }
                for cost in self.costs
            ],
        }


def judged_now(host: Host) -> list[Judged]:
    """Everything is looked at now: it asks the driver."""
    return _judged(host, seen_now(host))


def judged_lately(host: Host) -> list[Judged]:
    """By what the sampler last saw."""
    return _judged(host, seen_lately(host))


def _judged(host: Host, seen: Seen) -> list[Judged]:
    findings = by_severity(
        [
            *seen.findings,
            *_of_others(host, seen),
            *_of_engines(host),
            *_of_library(host),
        ]
    )
    known = known_findings(host)
    held = [each for finding in findings for each in finding.held]
    planned = _planned(host) if held else []
    return [
        Judged(finding, _costs(finding.held, held, planned), known_row(finding, known))
        for finding in findings
    ]


def _of_others(host: Host, seen: Seen) -> list[Finding]:
    """Of programs on the cards that are none of this panel's."""
    own = host.instances.filter(pid__isnull=False).values_list("pid", flat=True)
    pids = frozenset(pid for pid in own if pid)
    found = (others_finding(card, pids) for card in seen.samples)
    return [finding for finding in found if finding]


def _of_engines(host: Host) -> list[Finding]:
    """Of engines that were built for other cards than those that are there."""
    rows = host.engines.filter(state=Engine.State.OK).exclude(flavour=Engine.EXTERNAL)
    here = host.gpus.filter(state=Gpu.State.OK).values_list("uuid", flat=True)
    cards = [card for card in known_cards(host) if card.uuid in set(here)]
    if not cards:
        return []
    return engine_findings(map(_engine_seen, rows), cards, host.driver_version)


def _engine_seen(row: Engine) -> EngineSeen:
    code = cuda_code(row.path)
    listed = tuple(str(device.get("name", "")) for device in row.devices)
    return EngineSeen(row.name, listed, code.machine, code.portable, code.runtime)


def _of_library(host: Host) -> list[Finding]:
    """Of models that are too large for all memory, or lie on a slow disk."""
    rows = Model.objects.filter(state=Model.State.OK).order_by("size_bytes")
    models = [
        (Path(row.path), ModelSeen(row.name, row.size_bytes))
        for row in rows.only("name", "path", "size_bytes")
        if not row.is_at_hub
    ]
    sizes = host.gpus.filter(state=Gpu.State.OK).values_list("memory_bytes", flat=True)
    # A card without memory of its own has been given the host's.
    own = sum(size for size in sizes if size and size != host.ram_bytes)
    found = memory_findings((seen for _, seen in models), host.ram_bytes, own)
    # The largest of each disk, for it comes last.
    largest = {device: each for each in models if (device := _disk(each[0]))}
    disks = [
        DiskSeen(str(path.parent), read_gbps(path), seen)
        for path, seen in largest.values()
    ]
    return found + disk_findings(disks)


def _disk(path: Path) -> int | None:
    try:
        return path.stat().st_dev if path.is_file() else None
    except OSError:
        return None


# --- costs ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Planned:
    """A deployment that runs or is planned, with the devices it would be planned on."""

    name: str
    devices: Devices
    planner: Callable[[Devices], Plan] = field(compare=False)


def _planned(host: Host) -> list[_Planned]:
    rows = host.deployments.filter(is_deleting=False, trial_of=None, external_model="")
    past = past_of(host)
    on_all = {live: rig_facts(host, live=live) for live in (True, False)}
    return [
        _Planned(row.name, on_all[not holds_memory(row)], _planner(row, past))
        for row in rows.select_related("host", "engine")
    ]


def _planner(row: Deployment, past: Past) -> Callable[[Devices], Plan]:
    setup = setup_of(row)

    @cache
    def planned(devices: tuple[DeviceFacts, ...]) -> Plan:
        return _plan(setup, {device.name: device for device in devices}, past)

    return lambda devices: planned(tuple(devices.values()))


def _plan(setup: Setup, devices: Mapping[str, DeviceFacts], past: Past) -> Plan:
    return plan_on(
        devices,
        name=setup.name,
        strategy=setup.strategy,
        engine=setup.engine,
        members=setup.members,
        settings=setup.settings,
        extra_args=setup.extra_args,
        past=past,
    )


def _costs(
    cured: Sequence[Held], held: Sequence[Held], planned: Sequence[_Planned]
) -> tuple[Cost, ...]:
    if not cured:
        return ()
    found: list[Cost] = []
    for each in planned:
        now = as_it_is(each.devices, held)
        better = mended(each.devices, held, cured)
        try:
            found += costs(each.name, each.planner, now, better)
        except OmniError as error:
            reason = error.text
            found += unknown_costs(each.name, reason)
    return tuple(found)


# --- known ----------------------------------------------------------------------------------------
def finding_hide(
    *, host: Host, code: str, subject: str, fingerprint: str, user: Any
) -> None:
    """Not shown any more until its fingerprint is another. Raises OmniError (forbidden)."""
    require(user, HIDE_FINDINGS)
    KnownFinding.objects.update_or_create(
        host=host,
        code=code,
        subject=subject,
        defaults={"fingerprint": fingerprint, "known_by": user},
    )


def finding_show(*, host: Host, code: str, subject: str, user: Any) -> None:
    """Shown again. Raises OmniError (forbidden)."""
    require(user, HIDE_FINDINGS)
    host.known_findings.filter(code=code, subject=subject).delete()
