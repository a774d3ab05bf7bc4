"""Rigs through the real bindings on the stand-in library, as the rules of alerts see them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deployments.alerts.facts import card_readings
from deployments.alerts.rules import BY_CODE, Limits
from deployments.models import Alert
from deployments.services.alerting import rule_change
from deployments.supervision.alert_watch import AlertWatch
from gpus.discovery import save_rig
from gpus.models import Host
from gpus.nvml import FAILED_AGAIN_S, Nvml
from gpus.sample import CardSample, HostSample, Sample
from gpus.store import save_states
from tests.fakes.nvml import rtx_5090
from tests.gpus.test_scenarios import PRO, SCENARIOS, SMALL, small
from tests.helpers import HandClock

Driver = Callable[..., None]
GIB = 1 << 30
# All others are no reason for an alert.
BAD = {
    "the second card at generation 4 under load": {"gpu_link"},
    "generation 1 under load": {"gpu_link"},
    "eight lanes": {"gpu_link"},
    "throttled by heat": {"gpu_throttle"},
    "memory filled by another process": {"gpu_memory"},
    "errors in memory": {"gpu_ecc"},
}


def frame_of(nvml: Nvml, now_s: float = 0.0, **xid: int) -> str:
    """What the sampler publishes; `xid` is of the last card."""
    cards: list[CardSample] = list(nvml.sample(now_s))
    if cards:
        cards[-1] = replace(cards[-1], **xid)  # type: ignore[arg-type]
    host = HostSample(1.0, GIB, 100 * GIB, 0, 0.1)
    at_ms = int(time.time() * 1000)
    return Sample(at_ms, host, tuple(cards), nvml.state).frame()


def bad(frame: dict[str, Any]) -> set[str]:
    readings = card_readings(frame, time.time() * 1000)
    return {
        each.code
        for each in readings
        if each.value is not None and BY_CODE[each.code].is_bad(each.value)
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_rig_is_as_bad_as_it_is(driver: Driver, name: str) -> None:
    case = SCENARIOS[name]
    driver(*(case.opened or case.cards))
    nvml = Nvml()
    nvml.start()
    driver(*case.cards)
    assert bad(json.loads(frame_of(nvml))) == BAD.get(name, set())


def test_a_xid_error_is_bad_for_ten_minutes(driver: Driver) -> None:
    driver(PRO, SMALL)
    nvml = Nvml()
    nvml.start()
    now_ms = int(time.time() * 1000)
    for age_ms, expected in ((1000, {"gpu_xid"}), (601_000, set())):
        frame = frame_of(nvml, xid=79, xid_at_ms=now_ms - age_ms)
        assert bad(json.loads(frame)) == expected


class Rig:
    """A sampler and an agent that look in turn, five seconds apart."""

    def __init__(self, host: Host) -> None:
        self.host, self.nvml, self.clock = host, Nvml(), HandClock()
        self.nvml.start()
        save_rig(host, self.nvml.state, self.nvml.identities)
        self.text = ""
        self.watch = AlertWatch(host, clock=self.clock, frame=lambda name: self.text)

    def look(self, count: int) -> set[tuple[str, str]]:
        """What fires afterwards."""
        for _ in range(count):
            self.clock.now_s += 5
            self.text = frame_of(self.nvml, self.clock.now_s)
            save_states(self.host, self.nvml.sample(self.clock.now_s))
            self.watch.tick()
        firing = Alert.objects.filter(cleared_at=None)
        return set(firing.values_list("code", "subject"))


def test_a_card_that_falls_off_the_bus_and_comes_back_fires_and_clears_once(
    driver: Driver, host: Host
) -> None:
    driver(PRO, SMALL)
    rig = Rig(host)
    assert rig.look(5) == set()
    driver(PRO, rtx_5090(lines=("fail * 15",)))
    assert rig.look(20) == {("gpu_lost", SMALL.uuid)}
    driver(PRO, SMALL)
    assert rig.look(4 + int(FAILED_AGAIN_S / 5)) == set()
    assert Alert.objects.count() == 1


def test_a_link_below_its_rating_fires_under_load_and_goes_on_while_it_is_idle(
    driver: Driver, host: Host
) -> None:
    driver(PRO, SMALL)
    rig = Rig(host)
    assert rig.look(20) == set()
    driver(PRO, small(generation=4))
    assert rig.look(20) == {("gpu_link", SMALL.uuid)}
    # Idle it runs at generation 1: nobody can tell.
    driver(PRO, SMALL)
    assert rig.look(20) == {("gpu_link", SMALL.uuid)}
    driver(PRO, small())
    assert rig.look(20) == set()


def test_cards_fire_each_by_themselves(driver: Driver, host: Host) -> None:
    rule_change(code="gpu_temperature", limits=Limits(50, 45, 0, 0))
    hot = {**SMALL.facts, "temperature": 90}
    cards = [
        rtx_5090(
            uuid=f"GPU-{place}",
            bus=f"00000000:{place + 1:02x}:00.0",
            facts=hot if place in (2, 5) else SMALL.facts,
        )
        for place in range(8)
    ]
    driver(*cards)
    rig = Rig(host)
    assert rig.look(3) == {("gpu_temperature", "GPU-2"), ("gpu_temperature", "GPU-5")}
