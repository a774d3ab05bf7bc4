"""The sampler: one poller for the whole machine, in its own process, on a deadline that does not
drift."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from types import FrameType

import psutil
import redis
from django.conf import settings

from gpus.facts import latest_samples
from gpus.host import HostMeter, StandIn
from gpus.nvml import Nvml
from gpus.nvml_events import Xid, XidWatch
from gpus.recent import RecentWriter
from gpus.rollup import Roller
from gpus.sample import CardReader, CardSample, HostSample, Sample, with_host_memory
from gpus.store import Store
from omni.broadcast import publish_async
from omni.database import keep_connections
from omni.events import telemetry_group

log = logging.getLogger(__name__)

NVML_RETRY_S = 30.0
PUBLISH_TIMEOUT_S = 1.0


class Publisher:
    """Sends frames to everybody who looks. One event loop and with it one connection for all
    ticks."""

    def __init__(self, host_name: str) -> None:
        self.group = telemetry_group(host_name)
        self.recent = RecentWriter(host_name)
        self.loop = asyncio.new_event_loop()
        self.sequence = 0
        self.is_away = False

    def send(self, sample: Sample) -> None:
        frame = sample.frame()
        try:
            # Kept first: with the broker away nobody listens either, and one error is enough.
            has_viewers = self.recent.add(frame, sample.point())
        except (redis.RedisError, OSError) as error:
            self._say(True, str(error))
            return
        self.sequence += 1
        if has_viewers:
            self.loop.run_until_complete(self._publish(sample.live_frame()))
        self._say(False)

    async def _publish(self, frame: str) -> None:
        message = {"type": "telemetry.frame", "sequence": self.sequence, "frame": frame}
        try:
            await asyncio.wait_for(
                publish_async(self.group, message), PUBLISH_TIMEOUT_S
            )
        except TimeoutError:
            log.warning(
                "the broker took longer than %.0f s for a frame", PUBLISH_TIMEOUT_S
            )

    def _say(self, is_away: bool, error: str = "") -> None:
        if is_away != self.is_away:
            if is_away:
                text = f"the broker is away, nothing is published: {error}"
            else:
                text = "the broker is back"
            log.warning(text)
        self.is_away = is_away


class Sampler:
    """`tick` takes one sample, publishes it and hands closed roll-ups to the store."""

    def __init__(self, host_name: str) -> None:
        self.nvml = Nvml()
        self.readers: tuple[CardReader, ...] = (self.nvml,)
        self.xids = XidWatch()
        self.host = HostMeter()
        self.stand_ins: dict[str, StandIn] = {}
        self.roller = Roller()
        self.publisher = Publisher(host_name)
        self.store = Store(host_name)
        self.nvml_due_s = float("-inf")
        self.saved_rig: object = None

    def tick(self) -> Sample:
        now_s = time.monotonic()
        self._keep_nvml(now_s)
        self._keep_stand_ins()
        host = self.host.sample()
        cards = [
            *self._cards(now_s, host),
            *(stand_in.sample(now_s) for stand_in in self.stand_ins.values()),
        ]
        sample = Sample(int(time.time() * 1000), host, tuple(cards), self.nvml.state)
        self.publisher.send(sample)
        closed = self.roller.add(sample.at_ms / 1000, sample.metrics())
        if closed:
            self.store.keep_samples(closed, sample.cards)
        return sample

    def _cards(self, now_s: float, host: HostSample) -> list[CardSample]:
        with_links = self.publisher.recent.wants_links
        cards = [
            card
            for reader in self.readers
            for card in reader.sample(now_s, with_links=with_links)
        ]
        return with_host_memory(
            self._with_xids(cards), host.ram_used_bytes, host.ram_total_bytes
        )

    def _with_xids(self, cards: Iterable[CardSample]) -> list[CardSample]:
        last = self.xids.last
        return [
            replace(card, xid=last[card.key].code, xid_at_ms=last[card.key].at_ms)
            if card.key in last
            else card
            for card in cards
        ]

    def _keep_nvml(self, now_s: float) -> None:
        """A driver that is loaded later, or again, is found without a restart."""
        if now_s >= self.nvml_due_s and self.nvml.is_worth_a_restart:
            self.nvml_due_s = now_s + NVML_RETRY_S
            if self.nvml.state.is_ok:
                self.xids.stop()
                self.nvml.stop()
            if self.nvml.start().is_ok:
                self.xids.start()
        self.nvml.rename(self.store.names)
        rig = (self.nvml.state, self.nvml.identities)
        if rig != self.saved_rig:
            self.saved_rig = rig
            self.store.keep_rig(*rig)

    def _keep_stand_ins(self) -> None:
        ports = self.store.stand_ins
        if ports != {name: stand_in.port for name, stand_in in self.stand_ins.items()}:
            self.stand_ins = {
                name: self._stand_in(name, port) for name, port in ports.items()
            }

    def _stand_in(self, name: str, port: int) -> StandIn:
        known = self.stand_ins.get(name)
        if known and known.port == port:
            return known
        return StandIn(name, port)

    def close(self) -> None:
        """Saves the bucket that was being filled."""
        self.xids.stop()
        self.store.keep_samples(self.roller.close(), ())
        self.store.stop()


def xids_before(host_name: str) -> dict[str, Xid]:
    """What the sampler before this one has heard of since the machine started."""
    started_ms = psutil.boot_time() * 1000
    return {
        card.key: Xid(card.xid, card.xid_at_ms)
        for card in latest_samples(host_name)
        if card.xid is not None and (card.xid_at_ms or 0) > started_ms
    }


def run(host_name: str, parent_pid: int) -> None:
    """Until SIGTERM, or until the agent that started it is gone."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    keep_connections()
    sampler = Sampler(host_name)
    sampler.xids.last |= xids_before(host_name)
    sampler.store.start()
    deadline = Deadline(1.0 / settings.OMNI_TELEMETRY_HZ)
    while not stopping and os.getppid() == parent_pid:
        deadline.wait()
        sampler.tick()
    sampler.close()


class Deadline:
    """Even beats: a tick that took too long is left out, not caught up."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.due_s = time.monotonic()

    def wait(self) -> None:
        self.due_s += self.interval_s
        late_s = time.monotonic() - self.due_s
        if late_s > 0:
            self.due_s += self.interval_s * (1 + late_s // self.interval_s)
        time.sleep(max(0.0, self.due_s - time.monotonic()))
