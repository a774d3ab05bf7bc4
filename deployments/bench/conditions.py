"""What the machine did while a block was measured, and which of it makes a run say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpus.card_rules import POWER_LIMIT
from omni.units import MIB, bytes_text

# One that decodes on the processor waits for its slowest thread at every layer, and on a machine
# whose cores it fills each of them is shared with whatever else runs. A quarter of a core on two
# is an eighth of the speed, far beyond the 3 % that are still no difference; an idle system, with
# its interrupts and kernel threads, takes a twentieth.
MOST_OTHER_CORES = 0.25
# An engine on cards needs a core that hands them work: as long as one is free, nobody is waited
# for.
FREE_CORES = 1.0
# Speed moves by no more than the clock, and 3 % are still no difference. A card that warms up goes
# down a step (15 MHz, less than 1 %) two or three times; what is more was done to it.
MOST_CLOCK_FALL = 0.05
# 256 pages, each some 100 µs from a disk: less than a hundredth of a block of a few seconds.
MOST_SWAPPED_BYTES = MIB
# A desktop that is drawn takes a few per cent of its card.
MOST_IDLE_USE_PERCENT = 10.0


@dataclass(frozen=True)
class Conditions:
    """Of one block and the devices of its deployment. None is what nobody could know here.

    What is by device is empty where no device tells it.
    """

    seconds: float
    # By the sensors of all its cards together.
    energy_joules: float | None = None
    # In use on its devices, by whomever.
    peak_memory_bytes: int | None = None
    # The mean over the links of all its cards together, both ways.
    link_gbps: float | None = None
    # The mean of a card while it worked.
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    # Why a card ran slower than it could; the words are those of gpus/nvml.py.
    throttle: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    temperature_celsius: float | None = None
    # How busy a card was since the block before, while the measured engines did nothing.
    idle_use_percent: Mapping[str, float] = field(default_factory=dict)

    # Processor cores kept busy on average: by Omni and what is measured, and by all else.
    own_cpu_cores: float | None = None
    other_cpu_cores: float | None = None
    cores: int | None = None
    computes_on_cpu: bool = False
    swapped_bytes: int | None = None

    # Why something is None, a sentence each.
    unknown: tuple[str, ...] = ()

    @property
    def is_disturbed_by_others(self) -> bool:
        """Whether work that is not Omni's took processor time that was missed."""
        others = self.other_cpu_cores
        if others is None or others < MOST_OTHER_CORES:
            return False
        if self.computes_on_cpu or self.own_cpu_cores is None or self.cores is None:
            return True
        return self.cores - self.own_cpu_cores - others < FREE_CORES


# --- the judgement --------------------------------------------------------------------------------
# An arm, the number of its round, and how it was meanwhile.
WatchedBlock = tuple[str, int, Conditions]


