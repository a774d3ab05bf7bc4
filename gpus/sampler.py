"""The sampler: one poller for the whole machine, in its own process, on a deadline that does not drift."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime, timedelta

import redis
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from gpus.host import StandIn, host_sample
from gpus.models import Gpu, Host, SampleRollup
from gpus.nvml import Nvml
from gpus.recent import RecentWriter
from gpus.rollup import FINEST_S, KEEP_S, Bucket, Roller, coarser
from gpus.sample import CardSample, Sample
from omni.broadcast import publish_async
from omni.events import telemetry_group

log = logging.getLogger(__name__)

DEVICES_EVERY_S, PRUNE_EVERY_S, NVML_RETRY_S = 3.0, 600.0, 30.0


class Sampler:
    """`tick` takes one sample, publishes it and keeps the roll-ups."""

    def __init__(self, host_name: str) -> None:
        self.host_name = host_name
        self.nvml = Nvml()
        self.stand_ins: dict[str, StandIn] = {}
        self.roller = Roller()
        self.recent = RecentWriter(host_name)
        self.sequence = 0
        self.unsaved: list[Bucket] = []
        self.nvml_tried_s = self.devices_read_s = self.pruned_s = float("-inf")

    def tick(self) -> Sample:
        now_s = time.monotonic()
        self._keep_nvml(now_s)
        self._keep_stand_ins(now_s)
        sample = self._take(now_s)
        self._publish(sample)
        self.unsaved += self.roller.add(sample.at_ms / 1000, sample.metrics())
        if self.unsaved:
            self._save(now_s, sample.cards)
        return sample

    def _keep_nvml(self, now_s: float) -> None:
        """A driver that is loaded later is found without a restart."""
        if self.nvml.state.state != "ok" and now_s - self.nvml_tried_s >= NVML_RETRY_S:
            self.nvml_tried_s = now_s
            self.nvml.start()

    def _keep_stand_ins(self, now_s: float) -> None:
        if now_s - self.devices_read_s < DEVICES_EVERY_S:
            return
        self.devices_read_s = now_s
        try:
            host = Host.objects.filter(name=self.host_name).first()
            devices = list(host.devices.filter(is_stand_in=True, is_present=True)) if host else []
        except DatabaseError as error:
            return log.warning("devices not read: %s", error)
        ports = {device.name: int(device.endpoint.rpartition(":")[2]) for device in devices}
        kept = {name: known for name, known in self.stand_ins.items() if ports.get(name) == known.port}
        self.stand_ins = {name: kept.get(name) or StandIn(name, port) for name, port in ports.items()}

    def _take(self, now_s: float) -> Sample:
        cards = [*self.nvml.sample(now_s), *(s.sample(now_s) for s in self.stand_ins.values())]
        return Sample(int(time.time() * 1000), host_sample(), tuple(cards), self.nvml.state)

    def _publish(self, sample: Sample) -> None:
        self.sequence += 1
        message = {"type": "telemetry.frame", "sequence": self.sequence, "frame": sample.frame()}
        _publish(telemetry_group(self.host_name), message)
        try:
            self.recent.add(sample.point())
        except (redis.RedisError, OSError) as error:
            log.warning("the last minutes were not kept: %s", error)

    def _save(self, now_s: float, cards: tuple[CardSample, ...]) -> None:
        """Closed buckets in one batch; what cannot be written now is tried with the next one."""
        try:
            host = Host.objects.get_or_create(name=self.host_name)[0]
            save_buckets(host, self.unsaved)
            for card in cards:
                known = Gpu.objects.filter(uuid=card.key).exclude(state=card.state)
                known.update(state=card.state, error=card.error[:300], seen_at=timezone.now())
            self.unsaved = []
            if now_s - self.pruned_s >= PRUNE_EVERY_S:
                self.pruned_s = now_s
                prune(host)
        except DatabaseError as error:
            self.unsaved = self.unsaved[-5000:]
            log.warning("roll-ups not written yet: %s", error)
        close_old_connections()


_publish = async_to_sync(publish_async)


def save_buckets(host: Host, buckets: list[Bucket]) -> None:
    """Writes the finest buckets and brings the coarser ones they fall into up to date."""
    _write(host, buckets, FINEST_S)
    finer_s = FINEST_S
    for resolution_s in sorted(KEEP_S)[1:]:
        starts = {bucket.start_s // resolution_s * resolution_s for bucket in buckets}
        for start_s in starts:
            span = (_time(start_s), _time(start_s + resolution_s))
            rows = SampleRollup.objects.filter(host=host, resolution_s=finer_s, start__gte=span[0], start__lt=span[1])
            _write(host, coarser(map(_bucket, rows), resolution_s), resolution_s)
        finer_s = resolution_s


def _write(host: Host, buckets: list[Bucket], resolution_s: int) -> None:
    rows = [
        SampleRollup(
            host=host, card=b.card, metric=b.metric, resolution_s=resolution_s, start=_time(b.start_s),
            minimum=b.minimum, mean=b.mean, maximum=b.maximum, count=b.count,
        )
        for b in buckets
    ]  # fmt: skip
    SampleRollup.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["host", "card", "metric", "resolution_s", "start"],
        update_fields=["minimum", "mean", "maximum", "count"],
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _bucket(row: SampleRollup) -> Bucket:
    start_s = int(row.start.timestamp())
    return Bucket(row.card, row.metric, start_s, row.minimum, row.mean, row.maximum, row.count)


def prune(host: Host) -> None:
    for resolution_s, keep_s in KEEP_S.items():
        oldest = timezone.now() - timedelta(seconds=keep_s)
        SampleRollup.objects.filter(host=host, resolution_s=resolution_s, start__lt=oldest).delete()


def run(host_name: str) -> None:
    """Until the agent that started it is gone. A tick that takes too long is left out, not caught up."""
    parent = os.getppid()
    sampler = Sampler(host_name)
    interval_s = 1.0 / settings.OMNI_TELEMETRY_HZ
    due_s = time.monotonic()
    while os.getppid() == parent:
        sampler.tick()
        due_s += interval_s
        late_s = time.monotonic() - due_s
        if late_s > 0:
            due_s += interval_s * (1 + late_s // interval_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
