"""Where no speed is predicted, the plan says which fact is missing and how to give it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.test import Client

from deployments.formats.gguf import read_header
from deployments.formats.model_facts import facts
from deployments.planning.from_header import model_shape
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
)
from deployments.services.plans import rig_facts
from deployments.strategies import get_strategy
from deployments.strategies.on_engine import plan_on_engine
from gpus.discovery import register_engine_devices
from gpus.models import Gpu, Host
from tests.deployments.gguf_corpus import smollm2

GIB = 1 << 30
CARD = DeviceFacts("CUDA0", "cuda", 8 * GIB, bandwidth_gbps=448.0, tflops=23.0)
HOST = DeviceFacts("CPU", "cpu", 16 * GIB, bandwidth_gbps=60.0, tflops=0.9)


def planned(flags: frozenset[str], device: DeviceFacts, host: DeviceFacts) -> Plan:
    header = read_header(smollm2())
    request = PlanRequest(
        "independent",
        EngineFacts("mine", "llama.cpp", "/bin/llama-server", flags),
        {"model": Member("m", "/m", facts(header), model_shape(header), (device,))},
        alias="m",
        host_devices=(device, host) if device != host else (host,),
        api_key_file="/k",
    )
    return plan_on_engine(get_strategy("independent"), request)


def test_a_card_of_known_speed_has_both_figures_and_no_words(
    real_flags: frozenset[str],
) -> None:
    found = planned(real_flags, CARD, HOST)
    assert found.predicted.decode_tps and found.predicted.prefill_tps
    assert not [each for each in found.reasons if each.code == "speed_unknown"]


@pytest.mark.parametrize(
    ("device", "says", "fix"),
    [
        (
            replace(CARD, bandwidth_gbps=None),
            "No speed is predicted: the memory bandwidth of CUDA0 is not known.",
            "Enter it in the administration, under Devices.",
        ),
        (
            replace(CARD, tflops=None),
            "No prompt speed is predicted: the arithmetic speed of CUDA0 is not known.",
            "Enter it in the administration, under Devices.",
        ),
        (
            replace(HOST, bandwidth_gbps=None),
            "No speed is predicted: the memory bandwidth of CPU is not known.",
            "Enter it in the administration, under Devices. The agent measures the host's memory"
            " when it starts.",
        ),
    ],
)
def test_a_fact_that_is_missing_is_named_with_the_way_to_give_it(
    real_flags: frozenset[str], device: DeviceFacts, says: str, fix: str
) -> None:
    found = planned(real_flags, device, device if device.kind == "cpu" else HOST)
    (reason,) = [each for each in found.reasons if each.code == "speed_unknown"]
    assert (reason.text, reason.fix, str(reason.severity)) == (says, fix, "info")
    assert found.predicted.prefill_tps is None
    assert bool(found.predicted.decode_tps) == bool(device.bandwidth_gbps)
    assert str(found.verdict) == "viable"


def test_what_an_administrator_enters_wins_and_outlives_the_next_scan(
    admin: Client, host: Host
) -> None:
    card = Gpu.objects.create(host=host, uuid="GPU-A", name="Card of tomorrow")
    listed = [{"name": "CUDA0", "description": card.name, "total_bytes": 8 * GIB}]
    register_engine_devices(host, listed)
    assert rig_facts(host, live=False)["CUDA0"].bandwidth_gbps is None

    device = host.devices.get(name="CUDA0")
    typed = {"position": 0, "bandwidth_gbps": "1234.5", "tflops": "56"}
    answer = admin.post(f"/admin/gpus/device/{device.pk}/change/", typed)
    assert answer.status_code == 302
    Gpu.objects.update(memory_bandwidth_gbps=900.0, tflops=30.0)
    register_engine_devices(host, listed)
    found = rig_facts(host, live=False)["CUDA0"]
    assert (found.bandwidth_gbps, found.tflops) == (1234.5, 56.0)

    refused = admin.post(
        f"/admin/gpus/device/{device.pk}/change/", {**typed, "bandwidth_gbps": "0"}
    )
    assert "greater than or equal to" in refused.content.decode()


def test_arithmetic_is_that_of_the_data_sheet_and_bandwidth_the_driver_s(
    host: Host,
) -> None:
    card = Gpu.objects.create(
        host=host,
        uuid="GPU-A",
        name="NVIDIA GeForce RTX 5090",
        memory_bandwidth_gbps=1850.0,
        tflops=134.5,
    )
    listed = [{"name": "CUDA0", "description": card.name, "total_bytes": 32 * GIB}]
    register_engine_devices(host, listed)
    found = rig_facts(host, live=False)["CUDA0"]
    assert (found.bandwidth_gbps, found.tflops) == (1850.0, 104.8)
    assert found.memory_kind == "GDDR7"
