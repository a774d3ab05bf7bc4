"""What was seen of a machine at many moments, and what that comes to for one block.

Times are seconds of time.perf_counter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deployments.bench.conditions import Conditions
from gpus.energy import joules
from gpus.sample import CardSample

# Frames come twice a second. With a longer gap a power that was different in between is missed.
MOST_GAP_S = 3.0
# NVML's power is a mean of the second before: of fewer samples most is not of the block itself.
LEAST_POWER_SAMPLES = 3
# The kernel counts in ticks of 10 ms, for each core: in less time than this they are a tenth of it.
LEAST_SECONDS = 0.5
# An engine that computes on a card hands it work: then it takes far more of a core than this.
IDLE_CORES = 0.02
# NVML's utilisation is of the second before, at most.
UTILISATION_S = 1.0
LEAST_IDLE_SAMPLES = 2
# A reading is of 20 ms: of fewer of them the mean is luck.
LEAST_LINK_SAMPLES = 3


@dataclass(frozen=True)
class Frame:
    """The cards at one moment, by the keys that telemetry gives them; `why` there are none."""

    at_s: float
    cards: Mapping[str, CardSample]
    why: str = ""


@dataclass(frozen=True)
class Counters:
    """What a machine counts since it began, at one moment."""

    at_s: float
    # Processor seconds: of all, of Omni with what is measured, and of the measured engines alone.
    busy_s: float
    own_s: float
    engines_s: float
    # None where the kernel does not tell it.
    swapped_bytes: float | None = None


@dataclass(frozen=True)
class Place:
    """A device of a deployment.

    `card_key` is how telemetry calls it; empty for the processor, which has no frame of its own.
    """

    device: str
    card_key: str
    # Its arithmetic is the processor's: so is that of a stand-in, which has no sensors either.
    is_on_cpu: bool


@dataclass(frozen=True)
class Span:
    """A block, and when the one before it ended."""

    began_s: float
    ended_s: float
    since_s: float

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True)
class Seen:
    """Everything that was seen, in the order of time; `why` says why something was not."""

    frames: Sequence[Frame] = ()
    counters: Sequence[Counters] = ()
    cores: int | None = None
    why_no_frames: str = ""
    why_no_counters: str = ""


def conditions_of(seen: Seen, span: Span, devices: Sequence[Place]) -> Conditions:
    cards = {place.card_key: place for place in devices if place.card_key}
    inside = [
        frame for frame in seen.frames if span.began_s <= frame.at_s <= span.ended_s
    ]
    unknown: list[str] = []
    energy_joules = _energy(seen, span, devices, unknown)
    own_cores, other_cores = _cores(seen, span, unknown)
    sensors = {key: place for key, place in cards.items() if not place.is_on_cpu}

    return Conditions(
        seconds=span.seconds,
        energy_joules=energy_joules,
        peak_memory_bytes=_peak_bytes(inside, devices, unknown),
        link_gbps=_link_gbps(inside, sensors, unknown),
        clocks_mhz=_clocks(inside, sensors),
        throttle=_throttle(inside, sensors),
        temperature_celsius=_hottest(inside, sensors),
        idle_use_percent=_idle_use(seen, span, sensors),
        own_cpu_cores=own_cores,
        other_cpu_cores=other_cores,
        cores=seen.cores,
        computes_on_cpu=any(place.is_on_cpu for place in devices),
        swapped_bytes=_swapped(seen, span),
        unknown=tuple(unknown),
    )


# --- energy ---------------------------------------------------------------------------------------
def _energy(
    seen: Seen, span: Span, devices: Sequence[Place], unknown: list[str]
) -> float | None:
    """Of all its cards; where one does not tell it, nobody knows the sum."""
    title = "Energy and power are not known"
    without = [place.device for place in devices if place.is_on_cpu]
    if without:
        unknown += [f"{title}: {device} has no sensor for them." for device in without]
        return None
    if seen.why_no_frames:
        unknown.append(f"{title}: {seen.why_no_frames}")
        return None

    total_joules = 0.0
    for key, device in {place.card_key: place.device for place in devices}.items():
        samples = [
            (frame.at_s, card.power_watts)
            for frame, card in _of_card(seen.frames, key)
            if card.power_watts is not None
        ]
        taken = energy_joules(samples, span.began_s, span.ended_s)
        if taken is None:
            why = _why_no_card(seen.frames, key) if not samples else ""
            unknown.append(
                f"{title}: {device} told its power too seldom. {why}".strip()
            )
            return None
        total_joules += taken
    return total_joules if devices else None


def energy_joules(
    samples: Sequence[tuple[float, float]], began_s: float, ended_s: float
) -> float | None:
    """Watts at moments, integrated. None where too few of them fell in between."""
    inside = sum(began_s < at_s < ended_s for at_s, _ in samples)
    if inside < LEAST_POWER_SAMPLES:
        return None
    return joules(samples, began_s, ended_s, MOST_GAP_S)


def at(samples: Sequence[tuple[float, float]], at_s: float) -> float:
    """Between two samples on the line from one to the other, beyond them as at the last one."""
    place = bisect_left(samples, at_s, key=lambda sample: sample[0])
    if place == 0:
        return samples[0][1]
    if place == len(samples):
        return samples[-1][1]
    (earlier_s, before), (later_s, after) = samples[place - 1], samples[place]
    share = (at_s - earlier_s) / (later_s - earlier_s)
    return before + share * (after - before)


# --- the cards ------------------------------------------------------------------------------------
def _of_card(frames: Sequence[Frame], key: str) -> Iterator[tuple[Frame, CardSample]]:
    for frame in frames:
        card = frame.cards.get(key)
        if card:
            yield frame, card


def _why_no_card(frames: Sequence[Frame], key: str) -> str:
    """What the last frame says of a card that tells nothing."""
    if not frames:
        return "No sample came at all: does the agent's sampler run?"
    card = frames[-1].cards.get(key)
    if card:
        return card.error
    return frames[-1].why


def _peak_bytes(
    inside: Sequence[Frame], devices: Sequence[Place], unknown: list[str]
) -> int | None:
    """The most that was in use on all of them at one moment."""
    without = [place.device for place in devices if not place.card_key]
    if without:
        unknown += [
            f"Peak memory is not known: that of {device} is not sampled."
            for device in without
        ]
    if not inside or without:
        return None
    keys = {place.card_key for place in devices}
    totals = [
        [frame.cards[key].memory_used_bytes for key in keys if key in frame.cards]
        for frame in inside
    ]
    whole = [
        sum(used for used in row if used is not None)
        for row in totals
        if len(row) == len(keys) and None not in row
    ]
    return max(whole, default=None)


def _link_gbps(
    inside: Sequence[Frame], cards: Mapping[str, Place], unknown: list[str]
) -> float | None:
    """Of all cards together; what is on the processor has no link of its own."""
    if not inside or not cards:
        return None
    total_gbps = 0.0
    for key, place in cards.items():
        told = [
            card.link_tx_gbps + card.link_rx_gbps
            for _, card in _of_card(inside, key)
            if card.link_tx_gbps is not None and card.link_rx_gbps is not None
        ]
        if len(told) < LEAST_LINK_SAMPLES:
            unknown.append(
                f"Link traffic is not known: {place.device} told it too seldom or not at all."
            )
            return None
        total_gbps += sum(told) / len(told)
    return total_gbps


def _clocks(inside: Sequence[Frame], cards: Mapping[str, Place]) -> dict[str, float]:
    """An idle card lowers its clock; that is no fault of its work."""
    found = {}
    for key, place in cards.items():
        working = [
            card.clock_mhz
            for _, card in _of_card(inside, key)
            if card.clock_mhz is not None and card.utilisation_percent != 0
        ]
        if working:
            found[place.device] = sum(working) / len(working)
    return found


def _throttle(
    inside: Sequence[Frame], cards: Mapping[str, Place]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for key, place in cards.items():
        reasons = [
            reason for _, card in _of_card(inside, key) for reason in card.throttle
        ]
        if reasons:
            found[place.device] = tuple(dict.fromkeys(reasons))
    return found


def _hottest(inside: Sequence[Frame], cards: Mapping[str, Place]) -> float | None:
    told = [
        card.temperature_celsius for key in cards for _, card in _of_card(inside, key)
    ]
    return max((celsius for celsius in told if celsius is not None), default=None)


def _idle_use(seen: Seen, span: Span, cards: Mapping[str, Place]) -> dict[str, float]:
    """How busy each card was since the block before, at moments when no measured engine worked."""
    engines = _series(seen.counters, lambda counted: counted.engines_s)
    idle = [
        frame
        for frame in seen.frames
        if span.since_s <= frame.at_s <= span.ended_s and _is_idle(engines, frame.at_s)
    ]
    found = {}
    for key, place in cards.items():
        told = [card.utilisation_percent for _, card in _of_card(idle, key)]
        known = [percent for percent in told if percent is not None]
        if len(known) >= LEAST_IDLE_SAMPLES:
            found[place.device] = sum(known) / len(known)
    return found


def _is_idle(engines: Sequence[tuple[float, float]], at_s: float) -> bool:
    """Whether they did nothing in the time that a card's utilisation is of."""
    grown_s = grown(engines, at_s - UTILISATION_S, at_s)
    return grown_s is not None and grown_s <= IDLE_CORES * UTILISATION_S


