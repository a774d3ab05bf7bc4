"""The links of a drawn rig: what reaches the host by what, and how thick its line is."""

from __future__ import annotations

import pytest

from deployments.planning.plan import DeviceFacts
from deployments.web.rig_drawing import (
    THICKEST,
    THINNEST,
    DrawnDevice,
    Way,
    between_cards,
    drawn,
    has_links,
)
from omni.units import GIB

CPU = DeviceFacts("CPU", "cpu", 64 * GIB)
GEN5 = DeviceFacts("CUDA0", "cuda", 96 * GIB, link_gbps=63.0)
GEN4_X4 = DeviceFacts("CUDA1", "cuda", 32 * GIB, link_gbps=7.9)
UNKNOWN = DeviceFacts("Vulkan0", "vulkan", 16 * GIB)
REMOTE = DeviceFacts("RPC0", "rpc", 24 * GIB, endpoint="10.0.0.2:50052")
STAND_IN = DeviceFacts("RPC1", "rpc", 24 * GIB, endpoint="x", is_stand_in=True)


def rig(*devices: DeviceFacts) -> list[DrawnDevice]:
    return drawn({device.name: device for device in devices}, {}, {}, {})


@pytest.mark.parametrize(
    ("device", "way", "says"),
    [
        (CPU, Way.HOST, ""),
        (GEN5, Way.LINK, "63 GB/s to the host"),
        (UNKNOWN, Way.UNKNOWN, "not known"),
        (REMOTE, Way.NETWORK, "over the network"),
        (STAND_IN, Way.INSIDE, "in main memory"),
    ],
)
def test_each_device_says_how_it_reaches_the_host(
    device: DeviceFacts, way: Way, says: str
) -> None:
    (one,) = rig(device)
    assert one.link.way == way and says in one.link.text


def test_a_faster_link_has_a_thicker_line() -> None:
    slow, fast, host = rig(GEN4_X4, GEN5, CPU)
    assert THINNEST < slow.link.width < fast.link.width <= THICKEST
    assert fast.link.width - slow.link.width == pytest.approx(3, abs=0.1)
    assert host.link.width == THICKEST


def test_the_host_comes_last_and_lines_end_there() -> None:
    assert [device.name for device in rig(CPU, GEN5)] == ["CUDA0", "CPU"]
    assert has_links(rig(CPU, GEN5)) and has_links(rig(CPU, UNKNOWN))
    assert not has_links(rig(GEN5)), "there is nowhere to draw them to"
    assert not has_links(rig(CPU, STAND_IN))


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ((GEN5, CPU), ""),
        ((STAND_IN, CPU), ""),
        ((GEN5, GEN4_X4, CPU), "via the host, at most 7.9 GB/s"),
        ((GEN5, UNKNOWN, CPU), "via the host: whether"),
        ((GEN5, GEN4_X4, REMOTE, CPU), "via the host: whether"),
    ],
)
def test_between_cards_data_goes_via_the_host(
    devices: tuple[DeviceFacts, ...], says: str
) -> None:
    found = between_cards(rig(*devices))
    assert (says in found) if says else not found
