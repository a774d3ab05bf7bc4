"""The sampler's side of the database, in a thread of its own: a slow database never delays a
tick."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError
from django.utils import timezone

from gpus.discovery import save_rig
from gpus.models import Gpu, Host, SampleRollup
from gpus.rollup import FINEST_S, KEEP_S, Bucket, coarser
from gpus.sample import CardIdentity, CardSample, NvmlState
from omni.database import let_go

log = logging.getLogger(__name__)

STEP_EVERY_S = 5.0
PRUNE_EVERY_S = 600.0
# About an hour of ten cards, should the database be away that long.
KEPT_UNSAVED = 20_000


class Store:
    """`keep_*` hand over and return at once; `step` does the work; `stand_ins` and `names` are what
    it read."""

    def __init__(self, host_name: str) -> None:
        self.host_name = host_name
        self.stand_ins: dict[str, int] = {}
        self.names: dict[int, CardIdentity] = {}
        self._buckets: deque[Bucket] = deque(maxlen=KEPT_UNSAVED)
        self._states: dict[str, CardSample] = {}
        self._rig: tuple[NvmlState, Sequence[CardIdentity]] | None = None
        self._host: Host | None = None
        self._pruned_s = float("-inf")
        self._is_failing = False
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    # --- the sampler's thread ---------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.5) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def keep_rig(self, state: NvmlState, identities: Sequence[CardIdentity]) -> None:
        self._rig = (state, identities)
        self._wake.set()

    def keep_samples(
        self, buckets: Iterable[Bucket], cards: Iterable[CardSample]
    ) -> None:
        self._states = {card.key: card for card in cards if not card.is_stand_in}
        self._buckets.extend(buckets)
        self._wake.set()

    # --- its own thread ---------------------------------------------------------------------------
    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping
            self._wake.clear()
            self.step()
            let_go()
            if not is_last:
                self._wake.wait(STEP_EVERY_S)

    def step(self) -> bool:
        """Writes what waits and reads the devices; False when the database did not take part."""
        try:
            self._write()
            return True
        except DatabaseError as error:
            if not self._is_failing:
                log.warning(
                    "the database does not take telemetry; it is kept meanwhile: %s",
                    error,
                )
            self._is_failing = True
            # It may be the host's row that is gone.
            self._host = None
            return False

    def _write(self) -> None:
        host = self._host = (
            self._host or Host.objects.get_or_create(name=self.host_name)[0]
        )
        rig = self._rig
        if rig:
            self.names = save_rig(host, *rig)
            self._rig = None if self._rig is rig else self._rig
        count = len(self._buckets)
        if count:
            save_buckets(host, [self._buckets[place] for place in range(count)])
            for _ in range(count):
                self._buckets.popleft()
            save_states(host, self._states.values())
        if time.monotonic() - self._pruned_s >= PRUNE_EVERY_S:
            self._pruned_s = time.monotonic()
            prune(host)
        devices = host.devices.filter(is_stand_in=True, is_present=True).values_list(
            "name", "endpoint"
        )
        self.stand_ins = {
            name: int(endpoint.rpartition(":")[2]) for name, endpoint in devices
        }
        if self._is_failing:
            log.warning("the database takes telemetry again")
        self._is_failing = False


def save_states(host: Host, cards: Iterable[CardSample]) -> None:
    now = timezone.now()
    for card in cards:
        row = host.gpus.filter(uuid=card.key)
        if card.state == "ok":
            row.update(state=Gpu.State.OK, error="", seen_at=now)
        else:
            row.update(state=card.state, error=card.error[:300])


def save_buckets(host: Host, buckets: Sequence[Bucket]) -> None:
    """Writes the finest buckets, and each coarser one of which the last finer part has come."""
    _write(host, buckets, FINEST_S)
    finer_s = FINEST_S
    finer_starts = {bucket.start_s for bucket in buckets}
    for resolution_s in sorted(KEEP_S)[1:]:
        starts = {
            start_s // resolution_s * resolution_s
            for start_s in finer_starts
            if (start_s + finer_s) % resolution_s == 0
        }
        for start_s in starts:
            _write(
                host,
                coarser(_buckets(host, finer_s, start_s, resolution_s), resolution_s),
                resolution_s,
            )
        finer_s = resolution_s
        finer_starts = starts


def _buckets(
    host: Host, resolution_s: int, start_s: int, length_s: int
) -> list[Bucket]:
    rows = SampleRollup.objects.filter(
        host=host,
        resolution_s=resolution_s,
        start__gte=_time(start_s),
        start__lt=_time(start_s + length_s),
    )
    fields = ("card", "metric", "start", "minimum", "mean", "maximum", "count")
    return [
        Bucket(card, metric, int(start.timestamp()), minimum, mean, maximum, count)
        for card, metric, start, minimum, mean, maximum, count in rows.values_list(
            *fields
        )
    ]


def _write(host: Host, buckets: Iterable[Bucket], resolution_s: int) -> None:
    rows = [
        SampleRollup(
            host=host,
            card=bucket.card,
            metric=bucket.metric,
            resolution_s=resolution_s,
            start=_time(bucket.start_s),
            minimum=bucket.minimum,
            mean=bucket.mean,
            maximum=bucket.maximum,
            count=bucket.count,
        )
        for bucket in buckets
    ]
    SampleRollup.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["host", "card", "metric", "resolution_s", "start"],
        update_fields=["minimum", "mean", "maximum", "count"],
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def prune(host: Host) -> None:
    for resolution_s, keep_s in KEEP_S.items():
        oldest = timezone.now() - timedelta(seconds=keep_s)
        SampleRollup.objects.filter(
            host=host, resolution_s=resolution_s, start__lt=oldest
        ).delete()
