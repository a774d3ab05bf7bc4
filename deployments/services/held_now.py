"""What holds memory now that a rig plan needs, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from deployments.planning.memory.sharing import Tenant, rivals
from deployments.planning.plan import DeviceFacts, Reason, Severity
from deployments.services.plans import rig_facts
from deployments.services.tenancy import Occupied, held
from gpus.models import Host
from omni.units import bytes_text


@dataclass(frozen=True)
class HeldNow:
    """Read once for many answers. Main memory is left out: what lies there is paged in and out."""

    occupied: Occupied
    # Bytes by device beside what deployments hold.
    by_programs: Mapping[str, int]

    @classmethod
    def of(cls, host: Host) -> HeldNow:
        found = held(host, servers_too=True)
        deployed: Counter[str] = Counter()
        for tenant in found.tenants:
            deployed.update(tenant.needs)
        devices = rig_facts(host).items()
        programs = {
            name: max(_in_use(device) - deployed[name], 0) for name, device in devices
        }
        return cls(found, programs)

    def reasons(
        self, names: Collection[str], used_bytes: Mapping[str, int]
    ) -> Iterator[Reason]:
        """Who has to make room for deployments of these names that take so much together."""
        totals = self.occupied.totals
        alone = frozenset(self.occupied.servers & set(used_bytes))
        others = [each for each in self.occupied.tenants if each.name not in names]
        for rival in rivals(Tenant("", needs=used_bytes, alone=alone), others, totals):
            text = f"{rival.name} has to stop first: {rival.why} now."
            yield Reason("held_now", Severity.CAUTION, text, f"Stop {rival.name}.")
        for name, n_bytes in used_bytes.items():
            total, by_programs = totals.get(name), self.by_programs.get(name, 0)
            if not total or not by_programs or n_bytes + by_programs <= total:
                continue
            text = (
                f"Other programs hold {bytes_text(by_programs)} on {name} now: beside"
                f" {bytes_text(n_bytes)} that this needs there is too little."
            )
            fix = "The Rig page shows which programs use a card."
            yield Reason("held_now", Severity.CAUTION, text, fix)


def _in_use(device: DeviceFacts) -> int:
    if device.total_bytes is None or device.free_bytes is None:
        return 0
    return device.total_bytes - device.free_bytes
