"""Watches the machine while a benchmark runs: its cards, its processors, and who else uses them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import redis
from django.conf import settings
from django.db import DatabaseError, connections

from deployments.bench import machine
from deployments.bench.conditions import CardSeen, Conditions, environment
from deployments.bench.watched import (
    MOST_GAP_S,
    UTILISATION_S,
    Counters,
    Frame,
    Place,
    Seen,
    Span,
    conditions_of,
)
from deployments.models import Instance
from gpus.host import cores
from gpus.models import Device
from gpus.recent import FrameReader
from gpus.sample import CardSample, read_card

log = logging.getLogger(__name__)

T = TypeVar("T", Frame, Counters)

EVERY_S = 0.5
# Rows of engines are written by the agent, every two seconds.
ROWS_EVERY_S = 2.0
FIRST_LOOK_S = 5.0
# An hour; a longer block is not known from its beginning, and says so.
KEPT = 7200


class Watch:
    """As a context around a run: a thread looks twice a second, and `conditions` tells what it saw.

    `host_name` is where the engines are; `own` are the names of the deployments that are measured,
    engines of all others are other load. On another host, without a broker or without a driver
    figures are None, and Conditions.unknown says why. Nothing here raises because something cannot
    be seen.

        with Watch(host_name, own=names) as watch:
            …                                              # a block: a Run
            seen = watch.conditions(run.began_s, run.ended_s, devices)
            run = replace(run, energy_joules=seen.energy_joules)
            blocks.append((str(arm), number, seen))
        found = marks(blocks)                              # of deployments.bench.conditions
        document["environment"]["conditions"] = watch.environment()

    `conditions` may be asked from any thread, also where an event loop runs; it takes a few
    milliseconds. To be asked soon after each block: an hour is kept.
    """

    def __init__(self, host_name: str, own: Collection[str]) -> None:
        self.host_name = host_name
        self.own = frozenset(own)
        self.is_here = host_name == settings.OMNI_HOST_NAME
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._has_looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

        self._frames: deque[Frame] = deque(maxlen=KEPT)
        self._counters: deque[Counters] = deque(maxlen=KEPT)
        self._cards: dict[str, CardSeen] = {}
        self._driver = ""
        self._places: dict[str, Place] = {}
        # A measured deployment whose server is not a process of Omni's.
        self._external: str | None = ""
        self._measured: set[int] = set()
        self._others: set[int] = set()
        self._machine: machine.Machine | None = None
        self._why_no_frames = ""
        self._why_no_counters = ""
        self._rows_due_s = float("-inf")
        self._block_ended_s = float("inf")

    def __enter__(self) -> Watch:
        self._block_ended_s = time.perf_counter()
        if not self.is_here:
            self._why_no_counters = f"{self.host_name} is another machine."
        elif not machine.has_counters():
            self._why_no_counters = "this system does not tell it."
        else:
            self._machine = machine.Machine(settings.OMNI_HOME.root)
        self._thread.start()
        self._has_looked.wait(FIRST_LOOK_S)
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join(FIRST_LOOK_S)

    def conditions(
        self, began_s: float, ended_s: float, devices: Sequence[str]
    ) -> Conditions:
        """How the machine was from then to then, by time.perf_counter, as a Run has it.

        `devices` are the names of all devices of the deployment.
        """
        with self._lock:
            self._count()
            span = Span(began_s, ended_s, min(self._block_ended_s, began_s))
            self._block_ended_s = ended_s
            why_no_counters = self._why_not_counted()
            counters = () if why_no_counters else _since(self._counters, span.since_s)
            seen = Seen(
                frames=_since(self._frames, span.since_s),
                counters=counters,
                cores=cores() if self.is_here else None,
                why_no_frames=self._why_no_frames,
                why_no_counters=why_no_counters,
            )
            places = [self._place(name) for name in dict.fromkeys(devices)]
        return conditions_of(seen, span, places)

    def environment(self) -> dict[str, Any]:
        """Driver and cards from the beginning of the run until now, as JSON has it."""
        with self._lock:
            return environment(
                self._driver,
                list(self._cards.values()),
                cores() if self.is_here else None,
            )

    def _why_not_counted(self) -> str:
        if self._external:
            return (
                f"the work of {self._external}'s external server would be a part of it."
            )
        return self._why_no_counters

    def _place(self, name: str) -> Place:
        """One that is not in the database is a device of which nothing is known."""
        return self._places.get(name, Place(name, name, is_on_cpu=False))

    # --- its thread -------------------------------------------------------------------------------
    def _run(self) -> None:
        reader = FrameReader(self.host_name)
        try:
            while True:
                self._look(reader)
                self._has_looked.set()
                if self._over.wait(EVERY_S):
                    return
        finally:
            reader.close()
            connections.close_all()

    def _look(self, reader: FrameReader) -> None:
        now_s = time.perf_counter()
        if now_s >= self._rows_due_s:
            self._rows_due_s = now_s + ROWS_EVERY_S
            self._read_rows()
        with self._lock:
            self._count()
        self._read_frame(reader)

    def _count(self) -> None:
        if self._machine is None:
            return
        try:
            self._machine.look(self._measured, self._others)
            self._counters.append(self._machine.read())
        except OSError as error:
            log.warning("the processors' counters cannot be read: %s", error)

    def _read_frame(self, reader: FrameReader) -> None:
        try:
            frame = reader.news()
        except (redis.RedisError, OSError) as error:
            if not self._why_no_frames:
                log.warning("the watch does not reach the broker: %s", error)
            self._why_no_frames = "the broker is away."
            return
        self._why_no_frames = ""
        # What lies there at the beginning may be old.
        is_news = frame is not None and self._has_looked.is_set()
        if frame and (is_news or self.is_here):
            with self._lock:
                self._take(frame)

    def _take(self, frame: Mapping[str, Any]) -> None:
        cards = {card["key"]: read_card(card) for card in frame["cards"]}
        self._frames.append(Frame(self._time_of(frame), cards, frame["nvml"]["text"]))
        self._driver = frame["nvml"]["driver_version"]
        for card in cards.values():
            if not card.is_stand_in:
                self._cards[card.key] = _widened(self._cards.get(card.key), card)

    def _time_of(self, frame: Mapping[str, Any]) -> float:
        """When it was made, by this process's clock; another machine's clock may be off."""
        now_s = time.perf_counter()
        if not self.is_here:
            return now_s
        age_s = time.time() - float(frame["at"]) / 1000
        return now_s - age_s

    def _read_rows(self) -> None:
        try:
            devices = Device.objects.filter(host__name=self.host_name)
            places = {row.name: _place_of(row) for row in devices.select_related("gpu")}
            instances = Instance.objects.filter(host__name=self.host_name)
            rows = list(instances.values_list("deployment__name", "pid", "address"))
        except DatabaseError as error:
            log.warning("the watch does not reach the database: %s", error)
            connections.close_all()
            return
        # A server behind a device belongs to no deployment.
        is_own = {None, *self.own}
        pids = {pid: name in is_own for name, pid, _ in rows if pid is not None}
        external = [name for name, _, address in rows if address and name in self.own]
        with self._lock:
            self._places = places
            self._measured = {pid for pid in pids if pids[pid]}
            self._others = pids.keys() - self._measured
            self._external = external[0] if external else ""


def _since(samples: deque[T], at_s: float) -> tuple[T, ...]:
    """What belongs to the time from then on, with a few samples from before."""
    recent = takewhile(
        lambda sample: sample.at_s >= at_s - UTILISATION_S - MOST_GAP_S,
        reversed(samples),
    )
    return tuple(recent)[::-1]


def _place_of(device: Device) -> Place:
    """A server on another machine computes there: nothing of it is in the frames of this one."""
    is_cpu = device.kind == Device.Kind.CPU
    return Place(
        device.name,
        "" if is_cpu else device.card_key,
        is_on_cpu=is_cpu or device.is_stand_in,
    )


def _widened(seen: CardSeen | None, card: CardSample) -> CardSeen:
    before = seen or CardSeen(card.name)
    return CardSeen(
        card.name,
        card.power_limit_watts or before.power_limit_watts,
        min(_known(before.least_clock_mhz, card.clock_mhz), default=None),
        max(_known(before.most_clock_mhz, card.clock_mhz), default=None),
        min(_known(before.least_celsius, card.temperature_celsius), default=None),
        max(_known(before.most_celsius, card.temperature_celsius), default=None),
    )


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]
