"""The watch on this machine: real processes, a real broker, and a sampler with stand-in cards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from django.conf import settings

from deployments.bench.conditions import Conditions, marks
from deployments.bench.machine import Machine
from deployments.bench.watching import Watch
from deployments.models import Deployment, Engine, Instance
from gpus.models import Device, Gpu, Host
from gpus.recent import FrameReader, RecentWriter
from gpus.sampler import Sampler
from tests.fakes.nvml import FakeCard, rtx_5090, rtx_pro_6000
from tests.gpus.conftest import cards, driver, library  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)
Driver = Callable[..., None]
HERE = settings.OMNI_HOST_NAME
BLOCK_S = 2.5
THERMAL_BIT = 0x40
POWER_CAP_BIT = 0x4


@pytest.fixture
def rig() -> Host:
    """CUDA0 and CUDA1 are the two stand-in cards."""
    host = Host.objects.create(name=HERE)
    for index, card in enumerate((rtx_pro_6000(), rtx_5090())):
        gpu = Gpu.objects.create(host=host, uuid=card.uuid, index=index, name=card.name)
        Device.objects.create(host=host, name=f"CUDA{index}", kind="cuda", gpu=gpu)
    Device.objects.create(host=host, name="CPU", kind="cpu")
    return host


def engine_of(host: Host, name: str, pid: int | None, **more: Any) -> None:
    engine, _ = Engine.objects.get_or_create(
        host=host, name="llama.cpp", path="/bin/true"
    )
    deployment = Deployment.objects.create(host=host, name=name, engine=engine)
    Instance.objects.create(
        host=host, deployment=deployment, role="model", pid=pid, **more
    )


@pytest.fixture
def sampling(driver: Driver, rig: Host) -> Iterator[Driver]:  # noqa: F811
    """A sampler that ticks as fast as its process would; says what the driver answers."""
    driver(rtx_pro_6000(), rtx_5090())
    sampler = Sampler(HERE)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1 / settings.OMNI_TELEMETRY_HZ):
            sampler.tick()

    sampler.tick()
    thread = threading.Thread(target=tick)
    thread.start()
    yield driver
    over.set()
    thread.join()


@contextmanager
def busy(*, is_child: bool) -> Iterator[psutil.Process]:
    """A process that computes without end; one that is no child has no parent here."""
    loop = [sys.executable, "-c", "while True: pass"]
    if is_child:
        pid = subprocess.Popen(loop).pid
    else:
        script = '"$@" >/dev/null & echo $!'
        told = subprocess.check_output(["sh", "-c", script, "sh", *loop])
        pid = int(told)
    process = psutil.Process(pid)
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def block(watch: Watch, *devices: str, seconds: float = BLOCK_S) -> Conditions:
    began_s = time.perf_counter()
    time.sleep(seconds)
    return watch.conditions(began_s, time.perf_counter(), devices)


def share_during(process: psutil.Process, watch: Watch) -> tuple[float, Conditions]:
    """The cores that the process took during a block, by its own count."""
    began_s, before = time.perf_counter(), process.cpu_times()
    seen = block(watch, "CPU")
    after, took_s = process.cpu_times(), time.perf_counter() - began_s
    cores = (after.user + after.system - before.user - before.system) / took_s
    return cores, seen


# --- cards ----------------------------------------------------------------------------------------
def test_cards_are_seen_through_the_sampler(sampling: Driver) -> None:
    with Watch(HERE, own=()) as watch:
        seen = block(watch, "CUDA0", "CUDA1")
        told = watch.environment()

    assert seen.energy_joules == pytest.approx((410.0 + 21.5) * seen.seconds)
    assert seen.peak_memory_bytes == (40000 + 512) << 20
    # The other one is idle.
    assert seen.clocks_mhz == {"CUDA0": 2600.0}
    assert seen.throttle == {}
    assert seen.temperature_celsius == 58.0
    assert not seen.computes_on_cpu
    big, small = told["cards"]
    assert big["clock_mhz"] == {"least": 2600.0, "most": 2600.0}
    assert small["power_limit_watts"] == 575.0
    assert told["driver"]


def reasons(card: FakeCard, bits: int) -> FakeCard:
    return replace(card, facts={**card.facts, "reasons": bits})


def test_a_card_that_throttles_marks_the_block_in_which_it_did(
    sampling: Driver,
) -> None:
    with Watch(HERE, own=()) as watch:
        first = block(watch, "CUDA0")
        sampling(reasons(rtx_pro_6000(), THERMAL_BIT | POWER_CAP_BIT), rtx_5090())
        # The sampler may be about to send what it saw before.
        block(watch, "CUDA0", seconds=1.0)
        second = block(watch, "CUDA0")

    assert first.throttle == {}
    assert set(second.throttle["CUDA0"]) == {"temperature (hardware)", "power limit"}
    found = marks([("plain", 1, first), ("plain", 2, second)])
    slower = (
        "CUDA0 ran slower than it could (temperature (hardware)): plain in round 2."
    )
    assert slower in found.warnings
    assert any("power limit in 50 %" in note for note in found.notes)


def test_a_card_at_work_without_our_engines_is_somebody_elses(sampling: Driver) -> None:
    with Watch(HERE, own=()) as watch:
        block(watch, "CUDA0", seconds=1.0)
        seen = block(watch, "CUDA0")
    assert seen.idle_use_percent == {"CUDA0": pytest.approx(62.0)}


def test_a_card_is_not_somebody_elses_while_an_engine_starts(sampling: Driver) -> None:
    """No row tells of it yet; it is a process of Omni's that works."""
    with Watch(HERE, own=()) as watch, busy(is_child=True):
        block(watch, "CUDA0", seconds=1.0)
        watch.conditions(time.perf_counter(), time.perf_counter(), ("CUDA0",))
        seen = block(watch, "CUDA0")
    assert seen.clocks_mhz and seen.idle_use_percent == {}


