"""What charts of the history are called, and in which unit they are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOST = "host"
DEPLOYMENT = "deployment:"

# End of a metric's name → unit, what values are divided by, and the top of the scale.
UNITS: dict[str, tuple[str, float, float | None]] = {
    "_percent": ("%", 1, 100),
    "_bytes": ("GiB", 1 << 30, None),
    "_watts": ("W", 1, None),
    "_celsius": ("°C", 1, None),
    "_mhz": ("MHz", 1, None),
    "_gbps": ("GB/s", 1, None),
    "_tps": ("tokens/s", 1, None),
    "_ms": ("ms", 1, None),
}
TITLES = {
    "cpu_percent": "CPU utilisation",
    "prompt_tps": "Prefill (prompt processing)",
    "output_tps": "Decode (generation)",
    "requests": "Requests running",
    "queue_length": "Queue length",
    "kv_percent": "KV cache used",
    "acceptance_percent": "Draft acceptance rate",
    "first_token_ms": "Time to first token (TTFT)",
    "clock_mhz": "Core clock",
    "memory_utilisation_percent": "Memory bus utilisation",
    "encoder_percent": "Video encoder",
    "decoder_percent": "Video decoder",
    "link_tx_gbps": "Link, sent",
    "link_rx_gbps": "Link, received",
    "load_1": "Load average, 1 min",
    "pcie_generation": "PCIe generation",
    "pcie_width": "PCIe width",
}
# What each kind of subject is known to have: it is shown as N/A where it was not measured.
OF_CARDS = (
    *("utilisation_percent", "memory_used_bytes", "power_watts"),
    *("temperature_celsius", "clock_mhz"),
)
OF_HOST = ("cpu_percent", "memory_used_bytes")
OF_DEPLOYMENTS = (
    *("output_tps", "prompt_tps", "first_token_ms", "requests", "queue_length"),
    *("kv_percent", "acceptance_percent"),
)


@dataclass(frozen=True)
class Chart:
    """One metric as a chart: values are divided by `divide` and drawn in `unit`."""

    metric: str
    title: str
    unit: str = ""
    divide: float = 1
    top: float | None = None


def chart_of(metric: str) -> Chart:
    """By the name alone, so that a new metric needs no more than a name with its unit."""
    for ending, (unit, divide, top) in UNITS.items():
        if metric.endswith(ending):
            title = TITLES.get(metric) or _words(metric.removesuffix(ending))
            return Chart(metric, title, unit, divide, top)
    return Chart(metric, TITLES.get(metric) or _words(metric))


def charts_of(key: str, metrics: Iterable[str]) -> list[Chart]:
    """Those of a subject: what its kind is known to have, then what else was measured."""
    names = dict.fromkeys((*_known(key), *metrics))
    return [chart_of(name) for name in names]


def _known(key: str) -> tuple[str, ...]:
    if key == HOST:
        return OF_HOST
    return OF_DEPLOYMENTS if key.startswith(DEPLOYMENT) else OF_CARDS


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
