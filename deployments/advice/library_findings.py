"""Models that the machine is too small for, and disks that are too slow for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpus.findings import Evidence, Finding
from omni.units import bytes_text, gbps_text, ms_text

# A SATA SSD reads half a gigabyte a second; a hard disk a quarter of that.
SLOW_DISK_GBPS = 0.5
MOST_NAMED = 3


@dataclass(frozen=True)
class ModelSeen:
    name: str
    size_bytes: int


@dataclass(frozen=True)
class DiskSeen:
    """A disk with models, and how fast it reads; None where that cannot be measured."""

    folder: str
    read_gbps: float | None
    largest: ModelSeen


def memory_findings(
    models: Iterable[ModelSeen], ram_bytes: int, cards_bytes: int
) -> list[Finding]:
    """Of models that cards and main memory together do not hold."""
    room = ram_bytes + cards_bytes
    large = sorted(
        (model for model in models if model.size_bytes > room),
        key=lambda model: model.size_bytes,
    )
    if not (large and ram_bytes):
        return []
    named = ", ".join(
        f"{model.name} ({bytes_text(model.size_bytes)})" for model in large[:MOST_NAMED]
    )
    more = f" and {len(large) - MOST_NAMED} more" if len(large) > MOST_NAMED else ""
    return [
        Finding(
            "memory_below_models",
            "caution",
            "Models in the library are larger than all memory",
            f"{named}{more} do not fit into {bytes_text(room)} of cards and main"
            " memory: a part would be read from disk at every token.",
            f"Use a smaller quant of it, or add"
            f" {bytes_text(large[0].size_bytes - room)} of main memory at least.",
            "The library has models for a larger machine.",
            evidence=(
                Evidence("Main memory", bytes_text(ram_bytes)),
                Evidence("Cards", bytes_text(cards_bytes)),
                Evidence("Models", named + more),
            ),
        )
    ]


def disk_findings(disks: Sequence[DiskSeen]) -> list[Finding]:
    """Of disks on which models take long to load."""
    found = []
    for disk in disks:
        if disk.read_gbps is None or disk.read_gbps >= SLOW_DISK_GBPS:
            continue
        takes_ms = disk.largest.size_bytes / disk.read_gbps / 1e6
        found.append(
            Finding(
                "disk_slow",
                "caution",
                "Models lie on a slow disk",
                f"{disk.folder} reads {gbps_text(disk.read_gbps)}:"
                f" {disk.largest.name} takes {ms_text(takes_ms)} to load.",
                "Move the models to an NVMe drive and add its folder on the Models page.",
                "A hard disk, a network drive, or a drive that others read from.",
                disk.folder,
                (
                    Evidence("Folder", disk.folder),
                    Evidence("Reads", gbps_text(disk.read_gbps), passing=True),
                    Evidence("Largest model", bytes_text(disk.largest.size_bytes)),
                ),
            )
        )
    return found
