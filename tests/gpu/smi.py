"""What `nvidia-smi -q -x` says of a card, beside what the panel measured of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from gpus.sample import CardSample

MIB = 1 << 20
Value = float | str | bool | None
# Words that stand where there is no answer.
NOTHING = ("N/A", "[N/A]", "Not Supported", "Unknown Error", "Insufficient Permissions")
REASONS = {
    "sw_power_cap": "power limit",
    "hw_slowdown": "hardware slowdown",
    "sync_boost": "sync boost group",
    "sw_thermal_slowdown": "temperature (driver)",
    "hw_thermal_slowdown": "temperature (hardware)",
    "hw_power_brake_slowdown": "power brake",
}


@dataclass(frozen=True)
class Compared:
    field: str
    ours: Value
    theirs: Value
    is_same: bool
    note: str = ""


@dataclass(frozen=True)
class Question:
    """A field of ours, where nvidia-smi has it (older names last), and how far the two may be
    apart: what moves between two looks is never the same."""

    field: str
    paths: tuple[str, ...]
    read: Callable[[str], Value]
    apart: float = 0.0
    share: float = 0.0


def number(text: str) -> float | None:
    found = re.match(r"-?[\d.]+", text)
    return float(found[0]) if found else None


def mib(text: str) -> float | None:
    found = number(text)
    return None if found is None else found * MIB


def switch(text: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(text)


def state(text: str) -> float | None:
    return number(text.removeprefix("P"))


_GEN, _WIDTH = "pci/pci_gpu_link_info/pcie_gen/", "pci/pci_gpu_link_info/link_widths/"
QUESTIONS = (
    Question("memory_total_bytes", ("fb_memory_usage/total",), mib, apart=MIB),
    Question(
        "memory_reserved_bytes", ("fb_memory_usage/reserved",), mib, apart=2 * MIB
    ),
    Question("bar1_total_bytes", ("bar1_memory_usage/total",), mib, apart=MIB),
    Question("utilisation_percent", ("utilization/gpu_util",), number, apart=40),
    Question(
        "memory_utilisation_percent", ("utilization/memory_util",), number, apart=40
    ),
    Question("encoder_percent", ("utilization/encoder_util",), number, apart=20),
    Question("decoder_percent", ("utilization/decoder_util",), number, apart=20),
    Question("temperature_celsius", ("temperature/gpu_temp",), number, apart=5),
    Question(
        "memory_temperature_celsius", ("temperature/memory_temp",), number, apart=5
    ),
    Question(
        "temperature_slowdown_celsius",
        ("temperature/gpu_temp_slow_threshold",),
        number,
    ),
    Question(
        "temperature_shutdown_celsius",
        ("temperature/gpu_temp_max_threshold",),
        number,
    ),
    Question("fan_percent", ("fan_speed",), number, apart=10),
    Question(
        "power_watts",
        (
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/power_draw",
            "power_readings/power_draw",
        ),
        number,
        apart=15,
        share=0.3,
    ),
    Question(
        "power_limit_watts",
        (
            "gpu_power_readings/current_power_limit",
            "power_readings/enforced_power_limit",
        ),
        number,
        apart=0.5,
    ),
    Question(
        "power_limit_default_watts",
        (
            "gpu_power_readings/default_power_limit",
            "power_readings/default_power_limit",
        ),
        number,
        apart=0.5,
    ),
    Question(
        "power_limit_min_watts",
        ("gpu_power_readings/min_power_limit", "power_readings/min_power_limit"),
        number,
        apart=0.5,
    ),
    Question(
        "power_limit_max_watts",
        ("gpu_power_readings/max_power_limit", "power_readings/max_power_limit"),
        number,
        apart=0.5,
    ),
    Question("clock_mhz", ("clocks/sm_clock",), number, apart=300, share=0.3),
    Question("clock_max_mhz", ("max_clocks/sm_clock",), number),
    Question("memory_clock_mhz", ("clocks/mem_clock",), number, apart=300, share=0.3),
    Question("memory_clock_max_mhz", ("max_clocks/mem_clock",), number),
    Question("performance_state", ("performance_state",), state, apart=8),
    Question("pcie_generation", (f"{_GEN}current_link_gen",), number, apart=4),
    Question("pcie_width", (f"{_WIDTH}current_link_width",), number),
    Question("pcie_generation_max", (f"{_GEN}max_link_gen",), number),
    Question("pcie_width_max", (f"{_WIDTH}max_link_width",), number),
    Question("pcie_generation_card", (f"{_GEN}max_device_link_gen",), number),
    Question("pcie_replays", ("pci/replay_counter",), number, apart=5),
    Question("ecc_enabled", ("ecc_mode/current_ecc",), switch),
    Question("persistence_mode", ("persistence_mode",), switch),
    Question("mig_enabled", ("mig_mode/current_mig",), switch),
)


def compare(xml: str, samples: Sequence[CardSample]) -> dict[str, list[Compared]]:
    """By UUID of each card that nvidia-smi lists. Raises ElementTree.ParseError."""
    ours = {sample.key: sample for sample in samples}
    found = {}
    for card in ElementTree.fromstring(xml).findall("gpu"):
        uuid = _text(card, "uuid")
        if uuid not in ours:
            found[uuid] = [
                Compared("uuid", None, uuid, False, "the panel has no such card")
            ]
            continue
        found[uuid] = list(_compared(card, ours[uuid]))
    return found


def _compared(card: ElementTree.Element, sample: CardSample) -> Iterator[Compared]:
    yield _same("name", sample.name, _text(card, "product_name"))
    for question in QUESTIONS:
        yield _answer(card, sample, question)
    used = _first(card, ("fb_memory_usage/used",))
    if used and sample.memory_used_bytes is not None:
        # nvidia-smi leaves out of what is used what the driver keeps.
        mine = sample.memory_used_bytes - (sample.memory_reserved_bytes or 0)
        theirs = mib(used) or 0.0
        is_near = abs(mine - theirs) <= max(64 * MIB, 0.1 * theirs)
        yield Compared("memory_used_bytes", mine, theirs, is_near, "without reserved")
    yield _throttle(card, sample)
    yield _processes(card, sample)


def _answer(
    card: ElementTree.Element, sample: CardSample, question: Question
) -> Compared:
    ours: Value = getattr(sample, question.field)
    text = _first(card, question.paths)
    if text is None:
        return Compared(question.field, ours, None, True, "not in nvidia-smi's list")
    theirs = None if text in NOTHING else question.read(text)
    if ours is None or theirs is None:
        reason = sample.unanswered.get(question.field, "")
        return Compared(question.field, ours, theirs, ours is theirs, reason)
    if isinstance(theirs, bool):
        return _same(question.field, ours, theirs)
    apart = abs(float(ours) - float(theirs))
    most = max(question.apart, question.share * abs(float(theirs)))
    return Compared(question.field, ours, theirs, apart <= most, f"within {most:g}")


def _throttle(card: ElementTree.Element, sample: CardSample) -> Compared:
    """They come and go: told, and never called different."""
    found = []
    for group, prefix in (
        ("clocks_event_reasons", "clocks_event_reason_"),
        ("clocks_throttle_reasons", "clocks_throttle_reason_"),
    ):
        for name, words in REASONS.items():
            if _text(card, f"{group}/{prefix}{name}") == "Active":
                found.append(words)
    ours = ", ".join(sample.throttle)
    return Compared("throttle", ours, ", ".join(found), True, "moves")


def _processes(card: ElementTree.Element, sample: CardSample) -> Compared:
    theirs = {
        int(text)
        for row in card.findall("processes/process_info")
        if (text := _text(row, "pid")).isdecimal()
    }
    ours = {process.pid for process in sample.processes or ()}
    return _same(
        "processes",
        " ".join(map(str, sorted(ours))),
        " ".join(map(str, sorted(theirs))),
    )


def _same(field: str, ours: Value, theirs: Value) -> Compared:
    return Compared(field, ours, theirs, ours == theirs)


def _first(card: ElementTree.Element, paths: Sequence[str]) -> str | None:
    """Of several names the first that says something, else what any says."""
    texts = [text for path in paths if (text := _text(card, path))]
    told = [text for text in texts if text not in NOTHING]
    return next(iter([*told, *texts]), None)


def _text(card: ElementTree.Element, path: str) -> str:
    return (card.findtext(path) or "").strip()
