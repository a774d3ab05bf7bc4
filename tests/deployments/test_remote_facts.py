"""What planning knows of a device of another host."""

from __future__ import annotations

import pytest

from deployments.services.plans import rig_facts
from deployments.supervision import device_servers
from deployments.supervision.log_reading import cause_of_exit
from gpus.models import Device, Gpu, Host
from omni.addresses import parse_endpoint

GIB = 1 << 30


@pytest.fixture
def remote(host: Host) -> Device:
    return Device.objects.create(
        host=host,
        name="RPC5",
        kind="rpc",
        endpoint="10.0.0.2:18999",
        memory_bytes=80 * GIB,
        position=200,
    )


def test_of_a_device_known_by_its_address_alone_the_speed_is_unknown(
    host: Host, remote: Device
) -> None:
    facts = rig_facts(host)["RPC5"]
    assert (facts.kind, facts.total_bytes, facts.endpoint) == (
        "rpc",
        80 * GIB,
        "10.0.0.2:18999",
    )
    assert facts.bandwidth_gbps is facts.tflops is facts.link_gbps is None
    assert not facts.is_stand_in


def test_a_card_of_another_host_in_this_database_says_how_fast_it_is(
    host: Host, remote: Device
) -> None:
    beta = Host.objects.create(name="beta", ram_bandwidth_gbps=1.0, cpu_count=1)
    card = Gpu.objects.create(
        host=beta,
        uuid="GPU-FAR",
        memory_bandwidth_gbps=900.0,
        tflops=30.0,
        pcie_generation_max=5,
        pcie_width_max=16,
    )
    Device.objects.create(
        host=beta, name="CUDA0", kind="cuda", gpu=card, endpoint=remote.endpoint
    )
    facts = rig_facts(host)["RPC5"]
    assert (facts.bandwidth_gbps, facts.tflops) == (900.0, 30.0)
    # The other machine's slot is not the network, and its card is none of this one's.
    assert (facts.link_gbps, facts.gpu_uuid) == (None, "")


def test_a_processor_of_another_host_says_how_fast_it_is(
    host: Host, remote: Device
) -> None:
    beta = Host.objects.create(name="beta", ram_bandwidth_gbps=77.0, cpu_count=8)
    Device.objects.create(host=beta, name="CPU", kind="cpu", endpoint=remote.endpoint)
    assert rig_facts(host)["RPC5"].bandwidth_gbps == 77.0


# --- the server behind an offered device ----------------------------------------------------------
@pytest.fixture
def offering(settings: object) -> None:
    settings.OMNI_RPC_ADDRESS, settings.OMNI_RPC_DEVICES = "10.0.0.1", ("CPU", "CUDA1")  # type: ignore[attr-defined]


def word_after(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_an_offered_card_is_served_by_its_uuid_at_the_named_address(
    host: Host, offering: None
) -> None:
    card = Gpu.objects.create(host=host, uuid="GPU-B")
    device = Device.objects.create(host=host, name="CUDA1", kind="cuda", gpu=card)
    plan = device_servers.rpc_plan(device)
    assert (word_after(plan.argv, "-H"), word_after(plan.argv, "-d")) == (
        "10.0.0.1",
        "CUDA0",
    )
    assert (
        plan.env["CUDA_VISIBLE_DEVICES"] == "GPU-B"
        and plan.env["GGML_RPC_NO_RDMA"] == "1"
    )


def test_the_processor_is_offered_under_its_own_name(
    host: Host, offering: None
) -> None:
    plan = device_servers.rpc_plan(host.devices.get(name="CPU"))
    assert (
        word_after(plan.argv, "-d") == "CPU" and "CUDA_VISIBLE_DEVICES" not in plan.env
    )


def test_a_stand_in_never_leaves_this_machine(host: Host, offering: None) -> None:
    plan = device_servers.rpc_plan(host.devices.get(name="RPC0"))
    assert word_after(plan.argv, "-H") == "127.0.0.1" and "-d" not in plan.argv


def test_a_server_waits_for_its_address_and_another_address_is_another_server(
    host: Host, offering: None, settings: object
) -> None:
    cpu = host.devices.get(name="CPU")
    wanted = device_servers.desired(cpu)
    assert wanted.running and wanted.blocked_by == (
        "the address 10.0.0.1 (OMNI_RPC_ADDRESS)",
    )
    settings.OMNI_RPC_ADDRESS = "127.0.0.2"  # type: ignore[attr-defined]
    other = device_servers.desired(cpu)
    assert (
        other.running
        and other.blocked_by == ()
        and other.generation != wanted.generation
    )


def test_nothing_is_offered_by_itself(host: Host) -> None:
    device_servers.keep_rows(host)
    assert not [
        device for device in host.devices.all() if device_servers.is_offered(device)
    ]
    assert set(host.instances.values_list("device__name", flat=True)) == {
        "RPC0",
        "RPC1",
    }


# --- what the engine says -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "code", "permanent", "says"),
    [
        (
            [
                "0.00.005.450 E Failed to connect to 10.0.0.2:18999",
                'error while handling argument "--device": invalid device: RPC0',
            ],
            "device_unreachable",
            False,
            "cannot be reached at 10.0.0.2:18999",
        ),
        (
            [
                "0.00.014.859 E RPC server version mismatch: 9.0.0",
                "0.00.014.900 E Failed to connect to 10.0.0.2:18999",
                'error while handling argument "--device": invalid device: RPC0',
            ],
            "device_version",
            True,
            "9.0.0",
        ),
        (
            [
                "ggml-rpc.cpp:345: Remote RPC server crashed or returned malformed response"
            ],
            "device_lost",
            False,
            "away",
        ),
        (
            ['error while handling argument "--device": invalid device: RPC0'],
            "device_unreachable",
            False,
            "cannot be reached at 10.0.0.2:18999",
        ),
        (
            ['error while handling argument "--device": invalid device: RPC7'],
            "device_unknown",
            True,
            "RPC7",
        ),
    ],
)
def test_why_a_device_is_not_there_is_told(
    lines: list[str], code: str, permanent: bool, says: str
) -> None:
    cause = cause_of_exit(lines, 1, ["10.0.0.2:18999"])
    assert (cause.code, cause.permanent) == (code, permanent)
    assert says in cause.text


def test_an_endpoint_is_read_as_it_is_written() -> None:
    assert parse_endpoint(" 192.168.7.9:18999 ") == ("192.168.7.9", 18999)
