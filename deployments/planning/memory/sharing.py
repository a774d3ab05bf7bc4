"""Which deployments are in the way of another: of the same exclusive group, or on memory that it
needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from omni.units import bytes_text


@dataclass(frozen=True)
class Tenant:
    """A deployment by what it takes: `needs` in bytes by device name; `group` is empty where it
    runs beside any.

    `alone` are devices it uses that serve one engine at a time; `swaps`: it unloads others that are
    in its way.
    """

    name: str
    group: str = ""
    needs: Mapping[str, int] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    swaps: bool = False


@dataclass(frozen=True)
class Rival:
    name: str
    why: str


def rivals(
    wanted: Tenant, holders: Sequence[Tenant], totals: Mapping[str, int | None]
) -> list[Rival]:
    """Who has to go before `wanted` can start, as few as will do; empty when there is room beside
    all.

    `totals` are the devices' sizes in bytes; what does not fit on an empty device is nobody's
    fault.
    """
    found = [
        Rival(
            other.name,
            f"{other.name} runs, and of the group {wanted.group} one runs at a time",
        )
        for other in holders
        if wanted.group and other.group == wanted.group
    ]
    for other in holders:
        if (shared := sorted(wanted.alone & other.alone)) and other.name not in {
            rival.name for rival in found
        }:
            found.append(
                Rival(
                    other.name,
                    f"{shared[0]} serves one engine at a time, and {other.name} uses it",
                )
            )
    for device, need in wanted.needs.items():
        total = totals.get(device)
        if need and total is not None and need <= total:
            going = {rival.name for rival in found}
            found += _on_device(
                device,
                need,
                total,
                [other for other in holders if other.name not in going],
            )
    return found


@dataclass(frozen=True)
class Crowd:
    """Deployments that cannot all run at once, and why."""

    names: tuple[str, ...]
    text: str


def crowds(tenants: Sequence[Tenant], totals: Mapping[str, int | None]) -> list[Crowd]:
    """Devices on which these need more than there is, those aside that take turns: one that swaps
    makes room for itself, and of an exclusive group one runs at a time."""
    staying = [tenant for tenant in tenants if not tenant.swaps]
    found = []
    for device in dict.fromkeys(name for tenant in staying for name in tenant.needs):
        total = totals.get(device)
        there = _at_once(
            [
                each
                for each in staying
                if total is None or each.needs.get(device, 0) <= total
            ],
            device,
        )
        need = sum(tenant.needs[device] for tenant in there)
        names = tuple(tenant.name for tenant in there)
        if len(there) > 1 and any(device in tenant.alone for tenant in there):
            text = f"{device} serves one engine at a time, and {_and(names)} are to use it."
        elif len(there) > 1 and total is not None and need > total:
            sizes = _and(
                [
                    f"{tenant.name} {bytes_text(tenant.needs[device])}"
                    for tenant in there
                ]
            )
            text = (
                f"Together they need {bytes_text(need)} of the {bytes_text(total)} on {device}:"
                f" {sizes}."
            )
        else:
            continue
        fix = (
            "Give them an exclusive_group or when_taken: swap, or other devices, if they are to run"
            " in turn."
        )
        found.append(Crowd(names, f"{text} {fix}"))
    return found


def _at_once(tenants: Sequence[Tenant], device: str) -> list[Tenant]:
    """Those that may be on the device at the same time: of a group the largest."""
    largest: dict[str, Tenant] = {}
    for tenant in tenants:
        need = tenant.needs.get(device)
        if need:
            if tenant.group:
                key = f"group {tenant.group}"
            else:
                key = f"name {tenant.name}"
            if key not in largest or need > largest[key].needs[device]:
                largest[key] = tenant
    return list(largest.values())


def _and(words: Sequence[str]) -> str:
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return "".join(words)


def _on_device(
    device: str, need: int, total: int, holders: Sequence[Tenant]
) -> list[Rival]:
    there = sorted(
        (other for other in holders if other.needs.get(device)),
        key=lambda o: (o.needs[device], o.name),
    )
    lacking = need + sum(other.needs[device] for other in there) - total
    going: list[Tenant] = []
    while lacking > 0 and there:
        # The smallest that frees enough alone, else the largest and then again.
        enough = [other for other in there if other.needs[device] >= lacking]
        chosen = (enough or there[-1:])[0]
        there.remove(chosen)
        going.append(chosen)
        lacking -= chosen.needs[device]
    return [
        Rival(
            other.name,
            _memory_text(device, need, total, other.needs[device], other.name),
        )
        for other in going
    ]


def _memory_text(device: str, need: int, total: int, held: int, name: str) -> str:
    return (
        f"it needs {bytes_text(need)} of the {bytes_text(total)} on {device}, where {name} holds"
        f" {bytes_text(held)}"
    )
