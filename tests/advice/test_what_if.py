"""Rigs that are not there: cards by name, links as people write them."""

from __future__ import annotations

import pytest

from deployments.advice.what_if import CardSpec, RigSpec, what_if_devices
from gpus.links import link_gbps
from omni.errors import OmniError
from tests.planning.owners_rig import RTX_5090, RTX_PRO_6000

GIB = 1 << 30


def test_the_owner_s_rig_by_its_names_is_the_one_that_the_driver_shows() -> None:
    cards = (CardSpec("RTX PRO 6000 Blackwell"), CardSpec("5090", "gen4 x16"))
    found = what_if_devices(RigSpec(cards, 384 * GIB, 236, cores=32))

    assert list(found) == ["CUDA0", "CUDA1", "CPU"]
    for name, real in (("CUDA0", RTX_PRO_6000), ("CUDA1", RTX_5090)):
        device = found[name]
        assert device.kind == "cuda"
        assert device.total_bytes == pytest.approx(real.total_bytes, rel=0.02)
        assert device.bandwidth_gbps == real.bandwidth_gbps
        assert device.tflops == pytest.approx(real.tflops, rel=0.01)
    assert found["CUDA1"].link_gbps == link_gbps(4, 16)
    host = found["CPU"]
    assert (host.total_bytes, host.bandwidth_gbps) == (384 * GIB, 236)
    assert host.tflops == pytest.approx(32 * 0.055)


@pytest.mark.parametrize(
    ("card", "code", "near"),
    [
        ("RTX 5095", "unknown_card", "GeForce RTX 5090"),
        ("RTX 4090 Laptop GPU", "unknown_card", "GeForce RTX 4090"),
        ("H100", "ambiguous_card", "H100 PCIe 80 GB"),
        ("RTX 6000", "ambiguous_card", "RTX 6000 Ada Generation 48 GB"),
        ("RTX 3060", "ambiguous_card", "GeForce RTX 3060 12 GB"),
        ("", "unknown_card", "GeForce"),
    ],
)
def test_a_card_that_is_not_clear_is_refused_with_the_near_ones(
    card: str, code: str, near: str
) -> None:
    with pytest.raises(OmniError) as refused:
        what_if_devices(RigSpec((CardSpec(card),), None, None))
    assert refused.value.code == code
    assert near in refused.value.fix


def test_engines_number_each_kind_and_a_card_without_a_link_has_its_best() -> None:
    names = ("5090", "RX 7900 XTX", "RTX 3090", "Arc B580")
    found = what_if_devices(RigSpec(tuple(map(CardSpec, names)), 64 * GIB, 80))

    assert list(found) == ["CUDA0", "Vulkan0", "CUDA1", "Vulkan1", "CPU"]
    links = [device.link_gbps for device in found.values()]
    best = [(5, 16), (4, 16), (4, 16), (4, 8)]
    assert links == [*(link_gbps(*each) for each in best), None]
    assert found["Vulkan0"].kind == "vulkan" and found["CPU"].tflops


@pytest.mark.parametrize(
    ("card", "link", "expected"),
    [
        ("RTX 3090", "gen5 x16", "gen4 x16 at most"),
        ("RTX 3090", "gen5", "gen4 x16 at most"),
        ("Arc B580", "x16", "gen4 x8 at most"),
        ("5090", "gen6 x4", "gen5 x16 at most"),
        ("RTX 3090", "gen4 x16", (4, 16)),
        ("RTX 3090", "gen3 x4", (3, 4)),
        # What is not said is the card's best.
        ("RTX 3090", "gen3", (3, 16)),
        ("RTX 3090", "x4", (4, 4)),
    ],
)
def test_a_link_is_no_faster_than_the_card(
    card: str, link: str, expected: str | tuple[int, int]
) -> None:
    rig = RigSpec((CardSpec(card, link),), None, None)
    if isinstance(expected, tuple):
        device, _host = what_if_devices(rig).values()
        assert device.link_gbps == link_gbps(*expected)
        return
    with pytest.raises(OmniError) as refused:
        what_if_devices(rig)
    assert refused.value.code == "link_beyond_card"
    assert expected in refused.value.text and "leave it out" in refused.value.fix


@pytest.mark.parametrize("link", ["gen9 x16", "fast", "gen4 x16 or so", "x3"])
def test_a_link_that_cannot_be_read_is_refused(link: str) -> None:
    with pytest.raises(OmniError) as refused:
        what_if_devices(RigSpec((CardSpec("5090", link),), None, None))
    assert refused.value.code == "unknown_link"
    assert link in refused.value.text
