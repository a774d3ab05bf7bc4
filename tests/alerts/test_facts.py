"""What the rules see of frames, rows and requests, and all subjects at one look."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.alerts.facts import (
    DeploymentFacts,
    KnownCard,
    OtherHost,
    RequestFacts,
    agent_readings,
    card_readings,
    deployment_readings,
    host_readings,
    lost_readings,
    request_readings,
)
from deployments.alerts.machine import Event
from deployments.alerts.rules import BY_CODE, Limits
from deployments.alerts.watch import GONE, SWITCHED_OFF, Facts, Reading, firing, look

NOW_MS = 1_000_000.0
GIB = 1 << 30


def frame(**card: Any) -> dict[str, Any]:
    usual = {"key": "GPU-1", "name": "RTX 5090", "state": "ok"}
    host = {"ram_used_bytes": 90 * GIB, "ram_total_bytes": 100 * GIB}
    return {"at": NOW_MS, "cards": [usual | card], "host": host}


LINK = {"pcie_generation_max": 5, "pcie_width_max": 16, "pcie_width": 16}
CARDS: tuple[tuple[dict[str, Any], str, float | None], ...] = (
    ({}, "gpu_temperature", None),
    ({"temperature_celsius": 91}, "gpu_temperature", 91),
    ({"throttle": ["power limit"]}, "gpu_throttle", 0),
    ({"throttle": ["temperature (hardware)"]}, "gpu_throttle", 1),
    ({"throttle": ["power limit", "power brake"]}, "gpu_throttle", 1),
    ({"state": "lost"}, "gpu_throttle", None),
    ({}, "gpu_link", None),
    ({**LINK, "pcie_generation": 4, "utilisation_percent": 90}, "gpu_link", 50),
    ({**LINK, "pcie_generation": 1, "utilisation_percent": 3}, "gpu_link", None),
    ({**LINK, "pcie_generation": 5}, "gpu_link", 100),
    ({**LINK, "pcie_generation": 5, "pcie_width": 8, "utilisation_percent": 50}, "gpu_link", 50),
    ({"memory_used_bytes": 31 * GIB, "memory_total_bytes": 32 * GIB}, "gpu_memory", 96.875),
    ({"memory_used_bytes": 31 * GIB}, "gpu_memory", None),
    ({}, "gpu_xid", 0),
    ({"xid": 79, "xid_at_ms": NOW_MS - 1000}, "gpu_xid", 1),
    ({"xid": 79, "xid_at_ms": NOW_MS - 700_000}, "gpu_xid", 0),
    ({}, "gpu_ecc", None),
    ({"ecc_uncorrected": 0}, "gpu_ecc", 0),
    ({"ecc_uncorrected": 3}, "gpu_ecc", 1),
)  # fmt: skip


@pytest.mark.parametrize(("card", "code", "value"), CARDS)
def test_a_card_reads(card: dict[str, Any], code: str, value: float | None) -> None:
    found = {each.code: each for each in card_readings(frame(**card), NOW_MS)}
    assert found[code].value == pytest.approx(value)
    assert found[code].text.startswith("RTX 5090")


@pytest.mark.parametrize("other", [{}, {"at": 0, "cards": [{"key": "x"}]}])
def test_an_old_frame_or_none_says_nothing(other: dict[str, Any]) -> None:
    assert list(card_readings(other, NOW_MS)) == []
    ram, disk = host_readings("rig", other, NOW_MS, None)
    assert (ram.value, disk.value) == (None, None)


def test_stand_ins_have_no_alerts() -> None:
    assert list(card_readings(frame(is_stand_in=True), NOW_MS)) == []


def test_the_host_reads_free_memory_and_disk() -> None:
    ram, disk = host_readings("rig", frame(), NOW_MS, 3 * GIB)
    assert (ram.value, disk.value) == (10, 3)
    assert disk.text == "rig has 3 GiB left on the disk of OMNI_HOME."


def test_a_card_that_is_gone_or_lost_reads_one() -> None:
    cards = [
        KnownCard("a", "A", "ok"),
        KnownCard("b", "B", "lost", "Fell off the bus."),
    ]
    well, lost = lost_readings(cards)
    assert (well.value, lost.value) == (0, 1)
    assert lost.text == "B cannot be read: Fell off the bus."


def test_a_deployment_reads_failed_and_restarts() -> None:
    rows = [
        DeploymentFacts("well", "ready", 0),
        DeploymentFacts("ill", "crashed", 3, "out of memory\nmore"),
        DeploymentFacts("dead", "failed", 5),
        DeploymentFacts("stopped", "failed", 5, ought_to_run=False),
    ]
    found = {(r.code, r.subject): r for r in deployment_readings(rows)}
    failed = {name: r.value for (code, name), r in found.items() if "failed" in code}
    again = {name: r.value for (code, name), r in found.items() if "rest" in code}
    assert failed == {"well": 0, "ill": 0, "dead": 1, "stopped": 0}
    assert again == {"well": 0, "ill": 3, "dead": 0, "stopped": 0}
    text = found["deployment_restarting", "ill"].text
    assert text == "ill ended by itself 3 times in a row: out of memory"


def test_requests_read_their_median_wait_and_share_of_errors() -> None:
    requests = [
        *(RequestFacts("slow", 200, ms) for ms in (100, 40_000, 50_000)),
        *(RequestFacts("bad", status, None) for status in (200, 502, 400, 499)),
        RequestFacts("seldom", 502, None),
    ]
    found = {
        (r.code, r.subject): r.value
        for r in request_readings(requests, ["slow", "bad", "seldom", "idle"])
    }
    assert found["first_token", "slow"] == 40 and found["gateway_errors", "slow"] == 0
    assert found["first_token", "bad"] is None and found["gateway_errors", "bad"] == 25
    assert found["gateway_errors", "seldom"] is None
    # Nobody waits, nothing fails: what fires clears.
    assert found["first_token", "idle"] == found["gateway_errors", "idle"] == 0


@pytest.mark.parametrize(
    ("own", "values"),
    [
        # Of those that live the first tells of who is away.
        ("alpha", {"beta": 0, "gamma": 1, "delta": 0}),
        ("beta", {"alpha": 0, "gamma": None, "delta": 0}),
        ("gamma", {"alpha": 0, "beta": 0, "delta": 0}),
    ],
)
def test_one_living_agent_tells_of_another_that_is_away(
    own: str, values: dict[str, float | None]
) -> None:
    seen = {"alpha": 99.0, "beta": 95.0, "gamma": 40.0, "delta": 100.0}
    others = [OtherHost(name, at) for name, at in seen.items() if name != own]
    found = list(agent_readings(own, others, 100.0, 10.0))
    assert {r.subject: r.value for r in found} == values
    assert not found or "has not reported for" in found[0].text


# --- many subjects --------------------------------------------------------------------------------
HOT = BY_CODE["gpu_temperature"].with_limits(Limits(85, 78, 0, 0))
RULES = {HOT.code: HOT}


def hot(**cards: float | None) -> Facts:
    readings = (Reading(HOT.code, key, key, value) for key, value in cards.items())
    return Facts(tuple(readings), {HOT.code: set(cards)})


def test_each_subject_has_its_own_state() -> None:
    first = look(RULES, {}, hot(a=90, b=20, c=None), 1)
    assert [(c.event, c.subject) for c in first.changes] == [(Event.FIRED, "a")]
    second = look(RULES, first.states, hot(a=20, b=90, c=None), 2)
    assert [(c.event, c.subject) for c in second.changes] == [
        (Event.CLEARED, "a"),
        (Event.FIRED, "b"),
    ]


def test_a_subject_that_goes_away_clears_and_says_why() -> None:
    states = firing([(HOT.code, "a")])
    [change] = look(RULES, states, hot(b=20), 1).changes
    assert (change.event, change.subject, change.text) == (Event.CLEARED, "a", GONE)


def test_a_subject_nobody_can_tell_of_goes_on() -> None:
    states = firing([(HOT.code, "a")])
    assert look(RULES, states, Facts(), 1).changes == ()


def test_a_rule_that_is_switched_off_clears_what_fires() -> None:
    off = {HOT.code: HOT.with_limits(Limits(85, 78, is_on=False))}
    found = look(off, firing([(HOT.code, "a")]), hot(a=90), 1)
    assert [change.text for change in found.changes] == [SWITCHED_OFF]
    assert found.states == {}