@dataclass(frozen=True)
class Marks:
    """Sentences: a warning says that the run was disturbed, a note only what is worth knowing."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def marks(blocks: Sequence[WatchedBlock]) -> Marks:
    """What disturbed a run, and what is worth knowing of it."""
    warnings = [
        *_slowed_down(blocks),
        *_clocks_moved(blocks),
        *_other_load(blocks),
        *_cards_of_others(blocks),
        *_swapped(blocks),
    ]
    notes = [*_at_power_limit(blocks), *_harmless_load(blocks), *_unknown(blocks)]
    return Marks(tuple(warnings), tuple(notes))


def _slowed_down(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    """At the power limit is where a card at full load belongs; all else is not."""
    for device, reason in _reasons(blocks):
        if reason != POWER_LIMIT:
            where = places([block for block in blocks if _has(block, device, reason)])
            yield f"{device} ran slower than it could ({reason}): {where}."


def _at_power_limit(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    for device, reason in _reasons(blocks):
        if reason == POWER_LIMIT:
            there = [block for block in blocks if device in block[2].clocks_mhz]
            found = [block for block in blocks if _has(block, device, reason)]
            share = 100 * len(found) / max(len(there), len(found))
            yield (
                f"{device} reached its power limit in {share:.0f} % of its blocks, as a card at"
                " full load does."
            )


def _reasons(blocks: Sequence[WatchedBlock]) -> list[tuple[str, str]]:
    """Every device with every reason it had, once."""
    found = [
        (device, reason)
        for _, _, seen in blocks
        for device, reasons in seen.throttle.items()
        for reason in reasons
    ]
    return list(dict.fromkeys(found))


def _has(block: WatchedBlock, device: str, reason: str) -> bool:
    return reason in block[2].throttle.get(device, ())


def _clocks_moved(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    """Each arm beside itself: another one asks another clock of the same card."""
    for arm in dict.fromkeys(arm for arm, _, _ in blocks):
        own = [block for block in blocks if block[0] == arm]
        for device in _names(seen.clocks_mhz for _, _, seen in own):
            told = [block for block in own if device in block[2].clocks_mhz]
            best_mhz = max(seen.clocks_mhz[device] for _, _, seen in told)
            least_mhz = min(seen.clocks_mhz[device] for _, _, seen in told)
            limit_mhz = (1 - MOST_CLOCK_FALL) * best_mhz
            slow = [block for block in told if block[2].clocks_mhz[device] < limit_mhz]
            if slow:
                yield (
                    f"The clock of {device} moved between {least_mhz:.0f} and {best_mhz:.0f} MHz;"
                    f" it was low for {places(slow)}."
                )


def _other_load(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    found = [block for block in blocks if block[2].is_disturbed_by_others]
    if found:
        yield (
            f"{_load(found)} in {len(found)} of {len(blocks)} blocks: {places(found)}."
        )


def _harmless_load(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    found = [
        block
        for block in blocks
        if (block[2].other_cpu_cores or 0.0) >= MOST_OTHER_CORES
        and not block[2].is_disturbed_by_others
    ]
    if found:
        yield (
            f"{_load(found)} in {len(found)} of {len(blocks)} blocks; the devices do not compute on"
            " them, and enough were free."
        )


def _load(found: Sequence[WatchedBlock]) -> str:
    most = max(seen.other_cpu_cores or 0.0 for _, _, seen in found)
    cores = next((seen.cores for _, _, seen in found if seen.cores), None)
    of = f" of {cores}" if cores else ""
    return f"Other work than Omni's kept up to {most:.1f}{of} cores busy"


def _cards_of_others(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    for device in _names(seen.idle_use_percent for _, _, seen in blocks):
        found = [
            block
            for block in blocks
            if block[2].idle_use_percent.get(device, 0.0) >= MOST_IDLE_USE_PERCENT
        ]
        if found:
            most = max(seen.idle_use_percent[device] for _, _, seen in found)
            yield (
                f"{device} was up to {most:.0f} % busy while the measured engines did nothing, so"
                f" something else uses it: {places(found)}."
            )


def _swapped(blocks: Sequence[WatchedBlock]) -> Iterator[str]:
    found = [
        block for block in blocks if (block[2].swapped_bytes or 0) > MOST_SWAPPED_BYTES
    ]
    if found:
        swapped_bytes = sum(seen.swapped_bytes or 0 for _, _, seen in found)
        yield (
            f"The machine swapped {bytes_text(swapped_bytes)} of memory in {len(found)} of"
            f" {len(blocks)} blocks: {places(found)}."
        )


def _unknown(blocks: Sequence[WatchedBlock]) -> list[str]:
    return _names(seen.unknown for _, _, seen in blocks)


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    """Each once, in the order in which they came."""
    return list(dict.fromkeys(name for group in groups for name in group))


# --- which blocks, for people ---------------------------------------------------------------------
def places(blocks: Sequence[WatchedBlock]) -> str:
    """plain in rounds 1 to 3 and 5, drafting in round 2."""
    rounds: dict[str, set[int]] = {}
    for arm, number, _ in blocks:
        rounds.setdefault(arm, set()).add(number)
    return ", ".join(f"{arm} in {_rounds(sorted(rounds[arm]))}" for arm in rounds)


def _rounds(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"round {numbers[0]}"
    parts = [_span(first, last) for first, last in _spans(numbers)]
    if len(parts) == 1:
        return f"rounds {parts[0]}"
    return f"rounds {', '.join(parts[:-1])} and {parts[-1]}"


def _span(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {last}"


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers that follow each other, as first and last; two of them stay two."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return [
        part
        for first, last in spans
        for part in (
            [(first, first), (last, last)] if last == first + 1 else [(first, last)]
        )
    ]


# --- what the figures hold for --------------------------------------------------------------------
@dataclass(frozen=True)
class CardSeen:
    """A card of the host from the beginning of a run to its end; None is not told by it."""

    name: str
    power_limit_watts: float | None = None
    least_clock_mhz: float | None = None
    most_clock_mhz: float | None = None
    least_celsius: float | None = None
    most_celsius: float | None = None


def environment(
    driver: str, cards: Sequence[CardSeen], cores: int | None
) -> dict[str, Any]:
    """For document["environment"]["conditions"]; `driver` is empty where there is none."""
    return {
        "driver": driver or None,
        "cores": cores,
        "cards": [
            {
                "name": card.name,
                "power_limit_watts": card.power_limit_watts,
                "clock_mhz": _range(card.least_clock_mhz, card.most_clock_mhz),
                "temperature_celsius": _range(card.least_celsius, card.most_celsius),
            }
            for card in cards
        ],
    }


def _range(least: float | None, most: float | None) -> dict[str, float] | None:
    if least is None or most is None:
        return None
    return {"least": least, "most": most}
