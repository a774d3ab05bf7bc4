"""The tree of PCI devices as the kernel shows it: who hangs on which bridge, and what links can
do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SYS = Path("/sys")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# GT/s per lane by generation.
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


@dataclass(frozen=True)
class PciDevice:
    """`parents` are the bridges above it, the nearest first; `kind` is its class (0x010802 is
    NVMe); `translation` is how the IOMMU treats it: identity, DMA …, '' without one."""

    address: str
    parents: tuple[str, ...] = ()
    vendor: int = 0
    kind: int = 0
    driver: str = ""
    generation_max: int | None = None
    width_max: int | None = None
    numa_node: int | None = None
    translation: str = ""


@lru_cache(maxsize=1)
def tree() -> tuple[PciDevice, ...]:
    """Of this machine, read once: slots do not change while it runs."""
    return read_tree(SYS)


def read_tree(sys: Path) -> tuple[PciDevice, ...]:
    """Every device below `sys`; empty where there is no PCI."""
    folder = sys / "bus" / "pci" / "devices"
    if not folder.is_dir():
        return ()
    return tuple(_device(entry) for entry in sorted(folder.iterdir()))


def _device(entry: Path) -> PciDevice:
    place = entry.resolve()
    above = [part for part in place.parts[:-1] if _ADDRESS.fullmatch(part)]
    width = _number(entry / "max_link_width")
    driver = entry / "driver"
    node = _number(entry / "numa_node")
    return PciDevice(
        address=entry.name,
        parents=tuple(reversed(above)),
        vendor=_number(entry / "vendor") or 0,
        kind=_number(entry / "class") or 0,
        driver=driver.resolve().name if driver.exists() else "",
        generation_max=_GENERATIONS.get(_text(entry / "max_link_speed").split(" ")[0]),
        # 255 is the kernel's word for none.
        width_max=width if width and width <= 32 else None,
        numa_node=node if node is not None and node >= 0 else None,
        translation=_text(entry / "iommu_group" / "type"),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path), 0)
    except ValueError:
        return None


def kernel_modules(proc: Path = Path("/proc")) -> str:
    """Which kernel modules NVIDIA's driver runs by: open, proprietary, or '' when none are
    loaded."""
    words = _text(proc / "driver" / "nvidia" / "version").split()
    if "Kernel" not in words:
        return ""
    return "open" if "Open" in words else "proprietary"


def below(tree: tuple[PciDevice, ...], bridge: str) -> Iterator[PciDevice]:
    """Everything that hangs on a bridge, at any depth."""
    return (device for device in tree if bridge in device.parents)


def address_of(bus_id: str) -> str:
    """The kernel's way to write NVML's bus id: 00000000:01:00.0 → 0000:01:00.0."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"
