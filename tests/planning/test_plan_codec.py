"""A plan that is stored is the same plan when it is read again, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deployments.engines import FLAVOURS, get_flavour
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PLACEHOLDERS,
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    InstancePlan,
    Member,
    Placeholder,
    Plan,
    PlanRequest,
    Verdict,
)
from deployments.planning.plan_codec import UnreadablePlan, decode, encode
from deployments.planning.roles import DRAFT, MAIN, assign
from deployments.strategies import STRATEGIES
from deployments.strategies.on_engine import plan_on_engine
from omni.errors import OmniError
from tests.deployments.engine_help import help_of
from tests.deployments.model_folders import QWEN3_32B, folder_member, write_folder
from tests.planning.owners_rig import OWNERS_RIG, member
from tests.planning.stand_ins import OWNERS_MODELS

GIB = 1 << 30
STAND_INS = tuple(
    DeviceFacts(
        f"RPC{number}",
        "rpc",
        24 * GIB,
        endpoint=f"127.0.0.1:{18990 + number}",
        is_stand_in=True,
        bandwidth_gbps=40.0,
    )
    for number in range(2)
)
RIG = (*OWNERS_RIG, *STAND_INS)
RECORDED = {
    "ik_llama.cpp": "ik_llama_cpp_help",
    "vllm": "vllm_flags",
    "tabbyapi": "tabbyapi_flags",
}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "context": st.sampled_from([512, 8192, 131_072]),
        "kv_cache_k": st.sampled_from(["f16", "q8_0"]),
        "parallel": st.sampled_from([1, 4]),
        "gpu_layers": st.sampled_from([0, 10, "all"]),
        "threads": st.just(4),
    },
)


def read_again(plan: Plan) -> Plan:
    """As the database gives it back."""
    return decode(json.loads(json.dumps(encode(plan), allow_nan=False)))


def kinds(data: Any) -> Any:
    """The same with the type of every value: equal texts may be a placeholder and none."""
    if isinstance(data, Mapping):
        return {key: kinds(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [kinds(value) for value in data]
    return (type(data), id(data)) if isinstance(data, Placeholder) else type(data)


def check(plan: Plan) -> None:
    again = read_again(plan)
    assert again == plan
    for before, after in zip(plan.instances, again.instances, strict=True):
        for field in fields(InstancePlan):
            assert kinds(getattr(after, field.name)) == kinds(
                getattr(before, field.name)
            )


# --- what strategies make -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Member]:
    folder = tmp_path_factory.mktemp("models")
    made = {
        name: write(folder / f"{name}.gguf") for name, write in OWNERS_MODELS.items()
    }
    return {name: member(path) for name, path in made.items()}


def planned(
    engine: EngineFacts,
    strategy: str,
    main: Member,
    draft: Member,
    devices: Sequence[DeviceFacts],
    settings: Mapping[str, object],
) -> Plan | None:
    found = STRATEGIES[strategy]
    by_name = {device.name: device for device in devices}
    try:
        parts = assign(found.roles, devices, has_draft=True, draft_device="")
        members = {
            role: Member(
                source.name,
                source.path,
                source.facts,
                source.shape,
                tuple(by_name[name] for name in part.devices),
            )
            for role, part in parts.items()
            for source in [{MAIN: main, DRAFT: draft}[part.source]]
        }
        request = PlanRequest(
            strategy,
            engine,
            members,
            settings,
            alias="m",
            host_devices=RIG,
            api_key_file=KEY_FILE,
            slots_folder="/s",
        )
        return plan_on_engine(found, request)
    except OmniError:
        return None


@given(
    name=st.sampled_from(sorted(OWNERS_MODELS)),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    devices=st.lists(st.sampled_from(RIG), min_size=1, max_size=3, unique=True),
    settings=SETTINGS,
)
@hypothesis_settings(max_examples=150, database=None)
def test_a_plan_of_the_owners_rig_or_of_stand_ins_is_read_as_it_was(
    models: dict[str, Member],
    real_flags: frozenset[str],
    name: str,
    strategy: str,
    devices: list[DeviceFacts],
    settings: dict[str, object],
) -> None:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", real_flags)
    small = models["llama-3.2-1b-instruct-q4_k_m"]
    plan = planned(engine, strategy, models[name], small, devices, settings)
    if plan:
        check(plan)


@pytest.mark.parametrize("flavour", sorted(RECORDED))
def test_a_plan_of_another_engine_is_read_as_it_was(
    models: dict[str, Member], tmp_path: Path, flavour: str
) -> None:
    flags = get_flavour(flavour).parse_flags(help_of(RECORDED[flavour]))
    engine = EngineFacts(flavour, flavour, f"/opt/{flavour}/main.py", flags)
    folder = folder_member(write_folder(tmp_path / "folder", QWEN3_32B))
    main = (
        models["qwen2.5-coder-32b-instruct-q4_k_m"]
        if flavour.startswith("ik")
        else folder
    )
    plans = [
        planned(engine, strategy, main, main, OWNERS_RIG[:2], {"context": 4096})
        for strategy in STRATEGIES
    ]
    made = [plan for plan in plans if plan and plan.instances]
    assert made, "none has a command"
    for plan in made:
        check(plan)


def test_every_flavour_is_covered() -> None:
    assert set(FLAVOURS) - {"external"} == {"llama.cpp", *RECORDED}


# --- whatever its fields hold ---------------------------------------------------------------------
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["{socket}", "placeholder", "map", "tuple"]
)
WORDS = TEXTS | st.sampled_from(list(PLACEHOLDERS.values()))
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(TEXTS, parts, max_size=3)
    ),
    max_leaves=8,
)
HELD: dict[str, Any] = {
    "argv": st.lists(WORDS, max_size=4).map(tuple),
    "env": st.dictionaries(TEXTS, WORDS, max_size=3),
    "files": st.dictionaries(TEXTS, DATA, max_size=2),
}
# A field that is added to InstancePlan is made up by its annotation: nothing is to be done here.
INSTANCES = st.builds(
    InstancePlan, **({f.name: ... for f in fields(InstancePlan)} | HELD)
)


@given(instances=st.lists(INSTANCES, max_size=2).map(tuple))
@hypothesis_settings(max_examples=100, database=None)
def test_whatever_an_instance_holds_is_read_as_it_was(
    instances: tuple[InstancePlan, ...],
) -> None:
    check(Plan("s", Verdict.VIABLE, instances=instances))


def test_a_text_that_looks_like_a_placeholder_stays_a_text() -> None:
    argv = (SOCKET, "{socket}", PORT, "{port}", KEY, KEY_FILE)
    plan = Plan("s", Verdict.VIABLE, instances=(InstancePlan("model", argv),))
    again = read_again(plan).instances[0].argv
    assert [word in PLACEHOLDERS.values() and type(word) is Placeholder for word in again] == [
        True, False, True, False, True, True,
    ]  # fmt: skip
    assert again[0] is SOCKET and again[4] is KEY


# --- what another version wrote -------------------------------------------------------------------
def spoilt(change: str) -> Any:
    data = encode(
        Plan("s", Verdict.VIABLE, instances=(InstancePlan("model", ("a", SOCKET)),))
    )
    plan = data["plan"]
    (instance,) = plan["instances"]["tuple"]
    match change:
        case "format":
            data["format"] = 0
        case "no plan":
            del data["plan"]
        case "missing field":
            del instance["argv"]
        case "unknown field":
            instance["colour"] = "red"
        case "other type":
            instance["file_bytes"] = "many"
        case "other parts":
            instance["argv"]["tuple"][0] = 1
        case "unknown verdict":
            plan["verdict"] = "perhaps"
        case "unknown placeholder":
            instance["argv"]["tuple"][1] = {"placeholder": "{colour}"}
        case "unknown tag":
            instance["argv"] = {"set": []}
    return data


@pytest.mark.parametrize(
    "change",
    [
        "format",
        "no plan",
        "missing field",
        "unknown field",
        "other type",
        "other parts",
        "unknown verdict",
        "unknown placeholder",
        "unknown tag",
    ],
)
def test_what_another_version_wrote_is_refused_and_not_guessed_at(change: str) -> None:
    with pytest.raises(UnreadablePlan):
        decode(spoilt(change))


@pytest.mark.parametrize(
    "data", [None, [], "plan", {}, {"format": 1}, {"format": 1, "plan": []}]
)
def test_what_is_no_plan_is_refused(data: object) -> None:
    with pytest.raises(UnreadablePlan):
        decode(data)
