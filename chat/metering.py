"""What energy an answer takes: the power of its deployment's cards while it is made.

It is the answer's own only where nothing else works on those cards meanwhile; else it is said with
whom they were shared. What no card tells is not known, and never zero.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.gateway.queues import at_work
from deployments.gateway.waiting import Wait
from deployments.models import Deployment
from gpus.energy import LONGEST_GAP_S, Sample, joules
from gpus.models import Device
from gpus.recent import powers_since

# Cards tell the mean of about a second; of less there is too little to tell.
SHORTEST_S = 1.0
# The sample before the start says with what power it started.
BEFORE_S = 2.0


@dataclass(frozen=True)
class Place:
    """Where a deployment's power is told: its devices by the key that telemetry has for them."""

    host: str = ""
    devices: Mapping[str, str] = field(default_factory=dict)

    def meets(self, other: Place) -> bool:
        return self.host == other.host and not self.devices.keys().isdisjoint(
            other.devices
        )


def places() -> dict[str, Place]:
    """Of every deployment by its name; one on an external server is nowhere."""
    keys = {
        (device.host_id, device.name): device.card_key
        for device in Device.objects.select_related("gpu")
    }
    found = Deployment.objects.select_related("host").prefetch_related("bindings")
    return {
        each.name: Place(
            each.host.name,
            {
                keys.get((each.host_id, name), name): name
                for binding in each.bindings.all()
                for name in binding.devices
            },
        )
        for each in found
        if not each.is_external
    }


@dataclass
class Meter:
    """Of one answer. Seconds are since 1970, as telemetry counts them."""

    wait: Wait
    places: Mapping[str, Place] = field(default_factory=dict)
    begun_s: float = field(default_factory=time.time)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    # Deployments that worked on the same cards meanwhile.
    others: set[str] = field(default_factory=set)
    read_to_s: float = 0.0

    @property
    def name(self) -> str:
        return self.wait.serving.name if self.wait.serving else ""

    @property
    def place(self) -> Place:
        return self.places.get(self.name, Place())

    def look(self, now_s: float) -> None:
        """To be called often: whether it has begun, and who else works."""
        if self.wait.reason:
            # What cards do while a model loads, or while others are answered, is not for this one.
            self.begun_s = now_s
            return
        working = at_work()
        slots = self.wait.serving.slots if self.wait.serving else 0
        own = working.pop(self.name, 0)
        if min(own, slots or own) > 1:
            self.others.add(self.name)
        self.others |= {
            name for name in working if self.place.meets(self.places.get(name, Place()))
        }

    async def read(
        self, now_s: float, powers: Callable[..., Any] = powers_since
    ) -> None:
        """Takes over what telemetry has that was not read yet."""
        if not self.place.devices:
            return
        since_s = max(self.begun_s - BEFORE_S, self.read_to_s)
        for at_s, watts in await powers(self.place.host, since_s, now_s):
            if at_s <= self.read_to_s:
                continue
            self.read_to_s = at_s
            for key in self.place.devices:
                if (power := watts.get(key)) is not None:
                    self.samples[key].append((at_s, power))

    # --- what it comes to -------------------------------------------------------------------------
    def facts(self, now_s: float) -> dict[str, Any]:
        """So far: joules and in how many seconds, or why not; empty while it is too early."""
        seconds = now_s - self.begun_s
        if not self.read_to_s and self.place.devices and seconds < LONGEST_GAP_S:
            return {}
        if reason := self._unknown():
            return {"why": reason}
        telling = [
            name for key, name in self.place.devices.items() if key in self.samples
        ]
        if self.others:
            return {"why": self._shared(telling), "shared_with": sorted(self.others)}
        if seconds < SHORTEST_S:
            return {}
        each = [joules(line, self.begun_s, now_s) for line in self.samples.values()]
        known = [value for value in each if value is not None]
        if len(known) < len(each):
            return {"why": "The telemetry has a gap."}
        silent = [name for name in self.place.devices.values() if name not in telling]
        return {
            "joules": round(sum(known), 3),
            "seconds": round(seconds, 3),
            "devices": telling,
            "silent": silent,
        }

    def facts_at_the_end(self, now_s: float) -> dict[str, Any]:
        too_short = (
            "It took less than a second, which is too short for a card's power meter."
        )
        return self.facts(now_s) or {"why": self._unknown() or too_short}

    def watts(self, now_s: float) -> float | None:
        """Of all that tell, at the last look."""
        newest = [line[-1] for line in self.samples.values()]
        if not newest or any(now_s - at_s > LONGEST_GAP_S for at_s, _ in newest):
            return None
        return sum(watts for _, watts in newest)

    def _unknown(self) -> str:
        """Why nothing can be told; empty where a card tells its power."""
        if self.samples:
            return ""
        if not self.place.devices:
            return "What its server draws is not known here."
        if not self.read_to_s:
            return f"No telemetry came from {self.place.host}."
        names = list(self.place.devices.values())
        verb = "tells" if len(names) == 1 else "tell"
        return f"{' and '.join(names)} {verb} no power."

    def _shared(self, telling: list[str]) -> str:
        others = [
            f"another request of {name}" if name == self.name else name
            for name in sorted(self.others)
        ]
        return f"{' and '.join(telling)} worked for {' and '.join(others)} as well."
