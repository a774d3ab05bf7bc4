"""The stand-in NVML: a real shared library that the real bindings load, driven by a scenario
file."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
MIB = 1 << 20


def build(folder: Path, *defines: str) -> Path:
    """Compiles libnvidia-ml.so.1 into a folder that LD_LIBRARY_PATH may name; returns the
    library."""
    library = folder / "libnvidia-ml.so.1"
    flags = [
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        "-Wl,-soname,libnvidia-ml.so.1",
    ]
    subprocess.run(
        [
            "gcc",
            *flags,
            *(f"-D{name}" for name in defines),
            str(SOURCE),
            "-o",
            str(library),
        ],
        check=True,
    )
    return library


@dataclass(frozen=True)
class FakeCard:
    """A card of the scenario.

    `facts` are the C source's keys; one that is left out is not supported.
    """

    name: str
    uuid: str
    bus: str
    total_mib: int | None
    used_mib: int = 1024
    facts: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def text(self) -> str:
        rows = [f"card {self.name} | {self.uuid} | {self.bus}"]
        if self.total_mib is not None:
            rows.append(f"memory {self.used_mib * MIB} {self.total_mib * MIB}")
        rows += [f"{key} {value}" for key, value in self.facts.items()]
        return "\n".join([*rows, *self.lines, ""])


# What such cards tell besides; a GeForce has no ECC counters, no MIG and no sensor in its memory.
_BLACKWELL = {
    "clock_max": 3090,
    "memory_clock": 14001,
    "memory_clock_max": 14001,
    "performance_state": 1,
    "memory_utilisation": 35,
    "encoder": 0,
    "decoder": 0,
    "fans": 2,
    "fan": 34,
    "energy": 8_640_000_000,
    "persistence": 1,
}
_WORKSTATION = {
    **_BLACKWELL,
    "bar1": 131072 * MIB,
    "memory_reserved": 640 * MIB,
    "power_limit_default": 600_000,
    "power_limit_min": 150_000,
    "power_limit_max": 600_000,
    "temperature_slowdown": 95,
    "temperature_shutdown": 100,
    "memory_temperature": 72,
    "ecc": 1,
    "ecc_corrected": 0,
    "ecc_uncorrected": 0,
    "remapped_rows": 0,
    "mig": 0,
}
_CONSUMER = {
    **_BLACKWELL,
    "performance_state": 8,
    "memory_clock": 405,
    "memory_utilisation": 0,
    "bar1": 32768 * MIB,
    "memory_reserved": 464 * MIB,
    "power_limit_default": 575_000,
    "power_limit_min": 400_000,
    "power_limit_max": 600_000,
    "temperature_slowdown": 90,
    "temperature_shutdown": 95,
    "memory_temperature": 0,
}


def rtx_pro_6000(**changes: object) -> FakeCard:
    """97887 MiB and 600 W as nvidia-smi shows them, at work on a Gen5 x16 link."""
    facts = {
        "utilisation": 62,
        "power": 410_000,
        "power_limit": 600_000,
        "temperature": 58,
    }
    link = {
        "generation": 5,
        "generation_max": 5,
        "generation_card": 5,
        "width": 16,
        "width_max": 16,
        "replays": 0,
    }
    values = {
        "name": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        "uuid": "GPU-11111111-2222-3333-4444-555555555555",
        "bus": "00000000:01:00.0",
        "total_mib": 97887,
        "used_mib": 40000,
        "facts": {
            **facts,
            **link,
            **_WORKSTATION,
            "clock": 2600,
            "capability": 120,
            "reasons": 0,
        },
    }
    return FakeCard(**{**values, **changes})  # type: ignore[arg-type]


def rtx_5090(**changes: object) -> FakeCard:
    """32607 MiB and 575 W, idle: its link has dropped to Gen1 to save power."""
    facts = {
        "utilisation": 0,
        "power": 21_500,
        "power_limit": 575_000,
        "temperature": 36,
    }
    link = {
        "generation": 1,
        "generation_max": 5,
        "generation_card": 5,
        "width": 16,
        "width_max": 16,
        "replays": 0,
    }
    values = {
        "name": "NVIDIA GeForce RTX 5090",
        "uuid": "GPU-99999999-8888-7777-6666-555555555555",
        "bus": "00000000:02:00.0",
        "total_mib": 32607,
        "used_mib": 512,
        "facts": {
            **facts,
            **link,
            **_CONSUMER,
            "clock": 210,
            "capability": 120,
            "reasons": 1,
        },
    }
    return FakeCard(**{**values, **changes})  # type: ignore[arg-type]


def gb10(**changes: object) -> FakeCard:
    """Unified memory: it tells neither memory nor link nor fan."""
    values = {
        "name": "NVIDIA GB10",
        "uuid": "GPU-10101010-1010-1010-1010-101010101010",
        "bus": "0000000F:01:00.0",
        "total_mib": None,
        "facts": {
            "utilisation": 12,
            "temperature": 41,
            "clock": 2405,
            "capability": 121,
        },
    }
    return FakeCard(**{**values, **changes})  # type: ignore[arg-type]


def scenario(path: Path, *cards: FakeCard, init: int = 0) -> None:
    """Writes what the library answers from now on."""
    draft = path.with_suffix(".new")
    draft.write_text(f"init {init}\n" + "".join(card.text() for card in cards))
    draft.replace(path)
