"""PCIe links: what they carry, and why one is below its best."""

from __future__ import annotations

# GT/s per lane and the share left by the line code (PCI-SIG base specifications 1.1 to 6.0).
_GIGATRANSFERS = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
_LINE_CODE = {
    1: 8 / 10,
    2: 8 / 10,
    3: 128 / 130,
    4: 128 / 130,
    5: 128 / 130,
    6: 242 / 256,
}
BUSY_PERCENT = 20.0


def link_gbps(generation: int | None, width: int | None) -> float | None:
    """Bytes per second × 10⁹ in one direction; None when the link is not known."""
    if generation not in _GIGATRANSFERS or not width:
        return None
    return _GIGATRANSFERS[generation] * _LINE_CODE[generation] * width / 8


def link_shortfall(
    generation: int | None,
    width: int | None,
    generation_max: int | None,
    width_max: int | None,
    utilisation_percent: float | None,
) -> str:
    """What is wrong with the link, or ''. An idle card lowers its generation to save power: that is
    no fault."""
    if not (generation and width and generation_max and width_max):
        return ""
    faults = []
    if width < width_max:
        faults.append(f"with {width} of {width_max} lanes")
    if generation < generation_max and (utilisation_percent or 0) >= BUSY_PERCENT:
        faults.append(f"at generation {generation} of {generation_max} under load")
    if not faults:
        return ""
    now = link_gbps(generation, width)
    best = link_gbps(generation_max, width_max)
    speeds = f": {now:.1f} of {best:.1f} GB/s" if now and best else ""
    return f"The link runs {' and '.join(faults)}{speeds}."
