"""The sampler as the agent runs it: its own process, even beats, alone through every outage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest
import redis
from asgiref.sync import sync_to_async
from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import channel_layers
from django.conf import settings

from gpus.facts import seen_now
from gpus.models import Gpu, HistorySubject, Host
from gpus.nvml_events import Xid
from gpus.recent import RecentWriter, last_frame, recent
from gpus.sample import CHARTED, KEPT
from gpus.sampler import Deadline, Sampler, xids_before
from omni.events import telemetry_group
from tests.fakes.nvml import gb10, rtx_5090, rtx_pro_6000
from tests.helpers import HandClock, wait_until

Driver = Callable[..., None]
MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


@pytest.fixture(autouse=True)
def nothing_recent() -> None:
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)
    writer = RecentWriter(settings.OMNI_HOST_NAME)
    client.delete(writer.points, writer.frame)


def frame() -> dict[str, object]:
    return json.loads(last_frame(settings.OMNI_HOST_NAME) or "{}")


def frames_come(since_ms: int = 0) -> bool:
    return int(str(frame().get("at", 0))) > since_ms


# --- one tick -------------------------------------------------------------------------------------
def test_one_tick_is_one_frame_with_the_host_and_every_card(
    driver: Driver, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.tick()
    seen = frame()
    assert seen["type"] == "frame" and seen["nvml"]["state"] == "ok"  # type: ignore[index]
    big, small = seen["cards"]  # type: ignore[misc]
    assert (big["power_watts"], big["utilisation_percent"]) == (410.0, 62.0)
    assert small["memory_total_bytes"] == 32607 << 20


async def test_frame_is_kept_without_a_viewer_and_sent_to_one(
    driver: Driver, host: Host
) -> None:
    layer = channel_layers[DEFAULT_CHANNEL_LAYER]
    group = telemetry_group(settings.OMNI_HOST_NAME)
    sampler = await sync_to_async(Sampler)(settings.OMNI_HOST_NAME)
    viewer = await layer.new_channel()

    await sync_to_async(sampler.tick)()
    await layer.group_add(group, viewer)
    await sync_to_async(sampler.tick)()

    try:
        assert (await layer.receive(viewer))["sequence"] == 2
        assert len(json.loads((await recent(settings.OMNI_HOST_NAME)).points)) == 2
    finally:
        await layer.group_discard(group, viewer)


async def test_a_tick_is_one_message_however_many_look(
    driver: Driver, host: Host
) -> None:
    layer = channel_layers[DEFAULT_CHANNEL_LAYER]
    group = telemetry_group(settings.OMNI_HOST_NAME)
    sampler = await sync_to_async(Sampler)(settings.OMNI_HOST_NAME)
    viewers = [await layer.new_channel() for _ in range(20)]
    for viewer in viewers:
        await layer.group_add(group, viewer)

    await sync_to_async(sampler.tick)()

    try:
        [key] = {layer.prefix + layer.non_local_name(viewer) for viewer in viewers}
        client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)
        assert client.zcard(key) == 1
        seen = [(await layer.receive(viewer))["sequence"] for viewer in viewers]
        assert seen == [1] * 20
    finally:
        for viewer in viewers:
            await layer.group_discard(group, viewer)
        await sync_to_async(sampler.publisher.loop.close)()


def test_cards_found_by_the_sampler_become_rows_and_keep_their_state(
    driver: Driver, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.tick()
    sampler.store.step()
    assert Gpu.objects.count() == 2
    driver(rtx_pro_6000(), rtx_5090(lines=("fail * 15",)))
    sampler.tick()
    sampler.store.keep_samples(sampler.roller.close(), sampler.tick().cards)
    sampler.store.step()
    assert Gpu.objects.get(name__contains="5090").state == "lost"
    assert Gpu.objects.get(name__contains="6000").state == "ok"


def test_a_driver_loaded_later_is_found(driver: Driver, host: Host) -> None:
    driver(init=9)
    sampler = Sampler(settings.OMNI_HOST_NAME)
    assert sampler.tick().cards == ()
    sampler.store.step()
    assert set(sampler.store.stand_ins) == {"RPC0", "RPC1"}
    driver(rtx_5090())
    sampler.nvml_due_s = 0.0
    assert [card.name for card in sampler.tick().cards if not card.is_stand_in] == [
        "NVIDIA GeForce RTX 5090"
    ]
    sampler.store.step()
    assert sampler.store.stand_ins == {}


def test_an_xid_error_stands_in_the_frames_of_its_card(
    driver: Driver, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    try:
        sampler.tick()
        wait_until(lambda: sampler.xids.is_watching, 5, "nobody waits for errors")
        driver(rtx_pro_6000(), rtx_5090(lines=("xid 79 1", "fail * 15")))
        wait_until(lambda: sampler.xids.last, 5, "the error was not heard of")
        sampler.tick()
    finally:
        sampler.xids.stop()
    big, small = frame()["cards"]  # type: ignore[misc]
    assert "xid" not in big and (small["xid"], small["state"]) == (79, "lost")
    assert abs(small["xid_at_ms"] - time.time() * 1000) < 60_000


def test_an_xid_error_outlives_the_sampler_and_is_known_to_the_doctor(
    driver: Driver, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    key = rtx_5090().uuid
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.tick()
    sampler.xids.stop()
    now_ms = int(time.time() * 1000)
    for at_ms, known in ((now_ms, {key: Xid(48, now_ms)}), (1000, {})):
        sampler.xids.last = {key: Xid(48, at_ms)}
        sampler.tick()
        # What was before the machine started is over.
        assert xids_before(settings.OMNI_HOST_NAME) == known
    sampler.xids.last = {key: Xid(48, now_ms)}
    sampler.tick()
    [found] = [each for each in seen_now(host).findings if each.code == "xid"]
    assert (found.severity, found.subject) == ("error", key)
    assert "ECC could not correct" in found.text and "Restart the machine" in found.fix


def test_a_card_without_memory_of_its_own_has_the_hosts(
    driver: Driver, host: Host
) -> None:
    driver(gb10())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.tick()
    sampler.xids.stop()
    sampler.store.step()
    [card], about = frame()["cards"], frame()["host"]  # type: ignore[misc]
    assert card["has_unified_memory"] and card["memory_used_bytes"] > 0
    assert card["memory_total_bytes"] == about["ram_total_bytes"]  # type: ignore[index]
    gpu = Gpu.objects.get()
    assert gpu.memory_bytes == card["memory_total_bytes"] and gpu.name == "NVIDIA GB10"


def test_beats_are_even_and_a_late_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HandClock()
    monkeypatch.setattr("gpus.sampler.time", clock)
    deadline = Deadline(0.25)

    deadline.wait()
    assert clock.now_s == 0.25

    clock.sleep(0.625)  # a tick that takes longer than two beats
    deadline.wait()
    assert clock.now_s == 1.0


# --- the process ----------------------------------------------------------------------------------
@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `manage.py sampler` in this test's OMNI_HOME, whose real database has no tables."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, str(MANAGE), "sampler", *arguments]
        process = subprocess.Popen(
            argv, env={**os.environ, **environment}, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=5)


def test_frames_come_at_the_set_rate_without_a_database(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start(OMNI_TELEMETRY_HZ="5")
    wait_until(frames_come, 15, "no frame")
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)
    key = RecentWriter(settings.OMNI_HOST_NAME).points
    wait_until(lambda: client.llen(key) >= 10, 10, "the last minutes are not kept")
    times = [json.loads(point)[0] for point in client.lrange(key, 0, 9)]  # type: ignore[union-attr]
    assert median(b - a for a, b in pairwise(times)) == pytest.approx(200, abs=25)
    assert process.poll() is None


def test_it_ends_when_its_agent_is_killed(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {str(MANAGE)!r}, 'sampler'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as agent:
        sampler = psutil.Process(int(agent.stdout.readline()))  # type: ignore[union-attr]
        wait_until(frames_come, 15, "no frame")
        agent.kill()
    with suppress(psutil.NoSuchProcess):
        wait_until(lambda: not _alive(sampler), 5, "the sampler outlives its agent")


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_it_never_starts_for_an_agent_that_is_gone_already(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait(5)
    assert start("--parent", str(gone.pid)).wait(15) == 0


def test_it_ends_at_once_when_asked(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start()
    wait_until(frames_come, 15, "no frame")
    process.terminate()
    assert process.wait(3) == 0


def test_it_waits_for_a_broker_that_is_away_and_says_so_once(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "valkey.sock"
    process = start(OMNI_BROKER_URL=f"unix://{path}?db=2", OMNI_TELEMETRY_HZ="10")
    real = settings.OMNI_HOME.valkey_socket
    said = process.stderr.readline().decode()  # type: ignore[union-attr]
    while "the broker is away" not in said:
        said += process.stderr.readline().decode()  # type: ignore[union-attr]
    seen = psutil.Process(process.pid)
    sleeps = seen.num_ctx_switches().voluntary
    wait_until(
        lambda: seen.num_ctx_switches().voluntary > sleeps + 10, 15, "it does not go on"
    )
    path.symlink_to(real)
    now_ms = int(time.time() * 1000)
    wait_until(lambda: frames_come(now_ms), 15, "no frame after the broker came")
    process.terminate()
    said += process.communicate(timeout=5)[1].decode()
    assert (
        said.count("the broker is away") == 1 and said.count("the broker is back") == 1
    )


@pytest.mark.django_db(transaction=True)
def test_what_was_being_collected_is_saved_at_the_end(driver: Driver) -> None:
    driver(rtx_5090())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.store.start()
    sampler.tick()
    sampler.close()
    card = HistorySubject.objects.exclude(key="host").get()
    assert card.buckets.exists()
    assert set(CHARTED) < set(card.metrics) <= set(KEPT)
