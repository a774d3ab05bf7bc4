"""What the machine has becomes rows: cards keep their identity, devices find their card."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings

from gpus.discovery import discover_devices, register_engine_devices, save_rig
from gpus.models import Device, Gpu, Host
from gpus.sample import CardIdentity, NvmlState
from tests.fakes.nvml import MIB, rtx_5090, rtx_pro_6000

Driver = Callable[..., None]
OK = NvmlState("ok", "", "595.84")
PRO = CardIdentity(0, "GPU-PRO", "NVIDIA RTX PRO 6000", "00000000:01:00.0", 97887 * MIB)
SMALL = CardIdentity(
    1, "GPU-5090", "NVIDIA GeForce RTX 5090", "00000000:02:00.0", 32607 * MIB
)


def devices(host: Host) -> set[str]:
    return set(host.devices.filter(is_present=True).values_list("name", flat=True))


def test_a_machine_with_cards_gets_rows_of_them_and_no_stand_ins(
    driver: Driver, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    discover_devices(host)
    host.refresh_from_db()
    assert (host.nvml_state, host.driver_version) == ("ok", "595.84")
    assert host.cpu_count and host.ram_bytes and host.cpu_name
    big, small = host.gpus.all()
    assert (big.memory_bytes, big.power_limit_watts, big.state) == (
        97887 * MIB,
        600.0,
        "ok",
    )
    assert (
        small.pcie_generation_max,
        small.pcie_width_max,
        small.compute_capability,
    ) == (
        5,
        16,
        "12.0",
    )
    assert devices(host) == {"CPU"}


def test_a_machine_without_card_gets_stand_ins_that_say_what_they_are(
    driver: Driver, host: Host
) -> None:
    driver(init=9)
    discover_devices(host)
    stand_ins = list(host.devices.filter(kind="rpc"))
    assert [device.name for device in stand_ins] == ["RPC0", "RPC1"]
    assert all(
        device.is_stand_in and "CPU" in device.description for device in stand_ins
    )
    first, last = settings.OMNI_ENGINE_PORTS
    ports = {int(device.endpoint.removeprefix("127.0.0.1:")) for device in stand_ins}
    assert len(ports) == 2 and all(first <= port <= last for port in ports)


def test_looking_again_changes_nothing(driver: Driver, host: Host) -> None:
    driver(init=9)
    discover_devices(host)
    before = list(Device.objects.values_list("pk", "name", "endpoint"))
    discover_devices(host)
    assert list(Device.objects.values_list("pk", "name", "endpoint")) == before


def test_stand_ins_go_when_a_card_comes_and_return_with_their_endpoints(
    host: Host,
) -> None:
    save_rig(host, NvmlState("no_devices"), ())
    endpoints = dict(
        host.devices.filter(is_stand_in=True).values_list("name", "endpoint")
    )
    save_rig(host, OK, (PRO,))
    assert devices(host) == {"CPU"}
    save_rig(host, NvmlState("no_devices"), ())
    assert devices(host) == {"CPU", "RPC0", "RPC1"}
    assert (
        dict(host.devices.filter(is_stand_in=True).values_list("name", "endpoint"))
        == endpoints
    )


def test_stand_ins_leave_the_names_of_other_hosts_devices_alone(host: Host) -> None:
    Device.objects.create(host=host, name="RPC1", kind="rpc", endpoint="10.0.0.2:18999")
    save_rig(host, NvmlState("no_devices"), ())
    stand_ins = host.devices.filter(is_stand_in=True, is_present=True).values_list(
        "name", flat=True
    )
    assert set(stand_ins) == {"RPC0", "RPC2"}
    assert host.devices.get(name="RPC1").endpoint == "10.0.0.2:18999"


def test_a_card_is_known_by_its_uuid_when_its_index_changes(host: Host) -> None:
    save_rig(host, OK, (PRO, SMALL))
    pk = Gpu.objects.get(uuid="GPU-5090").pk
    save_rig(host, OK, (CardIdentity(**{**vars(SMALL), "index": 0}),))
    moved = Gpu.objects.get(uuid="GPU-5090")
    assert (moved.pk, moved.index, moved.state) == (pk, 0, "ok")
    assert Gpu.objects.get(uuid="GPU-PRO").state == "absent"


def test_a_known_card_that_cannot_be_opened_keeps_its_row(host: Host) -> None:
    save_rig(host, OK, (PRO, SMALL))
    names = save_rig(
        host, OK, (PRO, CardIdentity(1, state="lost", error="It fell off."))
    )
    assert names[1].uuid == "GPU-5090"
    row = Gpu.objects.get(uuid="GPU-5090")
    assert (row.state, row.error, row.memory_bytes) == (
        "lost",
        "It fell off.",
        32607 * MIB,
    )
    assert Gpu.objects.count() == 2


def test_a_card_nobody_ever_opened_has_a_row_until_it_tells_its_name(
    host: Host,
) -> None:
    save_rig(host, OK, (CardIdentity(0, state="error", error="No."),))
    assert [(gpu.name, gpu.state) for gpu in host.gpus.all()] == [("GPU 0", "error")]
    save_rig(host, OK, (PRO,))
    assert [gpu.uuid for gpu in host.gpus.all()] == ["GPU-PRO"]


# --- what engines list ----------------------------------------------------------------------------
def listed(*names: tuple[str, str, int]) -> list[dict[str, object]]:
    return [
        {"name": name, "description": text, "total_bytes": mib * MIB}
        for name, text, mib in names
    ]


def ties(host: Host) -> dict[str, str | None]:
    return {
        device.name: device.gpu and device.gpu.uuid
        for device in host.devices.exclude(kind="cpu")
    }


def test_cuda_devices_find_their_cards_whatever_their_order(host: Host) -> None:
    save_rig(host, OK, (PRO, SMALL))
    rows = listed(("CUDA0", SMALL.name, 32120), ("CUDA1", PRO.name, 97250))
    register_engine_devices(host, rows)
    assert ties(host) == {"CUDA0": "GPU-5090", "CUDA1": "GPU-PRO"}


def test_vulkan_and_cuda_may_mean_the_same_card(host: Host) -> None:
    save_rig(host, OK, (SMALL,))
    register_engine_devices(host, listed(("CUDA0", SMALL.name, 32120)))
    register_engine_devices(host, listed(("Vulkan0", f"{SMALL.name} (NVIDIA)", 32607)))
    assert ties(host) == {"CUDA0": "GPU-5090", "Vulkan0": "GPU-5090"}


def test_twins_are_told_apart_by_the_order_of_the_bus(host: Host) -> None:
    later = CardIdentity(
        0, "GPU-LATER", SMALL.name, "00000000:41:00.0", SMALL.memory_total_bytes
    )
    save_rig(host, OK, (later, SMALL))
    register_engine_devices(
        host, listed(("CUDA0", SMALL.name, 32120), ("CUDA1", SMALL.name, 32120))
    )
    assert ties(host) == {"CUDA0": "GPU-5090", "CUDA1": "GPU-LATER"}


@pytest.mark.parametrize(
    ("name", "text", "mib"),
    [
        ("CUDA0", "NVIDIA GeForce RTX 4090", 24564),  # not one of the cards
        ("Vulkan0", "llvmpipe (LLVM 15)", 16000),  # not a card at all
        ("CUDA0", "NVIDIA", 32607),  # too little said
    ],
)
def test_a_device_that_is_no_known_card_is_tied_to_none(
    host: Host, name: str, text: str, mib: int
) -> None:
    save_rig(host, OK, (PRO, SMALL))
    register_engine_devices(host, listed((name, text, mib)))
    assert ties(host) == {name: None}


def test_a_name_inside_a_longer_name_is_not_mistaken(host: Host) -> None:
    plain = CardIdentity(
        0, "GPU-A", "NVIDIA GeForce RTX 4070", "00000000:01:00.0", 16376 * MIB
    )
    longer = CardIdentity(
        1, "GPU-B", "NVIDIA GeForce RTX 4070 Ti", "00000000:02:00.0", 16376 * MIB
    )
    save_rig(host, OK, (plain, longer))
    rows = listed(("CUDA0", longer.name, 16000), ("CUDA1", plain.name, 16000))
    register_engine_devices(host, rows)
    assert ties(host) == {"CUDA0": "GPU-B", "CUDA1": "GPU-A"}


def test_an_engines_cpu_and_rpc_devices_are_not_taken_for_cards(host: Host) -> None:
    save_rig(host, NvmlState("no_devices"), ())
    endpoint = host.devices.get(name="RPC0").endpoint
    register_engine_devices(
        host, listed(("RPC0", "127.0.0.1:1", 100), ("CPU", "AMD", 100))
    )
    assert host.devices.get(name="RPC0").endpoint == endpoint
    assert host.devices.get(name="CPU").kind == "cpu"


def test_devices_of_a_card_go_and_come_with_it(host: Host) -> None:
    save_rig(host, OK, (PRO, SMALL))
    register_engine_devices(host, listed(("CUDA0", SMALL.name, 32120)))
    save_rig(host, OK, (PRO,))
    assert "CUDA0" not in devices(host)
    save_rig(host, OK, (PRO, SMALL))
    assert "CUDA0" in devices(host)
