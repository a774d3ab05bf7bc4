"""What /metrics says of cards, under the names that dcgm-exporter has for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from gpus.models import Gpu, Host
from gpus.recent import last_frame
from omni.units import MIB


def _mib(value: float) -> float:
    return value / MIB


def _plain(value: float) -> float:
    return value


def _millijoules(value: float) -> float:
    return 1000 * value


# Name as dcgm-exporter has it, field of a card's sample, its unit, and how to get there.
CARDS: tuple[tuple[str, str, str, Callable[[float], float]], ...] = (
    ("GPU_UTIL", "utilisation_percent", "How much of the time it computed, in %.", _plain),
    ("MEM_COPY_UTIL", "memory_utilisation_percent", "How much of the time its memory was read or written, in %.", _plain),
    ("ENC_UTIL", "encoder_percent", "How much of the time its encoder worked, in %.", _plain),
    ("DEC_UTIL", "decoder_percent", "How much of the time its decoder worked, in %.", _plain),
    ("FB_USED", "memory_used_bytes", "Its memory in use, in MiB.", _mib),
    ("FB_TOTAL", "memory_total_bytes", "Its memory in all, in MiB.", _mib),
    ("FB_RESERVED", "memory_reserved_bytes", "Its memory that the driver keeps, in MiB.", _mib),
    ("GPU_TEMP", "temperature_celsius", "Temperature of its core, in °C.", _plain),
    ("MEMORY_TEMP", "memory_temperature_celsius", "Temperature of its memory, in °C.", _plain),
    ("FAN_SPEED", "fan_percent", "Speed of its fans, in %.", _plain),
    ("POWER_USAGE", "power_watts", "Power it draws, in W.", _plain),
    ("POWER_MGMT_LIMIT", "power_limit_watts", "Power it may draw, in W.", _plain),
    ("TOTAL_ENERGY_CONSUMPTION", "energy_joules", "Energy since the driver was loaded, in mJ.", _millijoules),
    ("SM_CLOCK", "clock_mhz", "Clock of its processors, in MHz.", _plain),
    ("MAX_SM_CLOCK", "clock_max_mhz", "Highest clock of its processors, in MHz.", _plain),
    ("MEM_CLOCK", "memory_clock_mhz", "Clock of its memory, in MHz.", _plain),
    ("PSTATE", "performance_state", "Performance state: 0 is the fastest.", _plain),
    ("PCIE_LINK_GEN", "pcie_generation", "Generation of its PCIe link now.", _plain),
    ("PCIE_LINK_WIDTH", "pcie_width", "Lanes of its PCIe link now.", _plain),
    ("PCIE_MAX_LINK_GEN", "pcie_generation_max", "Best generation of its PCIe link.", _plain),
    ("PCIE_MAX_LINK_WIDTH", "pcie_width_max", "Most lanes of its PCIe link.", _plain),
    ("ECC_SBE_VOL_TOTAL", "ecc_corrected", "Memory errors that were corrected.", _plain),
    ("ECC_DBE_VOL_TOTAL", "ecc_uncorrected", "Memory errors that could not be corrected.", _plain),
    ("XID_ERRORS", "xid", "Number of its last Xid error.", _plain),
)  # fmt: skip
# What only grows is of no type here: a counter's name would have to end on _total.
GROWING = {
    "TOTAL_ENERGY_CONSUMPTION",
    "ECC_SBE_VOL_TOTAL",
    "ECC_DBE_VOL_TOTAL",
}
# As dcgm-exporter has them, but for its modelName, which promtool finds fault with.
CARD_LABELS = ("gpu", "UUID", "model_name", "Hostname")


class Cards(Collector):
    """Of each host's newest sample. A card that does not tell something has no line for it."""

    def collect(self) -> Iterator[Metric]:
        index = dict(Gpu.objects.values_list("uuid", "index"))
        found = [
            (_labels(host, card, index), card)
            for host in Host.objects.values_list("name", flat=True)
            for card in _cards_of(host)
        ]
        for name, field, text, convert in CARDS:
            kind = UnknownMetricFamily if name in GROWING else GaugeMetricFamily
            family = kind(f"DCGM_FI_DEV_{name}", text, labels=CARD_LABELS)
            for labels, card in found:
                if (value := card.get(field)) is not None:
                    family.add_metric(labels, convert(value))
            yield family
        yield _replays(found)
        yield _card_states()


def _replays(found: Sequence[tuple[Sequence[str], dict[str, Any]]]) -> Metric:
    """Of a name of our own: promtool takes no name with "counter" in it, as DCGM's has."""
    text = "Packets that its link had to send again."
    family = CounterMetricFamily("omni_gpu_pcie_replays", text, labels=CARD_LABELS)
    for labels, card in found:
        if (value := card.get("pcie_replays")) is not None:
            family.add_metric(labels, value)
    return family


def _cards_of(host: str) -> list[dict[str, Any]]:
    text = last_frame(host)
    frame = json.loads(text) if text else {}
    return [card for card in frame.get("cards", ()) if not card.get("is_stand_in")]


def _labels(host: str, card: dict[str, Any], index: dict[str, int]) -> tuple[str, ...]:
    number = index.get(card["key"])
    shown = "" if number is None else str(number)
    return shown, card["key"], card.get("name", ""), host


def _card_states() -> Metric:
    family = GaugeMetricFamily(
        "omni_gpu_ok", "1 while the card can be read.", labels=CARD_LABELS
    )
    for gpu in Gpu.objects.select_related("host"):
        labels = (str(gpu.index), gpu.uuid, gpu.name, gpu.host.name)
        family.add_metric(labels, int(gpu.state == Gpu.State.OK))
    return family
