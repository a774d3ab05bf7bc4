"""What the planner says of models that hardly fit the owner's rig, or do not fit: what lacks and
what would help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.planning.memory.placement import layer_devices
from deployments.planning.memory.shares import shortest_cut, small_ratio
from deployments.planning.plan import DeviceFacts, Member, Plan, Verdict
from deployments.planning.settings import SETTINGS
from deployments.strategies import STRATEGIES
from omni.errors import OmniError
from tests.deployments.gguf_corpus import smollm2
from tests.planning import stand_ins
from tests.planning.owners_rig import (
    CPU,
    RTX_5090,
    RTX_PRO_6000,
    codes,
    member,
    plan,
    reason,
)

GIB = 1 << 30
Large = Callable[..., Member]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    """A large model of stand_ins by its name, on these devices."""
    folder, written = tmp_path_factory.mktemp("large"), dict[str, Path]()

    def made(name: str, *devices: DeviceFacts) -> Member:
        if name not in written:
            written[name] = getattr(stand_ins, name)(folder / f"{name}.gguf")
        return member(written[name], *devices)

    return made


def with_ram(gib: int) -> DeviceFacts:
    return replace(CPU, total_bytes=gib * GIB, free_bytes=gib * GIB)


def on_both(
    large: Large,
    name: str,
    strategy: str,
    flags: frozenset[str],
    ram_gib: int = 384,
    **settings: object,
) -> Plan:
    rig = (RTX_PRO_6000, RTX_5090, with_ram(ram_gib))
    return plan(
        strategy, {"model": large(name, RTX_PRO_6000, RTX_5090)}, flags, rig, **settings
    )


# --- shares ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rooms", "shares"),
    [
        ([96 * GIB, 32 * GIB], (3, 1)),
        ([95 * GIB, 31 * GIB], (3, 1)),
        ([23 * GIB, 23 * GIB], (1, 1)),
        ([GIB, 0], (1, 0)),
        ([96 * GIB, 1], (1, 0)),
        ([0, 0], (1, 1)),
        ([96 * GIB, None], (1, 1)),
        ([24 * GIB, 24 * GIB, 12 * GIB], (2, 2, 1)),
    ],
)
def test_room_as_a_ratio_is_short(
    rooms: list[int | None], shares: tuple[float, ...]
) -> None:
    assert small_ratio(rooms) == shares


@pytest.mark.parametrize(
    "counts", [(76, 19), (74, 21), (95, 0), (1, 94), (48, 47), (30, 30, 35), (1, 1, 93)]
)
def test_the_shortest_cut_puts_every_layer_where_the_long_one_does(
    counts: tuple[int, ...],
) -> None:
    short = shortest_cut(94, None, counts)
    assert layer_devices(94, short, None) == layer_devices(
        94, [float(count) for count in counts], None
    )
    assert sum(short) <= sum(counts)


def test_four_to_one_is_written_as_4_1() -> None:
    assert shortest_cut(94, None, (76, 19)) == (4, 1)


@pytest.mark.parametrize("ram_gib", [8, 16, 64, 384])
@pytest.mark.parametrize("name", ["qwen3_235b", "llama_70b", "deepseek_r1"])
@pytest.mark.parametrize(
    "strategy", [name for name, each in STRATEGIES.items() if each.roles == ("model",)]
)
def test_the_planner_takes_its_own_shares(
    large: Large, real_flags: frozenset[str], strategy: str, name: str, ram_gib: int
) -> None:
    found = on_both(large, name, strategy, real_flags, ram_gib, context=4096)
    if shares := found.settings.get("tensor_split"):
        assert SETTINGS["tensor_split"].parsed(shares) == shares
        assert re.fullmatch(r"\d{1,3},\d{1,3}", str(shares))
    if found.verdict == Verdict.NOT_VIABLE:
        assert all(each.text for each in found.reasons)


# --- what fits, and what lacks --------------------------------------------------------------------
def test_expert_offload_over_both_cards_is_found_for_the_235b(
    large: Large, real_flags: frozenset[str]
) -> None:
    """Also where the host has little room: its experts are as few as the cards allow."""
    found = on_both(
        large, "qwen3_235b", "expert_offload", real_flags, ram_gib=24, context=4096
    )
    assert (found.verdict, found.settings["gpu_layers"]) == (Verdict.VIABLE, "all")
    assert 5 <= int(found.settings["n_cpu_moe"]) <= 14
    argv = found.instances[0].argv
    shares = argv[argv.index("-ts") + 1]
    assert re.fullmatch(r"\d{1,2},\d", shares) and "-ncmoe" in argv
    assert found.predicted.decode_tps and found.predicted.prefill_tps


def test_what_fits_nowhere_says_what_lacks_and_what_would_fit(
    large: Large, real_flags: frozenset[str]
) -> None:
    found = on_both(large, "deepseek_r1", "expert_offload", real_flags, ram_gib=128)
    (lacks,) = [each for each in found.reasons if each.code == "does_not_fit"]
    assert re.fullmatch(
        r"CPU would have to hold 2\d\d GiB and has 128 GiB: 1\d\d GiB too little\.",
        lacks.text,
    )
    assert re.search(
        r"fits as a file of about \d+ GiB, which is \d\.\d bits per weight", lacks.fix
    )


@pytest.mark.parametrize(
    ("name", "strategy", "settings", "fix", "changes"),
    [
        (
            "qwen3_235b",
            "layer_split",
            {"gpu_layers": "all"},
            "let the planner choose",
            {"gpu_layers": "auto"},
        ),
        (
            "qwen3_235b",
            "expert_offload",
            {"n_cpu_moe": 0, "gpu_layers": "all"},
            "",
            None,
        ),
        (
            "llama_70b",
            "layer_split",
            {"gpu_layers": "all", "tensor_split": "0,1"},
            "Shares of",
            None,
        ),
        (
            "llama_70b",
            "independent",
            {"gpu_layers": "all", "context": 262144, "parallel": 2},
            "tokens fits",
            None,
        ),
    ],
)
def test_a_refused_plan_names_the_smallest_change_that_fits(
    large: Large,
    real_flags: frozenset[str],
    name: str,
    strategy: str,
    settings: dict[str, object],
    fix: str,
    changes: dict[str, object] | None,
) -> None:
    found = on_both(large, name, strategy, real_flags, **settings)
    refused = next(each for each in found.reasons if each.code == "does_not_fit")
    assert fix in refused.fix and refused.changes
    if changes is not None:
        assert refused.changes == changes
    again = on_both(
        large, name, strategy, real_flags, **{**settings, **refused.changes}
    )
    assert again.verdict != Verdict.NOT_VIABLE, [each.text for each in again.reasons]


def test_another_card_of_the_host_is_named_where_it_would_do(
    large: Large, real_flags: frozenset[str]
) -> None:
    rig = (RTX_5090, replace(RTX_5090, name="CUDA2"), with_ram(8))
    found = plan(
        "independent",
        {"model": large("llama_70b", RTX_5090)},
        real_flags,
        rig,
        context=4096,
    )
    assert found.verdict == Verdict.NOT_VIABLE
    assert (
        next(r for r in found.reasons if r.code == "does_not_fit").fix
        == "Layer split over CUDA1 and CUDA2 fits."
    )


def test_a_device_with_nothing_free_holds_nothing(real_flags: frozenset[str]) -> None:
    """Nothing free is known; it is no size that nobody knows."""
    full = DeviceFacts(
        "RPC0", "rpc", 8 * GIB, 0, endpoint="127.0.0.1:1", is_stand_in=True
    )
    found = plan(
        "independent",
        {"model": member(smollm2(), full)},
        real_flags,
        (full, CPU),
        gpu_layers="all",
    )
    assert (found.verdict, codes(found)) == (Verdict.NOT_VIABLE, ["does_not_fit"])


@pytest.mark.parametrize("strategy", ["layer_split", "tensor_split", "expert_offload"])
@pytest.mark.parametrize("shares", ["0,0", "0,0,1"])
def test_shares_that_give_nothing_to_anybody_are_refused(
    large: Large, real_flags: frozenset[str], strategy: str, shares: str
) -> None:
    with pytest.raises(OmniError, match=r"gives nothing to CUDA0 and CUDA1\."):
        on_both(large, "gpt_oss_20b", strategy, real_flags, tensor_split=shares)


# --- one model on one device ----------------------------------------------------------------------
def test_independent_takes_the_best_one_of_the_devices(
    large: Large, real_flags: frozenset[str]
) -> None:
    found = on_both(large, "llama_70b", "independent", real_flags)
    assert (found.verdict, found.instances[0].devices) == (Verdict.VIABLE, ("CUDA0",))
    assert "-ts" not in found.instances[0].argv and "-sm" not in found.instances[0].argv
    assert (
        reason(found, "one_device")
        == "One model on one device: CUDA0 is the best of the 2 that are chosen."
    )


def test_independent_on_one_device_says_nothing_of_a_choice(
    large: Large, real_flags: frozenset[str]
) -> None:
    found = plan("independent", {"model": large("llama_1b", RTX_5090, CPU)}, real_flags)
    assert (found.verdict, codes(found)) == (Verdict.VIABLE, [])


@pytest.mark.parametrize("name", ["qwen3_235b", "llama_70b", "llama_1b", "gpt_oss_20b"])
def test_no_two_strategies_print_one_command_under_two_verdicts(
    large: Large, real_flags: frozenset[str], name: str
) -> None:
    cards: list[tuple[DeviceFacts, ...]] = [
        (RTX_PRO_6000,),
        (RTX_5090,),
        (RTX_PRO_6000, RTX_5090),
        (CPU,),
    ]
    verdicts: dict[object, Verdict] = {}
    for chosen in cards:
        for strategy, each in STRATEGIES.items():
            if "model" not in each.roles:
                continue
            found = plan(strategy, {"model": large(name, *chosen)}, real_flags)
            for process in found.instances:
                key = (process.argv, tuple(process.env.items()))
                assert verdicts.setdefault(key, found.verdict) == found.verdict, (
                    strategy,
                    process.argv,
                )


# --- the context that can be used -----------------------------------------------------------------
def test_a_context_beyond_training_is_planned_with_what_can_be_used(
    real_flags: frozenset[str],
) -> None:
    """The engine caps each request at 8,192 and takes the memory of all that is asked for."""
    small = {"model": member(smollm2(), RTX_5090)}
    found, used = (
        plan("independent", small, real_flags, context=context)
        for context in (32768, 8192)
    )
    argv = found.instances[0].argv
    assert argv[argv.index("-c") + 1] == "8192" and found.devices == used.devices
    assert found.verdict == Verdict.CAUTION
    said = reason(found, "context_beyond_training")
    assert (
        "32,768 tokens of context are asked for" in said
        and "Planned with 8,192." in said
    )
    assert next(f.text for f in found.figures if f.code == "context") == "8,192 tokens"


def test_parallel_requests_have_the_trained_context_each(
    real_flags: frozenset[str],
) -> None:
    small = {"model": member(smollm2(), RTX_5090)}
    four = plan("independent", small, real_flags, context=32768, parallel=4)
    assert codes(four) == [] and four.settings["context"] == 32768
    more = plan("independent", small, real_flags, context=65536, parallel=4)
    assert more.settings["context"] == 32768 and "for each of 4 requests" in reason(
        more, "context_beyond_training"
    )


def test_a_draft_keeps_the_target_s_context(
    large: Large, real_flags: frozenset[str]
) -> None:
    """It is given as many cells as its target, whatever it was trained for itself."""
    target, draft = large("llama_70b", RTX_PRO_6000), member(smollm2(), RTX_5090)
    members = {"target": target, "draft": draft}
    short, long = (
        plan("speculative", members, real_flags, context=context)
        for context in (8192, 32768)
    )
    kv = [
        {use.name: use.kv_bytes for use in found.devices}["CUDA1"]
        for found in (short, long)
    ]
    assert kv[1] == 4 * kv[0]


def test_a_draft_is_planned_as_it_is_started_with_all_layers_on_its_device(
    large: Large, real_flags: frozenset[str]
) -> None:
    target = large("llama_70b", RTX_PRO_6000)
    draft = large("llama_1b", replace(RTX_5090, free_bytes=int(1.5 * GIB)))
    found = plan(
        "speculative", {"target": target, "draft": draft}, real_flags, context=8192
    )
    assert found.verdict == Verdict.NOT_VIABLE and "does_not_fit" in codes(found)
    held = {use.name: use.weights_bytes for use in found.devices}["CUDA1"]
    assert held > 0.9 * draft.shape.weights_bytes


# --- speeds ---------------------------------------------------------------------------------------
def test_every_model_of_the_owner_has_speeds(
    large: Large, real_flags: frozenset[str]
) -> None:
    """The 235B by expert offload over both cards, the others wherever they fit best."""
    ways = {
        "llama_70b": "independent",
        "qwen25_coder_32b": "independent",
        "llama_1b": "independent",
        "qwen3_235b": "expert_offload",
    }
    for name, strategy in ways.items():
        speed = on_both(large, name, strategy, real_flags).predicted
        assert (
            speed.decode_tps
            and speed.prefill_tps
            and speed.decode_range
            and speed.prefill_range
        ), name


@pytest.mark.parametrize("card", [RTX_PRO_6000, RTX_5090])
def test_a_small_mixture_of_experts_is_as_fast_as_published(
    large: Large, real_flags: frozenset[str], card: DeviceFacts
) -> None:
    """9,610 to 13,806 tokens/s were published for its prompts on these cards, 353 and 355 for its
    answers (tests/planning/published_speeds.py; ggml-org/llama.cpp pull request 17906)."""
    speed = plan(
        "independent", {"model": large("gpt_oss_20b", card)}, real_flags
    ).predicted
    assert 9_610 < (speed.prefill_tps or 0) < 13_806
    assert speed.decode_tps == pytest.approx(354, rel=0.15)
    low, high = speed.decode_range or (0, 0)
    assert low < 250 and high > 355


def test_a_range_is_as_wide_as_what_it_does_not_know(
    large: Large, real_flags: frozenset[str]
) -> None:
    """What the link carries of mapped weights nobody has measured."""
    found = on_both(large, "deepseek_r1", "expert_offload", real_flags, context=4096)
    low, high = found.predicted.prefill_range or (0, 0)
    assert high > 2.5 * low > 0
    ram, link = found.predicted.assumes
    assert "236 GB/s" in ram and "as it was measured" in ram
    assert re.search(
        r"a link of 63 GB/s: \d\d% of it is assumed, \d\d% to \d\d% is possible", link
    )


def test_what_rests_on_data_sheets_alone_assumes_nothing_else(
    large: Large, real_flags: frozenset[str]
) -> None:
    assert (
        plan(
            "independent", {"model": large("llama_1b", RTX_5090)}, real_flags
        ).predicted.assumes
        == ()
    )
