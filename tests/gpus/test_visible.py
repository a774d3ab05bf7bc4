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


@pytest.mark.parametrize(
    ("setting", "order"),
    [("MIG-1", [1]), ("MIG-2,GPU-aa1", [1, 0]), ("MIG-", []), ("MIG-9,0", [])],
)
def test_a_slice_stands_for_its_card(setting: str, order: Sequence[int]) -> None:
    slices = {"GPU-aa22": ["MIG-1a", "MIG-2b"], "GPU-bb33": ["MIG-3c"]}
    assert [card.index for card in visible(CARDS, setting, slices)] == list(order)


@pytest.mark.parametrize("order", ["FASTEST_FIRST", "PCI_BUS_ID", None])
def test_engines_count_in_bus_order_whatever_the_panel_was_started_with(
    monkeypatch: pytest.MonkeyPatch, order: str | None
) -> None:
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert engine_environment("/bin/true")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


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


# A rig of two unlike cards and two twins, in bus order.
RIG = {
    "GPU-pro": ("NVIDIA RTX PRO 6000", "00000000:01:00.0", 96),
    "GPU-one": ("NVIDIA GeForce RTX 5090", "00000000:02:00.0", 32),
    "GPU-two": ("NVIDIA GeForce RTX 5090", "00000000:41:00.0", 32),
    "GPU-old": ("NVIDIA GeForce RTX 3090", "00000000:C1:00.0", 24),
}


@pytest.mark.django_db
@pytest.mark.parametrize("order", ["FASTEST_FIRST", "PCI_BUS_ID"])
@pytest.mark.parametrize("tells", ["name", "bus", "uuid"])
@pytest.mark.parametrize(
    ("setting", "uuids"),
    [
        (None, ["GPU-pro", "GPU-one", "GPU-two", "GPU-old"]),
        ("1,0", ["GPU-one", "GPU-pro"]),
        ("2,1", ["GPU-two", "GPU-one"]),
        ("3", ["GPU-old"]),
        ("GPU-two,GPU-pro", ["GPU-two", "GPU-pro"]),
        ("0,9,1", ["GPU-pro"]),
        ("", []),
    ],
)
def test_each_device_is_tied_to_its_card(
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    uuids: list[str],
    tells: str,
    order: str,
) -> None:
    """Devices as CUDA lists them, which is asked to count in bus order."""
    host = Host.objects.create(name="h")
    for place, (uuid, (name, bus, gib)) in enumerate(RIG.items()):
        Gpu.objects.create(
            host=host,
            uuid=uuid,
            index=place,
            name=name,
            pci_bus_id=bus,
            memory_bytes=gib << 30,
        )
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    listed: list[dict[str, object]] = []
    for place, uuid in enumerate(uuids):
        name, bus, gib = RIG[uuid]
        row: dict[str, object] = {"name": f"CUDA{place}", "total_bytes": gib << 30}
        row["description"] = name if tells == "name" else "NVIDIA"
        row |= {"bus": {"pci_bus_id": bus[4:].lower()}, "uuid": {"uuid": uuid}}.get(
            tells, {}
        )
        listed.append(row)
    register_engine_devices(host, listed)
    ties = Device.objects.order_by("name").values_list("name", "gpu__uuid")
    assert dict(ties) == {f"CUDA{place}": uuid for place, uuid in enumerate(uuids)}


@pytest.mark.django_db
def test_a_device_that_names_a_card_which_is_not_here_is_tied_to_none() -> None:
    host = Host.objects.create(name="h")
    Gpu.objects.create(
        host=host, uuid="GPU-1", name="RTX 5090", pci_bus_id="0000:01:00.0"
    )
    row = {"name": "CUDA0", "description": "RTX 5090", "pci_bus_id": "0000:02:00.0"}
    register_engine_devices(host, [row])
    assert Device.objects.get(name="CUDA0").gpu is None


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
