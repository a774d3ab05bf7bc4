"""Shares of a split stand in commands and texts as people write them, and bytes are of those."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.planning.memory.settings import parsed_split, split_text
from deployments.planning.memory.shares import near_ratio
from deployments.planning.plan import Member, Plan
from tests.planning.owners_rig import RTX_5090, RTX_PRO_6000, member, plan
from tests.planning.stand_ins import llama_70b


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Member:
    path: Path = tmp_path_factory.mktemp("llama") / "llama.gguf"
    return member(llama_70b(path), RTX_PRO_6000, RTX_5090)


@pytest.mark.parametrize(
    ("shares", "ratio"),
    [
        ((103_079_215_104, 34_359_738_368), (3, 1)),
        ((97_887, 32_607), (3, 1)),
        ((101_000, 25_000), (4, 1)),
        ((0.75, 0.25), (3, 1)),
        ((60, 20, 20), (3, 1, 1)),
        ((32_607, 0, 97_887), (1, 0, 3)),
        ((74, 21), (7, 2)),
        # Further from 3,1 than 1 %.
        ((31, 10), (25, 8)),
        ((1, 93), (1, 93)),
        ((0, 0), (0, 0)),
        # Near to no short ratio.
        ((999_999, 1), (999_999, 1)),
    ],
)
def test_the_smallest_numbers_of_the_same_split_are_found(
    shares: tuple[float, ...], ratio: tuple[float, ...]
) -> None:
    assert near_ratio(shares) == ratio


@pytest.mark.parametrize(
    ("entered", "written"),
    [
        ("3,1", "3,1"),
        ("2.5,1", "2.5,1"),
        ("60.3,39.7", "60.3,39.7"),
        ("74,21", "74,21"),
        ("97887,32607", "3,1"),
        ("0.750115,0.249885", "3,1"),
        ("24576,24576,12288", "2,2,1"),
        ("0,32607", "0,1"),
    ],
)
def test_only_long_figures_are_written_anew(entered: str, written: str) -> None:
    shares = parsed_split(entered)
    assert shares and split_text(shares) == written
    assert parsed_split(written) == shares, "written again it is the same"


def shown_shares(found: Plan) -> str:
    argv = found.instances[0].argv
    return argv[argv.index("-ts") + 1]


@pytest.mark.parametrize("strategy", ["layer_split", "tensor_split"])
def test_bytes_and_speeds_are_of_the_shares_in_the_command(
    llama: Member, real_flags: frozenset[str], strategy: str
) -> None:
    def planned(shares: str) -> Plan:
        return plan(strategy, {"model": llama}, real_flags, tensor_split=shares)

    long = planned("97887,32607")
    assert shown_shares(long) == "3,1" and long == planned("3,1")
    auto = planned("auto")
    again = planned(shown_shares(auto))
    assert (again.devices, again.predicted) == (auto.devices, auto.predicted)


@pytest.mark.parametrize("context", [4096, 8192, 16_384, 32_768, 65_536, 131_072])
def test_the_planner_s_own_shares_are_short(
    llama: Member, real_flags: frozenset[str], context: int
) -> None:
    found = plan("layer_split", {"model": llama}, real_flags, context=context)
    assert max(map(float, shown_shares(found).split(","))) < 20