# --- the counters ---------------------------------------------------------------------------------
def _cores(
    seen: Seen, span: Span, unknown: list[str]
) -> tuple[float | None, float | None]:
    """Kept busy on average by Omni with what is measured, and by all else."""
    title = "Other load on the processor is not known"
    if seen.why_no_counters:
        unknown.append(f"{title}: {seen.why_no_counters}")
        return None, None
    if span.seconds < LEAST_SECONDS:
        unknown.append(f"{title}: a block took less than {LEAST_SECONDS:g} s.")
        return None, None

    busy_s = _grown(seen, span, lambda counted: counted.busy_s)
    own_s = _grown(seen, span, lambda counted: counted.own_s)
    if busy_s is None or own_s is None:
        unknown.append(f"{title}: it was not counted all the time.")
        return None, None
    # The kernel counts both in ticks of its own: the parts may be a little more than the whole.
    others_s = max(busy_s - own_s, 0.0)
    return own_s / span.seconds, others_s / span.seconds


def _swapped(seen: Seen, span: Span) -> int | None:
    grown_bytes = _grown(seen, span, lambda counted: counted.swapped_bytes)
    return None if grown_bytes is None else round(grown_bytes)


def _grown(
    seen: Seen, span: Span, value: Callable[[Counters], float | None]
) -> float | None:
    return grown(_series(seen.counters, value), span.began_s, span.ended_s)


def _series(
    counters: Sequence[Counters], value: Callable[[Counters], float | None]
) -> list[tuple[float, float]]:
    return [
        (counted.at_s, found)
        for counted in counters
        if (found := value(counted)) is not None
    ]


def grown(
    series: Sequence[tuple[float, float]], began_s: float, ended_s: float
) -> float | None:
    """By how much a counter grew. None where it was not read around these times, or went back:
    then it began again somewhere in between."""
    first = bisect_left(series, began_s, key=lambda sample: sample[0])
    last = bisect_left(series, ended_s, key=lambda sample: sample[0])
    around = series[max(first - 1, 0) : last + 1]
    if not around or around[0][0] > began_s or around[-1][0] < ended_s:
        return None
    if any(after < before for (_, before), (_, after) in pairwise(around)):
        return None
    return at(around, ended_s) - at(around, began_s)