def test_without_a_driver_figures_are_none_and_the_reason_is_told(
    sampling: Driver,
) -> None:
    sampling(init=9)
    with Watch(HERE, own=()) as watch:
        seen = block(watch, "CUDA0", "CPU")
        alone = block(watch, "NOSUCH")
    assert (seen.energy_joules, seen.peak_memory_bytes) == (None, None)
    assert any("CPU has no sensor" in why for why in seen.unknown)
    assert any("NOSUCH told its power too seldom" in why for why in alone.unknown)


def test_a_frame_is_read_once(rig: Host) -> None:
    reader = FrameReader("read-once")
    writer = RecentWriter("read-once")
    writer.client.delete(writer.frame, writer.links)
    writer.add('{"at": 4}', "[]")
    # Nobody looks: then the links are not read, which takes time.
    assert not writer.wants_links
    writer.client.delete(writer.frame)
    assert reader.news() is None
    writer.add('{"at": 5}', "[]")
    assert (reader.news(), reader.news()) == ({"at": 5}, None)
    writer.add('{"at": 6}', "[]")
    assert reader.news() == {"at": 6}
    assert writer.wants_links
    reader.close()


def test_a_broker_that_is_away_is_told_and_disturbs_nothing(
    rig: Host, tmp_path: Path, settings: Any
) -> None:
    settings.CHANNEL_REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    with pytest.raises(redis.RedisError):
        FrameReader(HERE).news()
    with Watch(HERE, own=()) as watch:
        seen = block(watch, "CUDA0", seconds=1.0)
    assert seen.energy_joules is None and seen.other_cpu_cores is not None
    assert any("the broker is away" in why for why in seen.unknown)


# --- the processor --------------------------------------------------------------------------------
def test_a_busy_loop_is_other_load_and_marks_the_block(rig: Host) -> None:
    with busy(is_child=False) as loop, Watch(HERE, own=()) as watch:
        took, seen = share_during(loop, watch)

    assert seen.other_cpu_cores is not None
    assert seen.other_cpu_cores >= 0.9 * took - 0.05
    # Where the loop itself got little, others took the rest.
    said = [text for text in marks([("plain", 1, seen)]).warnings if "Other" in text]
    assert said and said[0].endswith("busy in 1 of 1 blocks: plain in round 1.")


