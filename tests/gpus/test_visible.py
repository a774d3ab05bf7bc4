"""CUDA_VISIBLE_DEVICES is followed as CUDA itself does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deployments.engines.probe.environment import engine_environment
from gpus.discovery import register_engine_devices
from gpus.doctor import unusable_findings
from gpus.models import Device, Gpu, Host
from gpus.sample import CardIdentity
from gpus.visible import visible

CARDS = [
    CardIdentity(index=place, uuid=f"GPU-{name}")
    for place, name in enumerate(("aa11", "aa22", "bb33"))
]


@pytest.mark.parametrize(
    ("setting", "order"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1,0", [1, 0]),
        ("2", [2]),
        (" 0 , 2 ", [0, 2]),
        ("GPU-bb,GPU-aa1", [2, 0]),
        ("GPU-aa", []),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", [1]),
        ("NoDevFiles", []),
    ],
)
def test_the_cards_that_are_left(setting: str | None, order: Sequence[int]) -> None:
    assert [card.index for card in visible(CARDS, setting)] == list(order)


def test_engines_are_asked_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert engine_environment("/bin/true")["CUDA_VISIBLE_DEVICES"] == "1,0"


@pytest.mark.django_db
def test_twins_are_told_apart_in_the_order_of_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host.objects.create(name="h")
    for place in range(2):
        Gpu.objects.create(
            host=host,
            index=place,
            uuid=f"GPU-{place}",
            name="RTX 5090",
            pci_bus_id=f"0{place}",
            memory_bytes=32,
        )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    listed = [
        {"name": f"CUDA{n}", "description": "RTX 5090", "total_bytes": 32}
        for n in range(2)
    ]
    register_engine_devices(host, listed)
    ties = dict(Device.objects.order_by("name").values_list("name", "gpu__uuid"))
    assert ties == {"CUDA0": "GPU-1", "CUDA1": "GPU-0"}


@pytest.mark.parametrize(
    ("usable", "hidden", "names"),
    [
        ({"GPU-aa11", "GPU-aa22", "GPU-bb33"}, None, 0),
        ({"GPU-aa11"}, None, 2),
        (set(), None, 3),
        ({"GPU-aa11"}, "0", 0),
        (set(), "0", 1),
        (set(), "0,1", 2),
        ({"GPU-aa22"}, "1,0", 1),
        (set(), "", 0),
    ],
)
def test_cards_that_no_engine_can_use_are_a_finding(
    usable: set[str], hidden: str | None, names: int
) -> None:
    found = unusable_findings(CARDS, usable, hidden)
    assert [finding.code for finding in found] == ["card_unusable"] * bool(names)
    assert sum(len(finding.text.split(" and ")) for finding in found) == names
