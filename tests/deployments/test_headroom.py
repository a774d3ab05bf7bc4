"""How much longer a context a layout could have, and what would make one fit that does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.advice.layouts import Layout
from deployments.advice.what_if import CardSpec, RigSpec, what_if_devices
from deployments.models import Engine, Model
from deployments.planning.corrections import Past
from deployments.planning.plan import Verdict
from deployments.services.headroom import STEP, longest_context, nearest
from deployments.services.layout_plans import Bench, Planned, planned_on
from omni.units import GIB

CODER, BIG = "qwen2.5-coder-32b-instruct-q4_k_m", "llama-3.3-70b-instruct-q4_k_m"
HUGE, R1 = "qwen3-235b-a22b-q4_k_m", "deepseek-r1-0528-q4_k_m"
OWNERS_CARDS = ("RTX PRO 6000 Blackwell Workstation Edition", "RTX 5090")
TRAINED = {CODER: 32_768, BIG: 131_072, HUGE: 40_960, R1: 163_840}


def bench(cards: Sequence[str] = OWNERS_CARDS, ram_gib: int = 384) -> Bench:
    spec = RigSpec(tuple(map(CardSpec, cards)), ram_gib * GIB, 236)
    return Bench(what_if_devices(spec), Past(()))


def laid_out(
    rig: Bench,
    model: Model,
    strategy: str,
    devices: Mapping[str, Sequence[str]],
    context: int,
    users: int = 1,
    **more: int | str,
) -> Planned:
    return planned_on(
        rig,
        Planned(
            model,
            Engine.objects.get(),
            Layout(strategy, {role: tuple(names) for role, names in devices.items()}),
            {"context": context * users, "parallel": users, **more},
            {role: (model, list(names)) for role, names in devices.items()},
        ),
    )


def again(planned: Planned, rig: Bench, tokens: int) -> Planned:
    """The same with another context for each user, its layers where they are."""
    users = int(planned.settings["parallel"])
    kept = {
        k: v
        for k, v in planned.settings.items()
        if k not in {"tensor_split", "n_cpu_moe"}
    }
    wanted = {**kept, "context": tokens * users}
    return planned_on(rig, replace(planned, settings=wanted))


# --- the longest context --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "strategy", "devices", "users"),
    [
        (CODER, "independent", ["CUDA1"], 1),
        (CODER, "independent", ["CUDA1"], 8),
        (BIG, "independent", ["CUDA0"], 4),
        (BIG, "independent", ["CUDA1"], 1),
        (BIG, "tensor_split", ["CUDA0", "CUDA1"], 1),
        (HUGE, "layer_split", ["CUDA0", "CUDA1"], 1),
        (HUGE, "expert_offload", ["CUDA1"], 2),
        (R1, "independent", ["CPU"], 2),
    ],
)
def test_the_longest_context_fits_and_a_step_more_does_not(
    name: str,
    strategy: str,
    devices: list[str],
    users: int,
    owned: Callable[[str], Model],
) -> None:
    rig = bench()
    planned = laid_out(rig, owned(name), strategy, {"model": devices}, 4096, users)
    assert planned.can_serve
    found = longest_context(planned, rig)
    assert found and 4096 <= found <= TRAINED[name]
    assert again(planned, rig, found).can_serve
    if found < TRAINED[name]:
        assert found % STEP == 0
        assert not again(planned, rig, found + STEP).can_serve


def test_a_smaller_cache_has_room_for_more_and_what_never_fits_has_none(
    owned: Callable[[str], Model],
) -> None:
    rig, model = bench(), owned(CODER)
    small = {"kv_cache_k": "q8_0", "kv_cache_v": "q8_0"}
    plain = laid_out(rig, model, "independent", {"model": ["CUDA1"]}, 2048, 4)
    in_q8 = laid_out(rig, model, "independent", {"model": ["CUDA1"]}, 2048, 4, **small)
    shorter, longer = longest_context(plain, rig), longest_context(in_q8, rig)
    assert shorter and longer and shorter * 1.5 < longer

    never = laid_out(
        rig, owned(HUGE), "tensor_split", {"model": ["CUDA0", "CUDA1"]}, 2048
    )
    assert not never.can_serve and longest_context(never, rig) is None
    nowhere = laid_out(rig, model, "independent", {"model": ["CUDA7"]}, 2048)
    assert nowhere.error and longest_context(nowhere, rig) is None


def test_few_plans_are_made_for_it(
    owned: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = bench()
    planned = laid_out(rig, owned(R1), "independent", {"model": ["CPU"]}, 2048)
    made = []

    def counted(bench: Bench, wanted: Planned) -> Planned:
        made.append(wanted)
        return planned_on(bench, wanted)

    monkeypatch.setattr("deployments.services.headroom.planned_on", counted)
    assert longest_context(planned, rig)
    assert 1 < len(made) <= 10


# --- what would make it fit -----------------------------------------------------------------------
SMALL = {"kv_cache_k": "q8_0", "kv_cache_v": "q8_0"}
PAIR = ["CUDA0", "CUDA1"]


@pytest.mark.parametrize(
    ("name", "strategy", "devices", "context", "users", "more", "text", "changed"),
    [
        (BIG, "tensor_split", PAIR, 98_304, 4, {}, "with the KV cache in q8_0", {*SMALL}),
        (BIG, "tensor_split", PAIR, 131_072, 1, SMALL, None, set()),
        (BIG, "tensor_split", PAIR, 131_072, 4, SMALL, "with a context of ", {"context"}),
        (HUGE, "tensor_split", PAIR, 4096, 1, {}, "with expert offload", set()),
        (R1, "independent", ["CPU"], 131_072, 4, {}, "for each of 4 users", {"context"}),
    ],
)  # fmt: skip
def test_the_smallest_change_is_told(
    name: str,
    strategy: str,
    devices: list[str],
    context: int,
    users: int,
    more: dict[str, str],
    text: str | None,
    changed: set[str],
    owned: Callable[[str], Model],
) -> None:
    rig = bench()
    roles = {"model": devices}
    planned = laid_out(rig, owned(name), strategy, roles, context, users, **more)
    found = nearest(planned, rig)
    if text is None:
        assert found is None and planned.can_serve
        return
    assert found, planned.plan and planned.plan.reasons
    assert found.text.startswith("Fits ") and text in found.text
    assert set(found.settings) == changed
    is_sibling = "expert offload" in text
    assert found.strategy == ("expert_offload" if is_sibling else strategy)


def test_users_are_fewer_only_where_shorter_contexts_would_be_too_short(
    owned: Callable[[str], Model],
) -> None:
    rig = bench(("RTX 5090", "RTX 5090"))
    planned = laid_out(rig, owned(BIG), "tensor_split", {"model": PAIR}, 4096, 64)
    found = nearest(planned, rig)
    assert found and re.fullmatch(r"Fits for \d+ users", found.text)
    users = int(found.settings["parallel"])
    assert 1 < users < 64 and found.settings["context"] == users * 4096
    more = {"context": (users + 1) * 4096, "parallel": users + 1}
    assert not planned_on(rig, replace(planned, settings=more)).can_serve


def test_what_something_else_stands_against_has_no_change(
    owned: Callable[[str], Model],
) -> None:
    rig = bench()
    refused = laid_out(rig, owned(R1), "tensor_split", {"model": PAIR}, 4096)
    assert not refused.can_serve and nearest(refused, rig) is None
    dense = laid_out(rig, owned(BIG), "expert_offload", {"model": ["CUDA0"]}, 4096)
    assert not dense.can_serve and nearest(dense, rig) is None
    nowhere = laid_out(rig, owned(BIG), "independent", {"model": ["CUDA7"]}, 4096)
    assert nowhere.error and nearest(nowhere, rig) is None


CARDS = ("RTX 5090", "RTX 4090", "RTX 3060 12 GB", "RTX 4070")


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_is_proposed_can_serve(
    data: st.DataObject, owners_models: dict[str, Model]
) -> None:
    cards = data.draw(st.lists(st.sampled_from(CARDS), min_size=1, max_size=3))
    rig = bench(cards, data.draw(st.sampled_from([8, 32, 128, 384])))
    places = [name for name in rig.devices if name != "CPU"]
    layouts = [("independent", ["CPU"]), ("expert_offload", places)]
    layouts += [("independent", [name]) for name in places]
    if len(places) > 1:
        layouts += [("layer_split", places), ("tensor_split", places)]
    strategy, devices = data.draw(st.sampled_from(layouts))
    planned = laid_out(
        rig,
        owners_models[data.draw(st.sampled_from(sorted(owners_models)))],
        strategy,
        {"model": devices},
        data.draw(st.sampled_from([2048, 8192, 40_000, 131_072])),
        data.draw(st.sampled_from([1, 2, 7, 32])),
    )
    found = nearest(planned, rig)
    if not found:
        return
    assert not planned.can_serve
    again = planned_on(
        rig,
        replace(
            found.planned,
            layout=replace(found.planned.layout, strategy=found.strategy),
            settings={**planned.settings, **found.planned.settings},
        ),
    )
    assert again.plan and again.plan.verdict != Verdict.NOT_VIABLE, found.text


@pytest.fixture
def owners_models(owned: Callable[[str], Model]) -> dict[str, Model]:
    return {name: owned(name) for name in (CODER, BIG, HUGE, R1)}