def test_what_this_process_starts_is_no_other_load(rig: Host) -> None:
    with Watch(HERE, own=()) as watch, busy(is_child=True) as child:
        took, seen = share_during(child, watch)
    assert seen.own_cpu_cores is not None and seen.own_cpu_cores >= 0.9 * took - 0.05


def test_a_measured_engine_is_no_other_load_but_another_one_is(rig: Host) -> None:
    """Neither is a child of this process, as engines are not of a benchmark's."""
    with busy(is_child=False) as loop:
        engine_of(rig, "plain", loop.pid)
        with Watch(HERE, own=("plain",)) as watch:
            took, seen = share_during(loop, watch)
        with Watch(HERE, own=("other",)) as watch:
            took_again, as_other = share_during(loop, watch)

    assert seen.own_cpu_cores is not None and as_other.own_cpu_cores is not None
    assert seen.own_cpu_cores >= 0.9 * took - 0.05
    assert as_other.own_cpu_cores < 0.5 * took_again
    assert as_other.other_cpu_cores is not None
    assert as_other.other_cpu_cores >= 0.9 * took_again - 0.05


def test_an_engine_that_another_one_is_started_for_is_known_by_its_tree(
    rig: Host,
) -> None:
    """A child of this process that is an engine of a deployment that is not measured."""
    with busy(is_child=True) as child:
        engine_of(rig, "busy-one", child.pid)
        with Watch(HERE, own=("plain",)) as watch:
            took, seen = share_during(child, watch)
    assert seen.other_cpu_cores is not None
    assert seen.other_cpu_cores >= 0.9 * took - 0.05


def test_what_ended_during_a_block_was_own_work_too(rig: Host) -> None:
    """Its time goes into that of its parent: it is neither lost nor counted twice."""
    burn = "import time\nwhile time.process_time() < 0.6: pass"
    with Watch(HERE, own=()) as watch:
        began_s, own_s = time.perf_counter(), time.process_time()
        for _ in range(3):
            subprocess.run([sys.executable, "-c", burn], check=True)
        own_s = time.process_time() - own_s
        seen = watch.conditions(began_s, time.perf_counter(), ("CPU",))
    assert seen.own_cpu_cores is not None
    counted_s = seen.own_cpu_cores * seen.seconds
    assert 3 * 0.6 + own_s - 0.1 <= counted_s <= 3 * 0.75 + own_s + 0.3


def test_an_external_server_cannot_be_told_from_other_load(rig: Host) -> None:
    engine_of(rig, "elsewhere", None, address="http://127.0.0.1:9/")
    with Watch(HERE, own=("elsewhere",)) as watch:
        seen = block(watch, "CPU", seconds=1.0)
    assert seen.other_cpu_cores is None
    assert any("elsewhere's external server" in why for why in seen.unknown)


def test_another_host_is_not_measured_by_this_machine(rig: Host) -> None:
    with Watch("far-away", own=()) as watch:
        seen = block(watch, "CPU", seconds=1.0)
    assert (seen.other_cpu_cores, seen.swapped_bytes, seen.cores) == (None,) * 3
    assert any("far-away is another machine" in why for why in seen.unknown)


async def test_it_may_be_asked_where_an_event_loop_runs(rig: Host) -> None:
    with Watch(HERE, own=()) as watch:
        began_s = time.perf_counter()
        await asyncio.sleep(0.6)
        seen = watch.conditions(began_s, time.perf_counter(), ("CPU",))
    assert seen.other_cpu_cores is not None and seen.cores
    assert seen.computes_on_cpu


def test_the_parts_of_a_panel_are_found_by_their_home(
    rig: Host, tmp_path: Path
) -> None:
    """A web server that somebody else started for this OMNI_HOME, and one of another home."""
    program = tmp_path / "manage.py"
    program.write_text("import sys\nprint(flush=True)\nsys.stdin.read()\n")
    homes = (str(settings.OMNI_HOME.root), "/nowhere")
    parts = [
        subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, "OMNI_HOME": home},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for home in homes
    ]
    try:
        for part in parts:
            assert part.stdout and part.stdout.readline()
        machine = Machine(settings.OMNI_HOME.root)
        machine.look((), ())
        assert machine.parts == {parts[0].pid}
    finally:
        for part in parts:
            part.communicate()
