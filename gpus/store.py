"""The sampler's side of the database, in a thread of its own: a slow database never delays a
tick."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from django.db import DatabaseError
from django.utils import timezone

from gpus.buckets import prune_buckets, save_buckets
from gpus.discovery import save_rig
from gpus.models import Gpu, Host
from gpus.rollup import Bucket
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
        # As long as there is more, a few are deleted at each step.
        is_due = time.monotonic() - self._pruned_s >= PRUNE_EVERY_S
        if is_due and not prune_buckets(host):
            self._pruned_s = time.monotonic()
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
