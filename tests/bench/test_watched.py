"""Samples of cards and counters, and what they come to for a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments.bench.conditions import Conditions
from deployments.bench.watched import (
    Counters,
    Frame,
    Place,
    Seen,
    Span,
    conditions_of,
    energy_joules,
    grown,
)
from gpus.sample import CardSample

ONE = Place("CUDA0", "GPU-1", is_on_cpu=False)
TWO = Place("CUDA1", "GPU-2", is_on_cpu=False)
CPU = Place("CPU", "", is_on_cpu=True)
STAND_IN = Place("RPC0", "RPC0", is_on_cpu=True)
BLOCK = Span(10.0, 20.0, 10.0)


def frames(
    make: Callable[[float], dict[str, Any]],
    *places: Place,
    begin: float = 0.0,
    end: float = 30.0,
    every: float = 0.5,
) -> list[Frame]:
    """What the sampler tells, by the second."""
    moments = [begin + every * n for n in range(int((end - begin) / every) + 1)]
    return [
        Frame(
            at_s,
            {
                place.card_key: CardSample(place.card_key, "a card", **make(at_s))
                for place in places or (ONE,)
            },
        )
        for at_s in moments
    ]


def counters(
    busy: float = 1.5, own: float = 1.0, engines: float = 0.9, swapped: float = 0.0
) -> list[Counters]:
    """A steady load: cores, and bytes a second."""
    return [
        Counters(n / 2, busy * n / 2, own * n / 2, engines * n / 2, swapped * n / 2)
        for n in range(61)
    ]


def seen(
    told: list[Frame], *places: Place, span: Span = BLOCK, **more: Any
) -> Conditions:
    return conditions_of(Seen(told, **more), span, places or (ONE,))


# --- energy ---------------------------------------------------------------------------------------
def test_energy_of_a_steady_card() -> None:
    found = seen(frames(lambda _: {"power_watts": 200.0}))
    assert (found.energy_joules, found.seconds) == (2000.0, 10.0)


@pytest.mark.parametrize("every", [0.1, 0.5, 1.0, 2.5])
def test_energy_of_a_rising_power_is_exact_wherever_samples_fall(every: float) -> None:
    """P = 10 W/s · t: from 10.2 s to 19.9 s these are 5 · (19.9² - 10.2²) joules."""
    told = frames(lambda at_s: {"power_watts": 10 * at_s}, every=every)
    found = seen(told, span=Span(10.2, 19.9, 10.2))
    assert found.energy_joules == pytest.approx(5 * (19.9**2 - 10.2**2))


def test_behind_the_last_sample_power_is_as_there() -> None:
    """A block is asked for as it ends, before the next sample."""
    told = frames(lambda _: {"power_watts": 100.0}, end=19.6)
    assert seen(told).energy_joules == pytest.approx(1000.0)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [(9.0, 100.0), (21.0, 100.0)],
        [(11.0, 100.0), (12.0, 100.0)],
        # The sampler was away in the middle, or at an end.
        [(10.5, 1.0), (11.0, 1.0), (11.5, 1.0), (15.5, 1.0), (18.0, 1.0)],
        [(10.5, 1.0), (11.0, 1.0), (11.5, 1.0), (12.0, 1.0)],
        [(16.0, 1.0), (17.0, 1.0), (18.0, 1.0), (19.0, 1.0)],
    ],
)
def test_no_energy_of_samples_that_are_too_sparse(
    samples: list[tuple[float, float]],
) -> None:
    assert energy_joules(samples, 10.0, 20.0) is None


def test_energy_of_two_cards_is_their_sum() -> None:
    told = frames(lambda _: {"power_watts": 100.0}, ONE, TWO)
    assert seen(told, ONE, TWO).energy_joules == pytest.approx(2000.0)
    # One card under two engines' names is one card.
    twice = Place("Vulkan0", ONE.card_key, is_on_cpu=False)
    assert seen(told, ONE, twice).energy_joules == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("devices", "more", "why"),
    [
        ((ONE, TWO), {}, "CUDA1 told its power too seldom."),
        ((ONE, CPU), {}, "CPU has no sensor for them."),
        ((STAND_IN,), {}, "RPC0 has no sensor for them."),
        (
            (ONE,),
            {"why_no_frames": "the broker is away."},
            "not known: the broker is away.",
        ),
    ],
)
def test_energy_is_unknown_where_one_device_does_not_tell(
    devices: tuple[Place, ...], more: dict[str, Any], why: str
) -> None:
    found = seen(frames(lambda _: {"power_watts": 100.0}), *devices, **more)
    assert found.energy_joules is None
    assert any(why in sentence for sentence in found.unknown), found.unknown


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "does the agent's sampler run?"),
        ([Frame(12.0, {}, "No NVIDIA driver was found.")], "No NVIDIA driver"),
        (
            [Frame(12.0, {"GPU-1": CardSample("GPU-1", "a", "lost", "It fell off.")})],
            "It fell off.",
        ),
    ],
)
def test_why_a_card_tells_nothing(told: list[Frame], why: str) -> None:
    assert any(why in sentence for sentence in seen(told).unknown)


# --- other figures of cards -----------------------------------------------------------------------
def test_peak_memory_is_that_of_one_moment() -> None:
    def grows(at_s: float) -> dict[str, Any]:
        return {"memory_used_bytes": int(at_s)}

    assert seen(frames(grows, ONE, TWO), ONE, TWO).peak_memory_bytes == 40
    assert seen(frames(grows, STAND_IN), STAND_IN).peak_memory_bytes == 20


def test_peak_memory_is_unknown_where_a_device_does_not_tell() -> None:
    told = frames(lambda _: {"memory_used_bytes": 7})
    assert seen(told, ONE, TWO).peak_memory_bytes is None
    assert seen(told, ONE, CPU).peak_memory_bytes is None
    assert seen(frames(lambda _: {})).peak_memory_bytes is None


def test_the_clock_is_of_the_time_at_work() -> None:
    def half_idle(at_s: float) -> dict[str, Any]:
        works = at_s < 15
        return {
            "clock_mhz": 2500.0 if works else 210.0,
            "utilisation_percent": 90.0 if works else 0.0,
        }

    assert seen(frames(half_idle)).clocks_mhz == {"CUDA0": 2500.0}
    untold = frames(lambda _: {"clock_mhz": 1000.0})
    assert seen(untold).clocks_mhz == {"CUDA0": 1000.0}


def test_throttling_and_temperature_are_those_of_the_block_alone() -> None:
    def hot(at_s: float) -> dict[str, Any]:
        return {
            "temperature_celsius": at_s,
            "throttle": ("power limit",) if at_s > 15 else ("temperature (driver)",),
        }

    both = ("temperature (driver)", "power limit")
    found = seen(frames(hot))
    assert (found.throttle, found.temperature_celsius) == ({"CUDA0": both}, 20.0)
    first = seen(frames(hot), span=Span(10.0, 12.0, 10.0))
    assert first.throttle == {"CUDA0": ("temperature (driver)",)}
    assert seen(frames(hot, TWO)).throttle == {}


def test_a_card_is_others_where_the_engines_do_nothing() -> None:
    busy = frames(lambda _: {"utilisation_percent": 40.0})
    idle = seen(busy, counters=counters(engines=0.01))
    assert idle.idle_use_percent == {"CUDA0": pytest.approx(40.0)}
    assert seen(busy, counters=counters(engines=0.5)).idle_use_percent == {}
    # Who does not count the engines does not know when they did nothing.
    assert seen(busy).idle_use_percent == {}


def test_the_time_since_the_block_before_counts_for_idle_cards() -> None:
    rests_until_9 = [
        Counters(n / 2, n, n, max(n / 2 - 9.0, 0.0), 0.0) for n in range(61)
    ]
    busy = frames(lambda _: {"utilisation_percent": 40.0})
    before = seen(busy, counters=rests_until_9, span=Span(10.0, 20.0, 5.0))
    assert before.idle_use_percent == {"CUDA0": pytest.approx(40.0)}
    assert seen(busy, counters=rests_until_9).idle_use_percent == {}


def test_link_traffic_is_the_mean_both_ways_over_the_links_of_all_cards() -> None:
    def sends(at_s: float) -> dict[str, Any]:
        # Each card in turn, as the sampler reads them.
        is_read = at_s % 1 == 0
        if not is_read:
            return {}
        return {"link_tx_gbps": 2.0 if at_s < 15 else 1.0, "link_rx_gbps": 0.5}

    # Five readings of 2.5 and six of 1.5 GB/s.
    mean = (5 * 2.5 + 6 * 1.5) / 11
    assert seen(frames(sends)).link_gbps == pytest.approx(mean)
    assert seen(frames(sends, ONE, TWO), ONE, TWO).link_gbps == pytest.approx(2 * mean)
    # What the processor keeps has no link.
    assert seen(frames(sends), ONE, CPU).link_gbps == pytest.approx(mean)


@pytest.mark.parametrize(
    ("told", "devices", "words"),
    [
        (frames(lambda _: {"link_tx_gbps": 1.0}), (ONE,), "CUDA0"),
        (frames(lambda _: {}, ONE, TWO), (ONE, TWO), "CUDA0"),
        (frames(lambda _: {"link_tx_gbps": 1, "link_rx_gbps": 1}), (ONE, TWO), "CUDA1"),
        ([], (ONE,), ""),
        (frames(lambda _: {}, STAND_IN), (STAND_IN,), ""),
        ([], (CPU,), ""),
    ],
)
def test_link_traffic_that_one_card_does_not_tell_is_unknown(
    told: list[Frame], devices: tuple[Place, ...], words: str
) -> None:
    found = seen(told, *devices)
    assert found.link_gbps is None
    said = [text for text in found.unknown if text.startswith("Link traffic")]
    assert len(said) == bool(words) and all(words in text for text in said)


# --- counters -------------------------------------------------------------------------------------
def test_cores_by_whom() -> None:
    found = seen([], counters=counters(busy=1.75, own=1.25), cores=2)
    assert (found.own_cpu_cores, found.other_cpu_cores) == (1.25, 0.5)
    assert (found.cores, found.swapped_bytes) == (2, 0)
    less = seen([], counters=counters(busy=1.0, own=1.1))
    assert less.other_cpu_cores == 0.0


def test_swapped_bytes_are_those_of_the_block() -> None:
    assert seen([], counters=counters(swapped=100.0)).swapped_bytes == 1000
    untold = [Counters(at_s, 0, 0, 0, None) for at_s in (0.0, 30.0)]
    assert seen([], counters=untold).swapped_bytes is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"why_no_counters": "it is another machine."}, "another machine"),
        ({}, "not counted all the time"),
        ({"counters": counters()[:30]}, "not counted all the time"),
        ({"span": Span(10.0, 10.3, 10.0), "counters": counters()}, "less than 0.5 s"),
    ],
)
def test_other_load_is_unknown(more: dict[str, Any], why: str) -> None:
    found = seen([], **more)
    assert (found.own_cpu_cores, found.other_cpu_cores) == (None, None)
    assert any(why in sentence for sentence in found.unknown), found.unknown


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([(0.0, 0.0), (30.0, 60.0)], 20.0),
        ([(10.0, 5.0), (20.0, 8.0)], 3.0),
        # What happened before and after is none of it.
        ([(0.0, 0.0), (9.0, 50.0), (11.0, 50.0), (19.0, 50.0), (21.0, 50.0)], 0.0),
        # It began again, as a counter of 32 bits does, in the block or beside it.
        ([(0.0, 7.0), (15.0, 2.0), (30.0, 9.0)], None),
        ([(0.0, 4294967295.0), (12.0, 4.0), (30.0, 9.0)], None),
        ([(0.0, 9.0), (5.0, 1.0), (9.0, 1.0), (21.0, 13.0)], 10.0),
        ([(10.5, 1.0), (30.0, 2.0)], None),
        ([(0.0, 1.0), (19.5, 2.0)], None),
        ([], None),
    ],
)
def test_how_much_a_counter_grew(
    series: list[tuple[float, float]], expected: float | None
) -> None:
    assert grown(series, 10.0, 20.0) == expected
