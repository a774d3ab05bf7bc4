"""Random models, rigs and settings through the Plan page's own comparison: two strategies never
have one command, and where they come to one they say the same of it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deployments.models import Engine, Model
from deployments.planning.corrections import Past
from deployments.planning.plan import DeviceFacts, Member
from deployments.planning.settings import conflicts
from deployments.services.comparing import (
    SAME_COMMAND,
    Choice,
    Compared,
    compare,
    each_command_once,
    every_plan,
)
from deployments.states import StrategyName
from deployments.strategies import STRATEGIES
from gpus.models import Host
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import cases
from tests.planning import stand_ins
from tests.planning.owners_rig import OWNERS_RIG, member
from tests.planning.test_no_contradiction import CASES, LARGE, Models, sized
from tests.planning.tiny_models import TINY, write_tiny

EXAMPLES = cases(60, 200)
DRAFTED = st.sampled_from([False, False, True])
WITH_CPU = st.booleans()
FLAVOURS = st.sampled_from(["llama.cpp", "llama.cpp", "ik_llama.cpp"])
# Of no strategy's name a part of another's, as they stand in the commands.
NAMES = {name: f"deployed-{name.replace('_', '-')}-end" for name in STRATEGIES}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    files = {"smollm2": smollm2()}
    files |= {name: write_tiny(folder / f"{name}.gguf", name) for name in TINY}
    files |= {name: getattr(stand_ins, name)(folder / f"{name}.gguf") for name in LARGE}
    return Models({name: member(path) for name, path in files.items()})


def model_row(found: Member, n_ctx_train: int | None = None) -> Model:
    """A row that no database has; shapes are kept by its number."""
    facts = found.facts
    if n_ctx_train is not None:
        facts = replace(facts, n_ctx_train=n_ctx_train)
    return Model(
        pk=zlib.crc32(found.path.encode()),
        name=found.name,
        path=f"/{found.name}.gguf",
        arch=facts.arch,
        facts=facts.as_dict(),
        shape=found.shape.to_dict(),
        vocab=found.vocab.to_dict(),
        state=Model.State.OK,
    )


def engine(flags: frozenset[str], flavour: str = "llama.cpp") -> Engine:
    return Engine(
        name="mine",
        flavour=flavour,
        path="/bin/llama-server",
        flags=sorted(flags),
        state=Engine.State.OK,
        host=Host(name="here"),
    )


def commands_of(row: Compared) -> list[tuple[str, ...]]:
    """Of each process, without the name of the deployment."""
    if not row.plan:
        return []
    return [
        tuple(
            word.replace(row.name, "NAME")
            for word in (*each.argv, *(f"{k}={v}" for k, v in sorted(each.env.items())))
        )
        for each in row.plan.instances
    ]


def check_one_verdict(rows: Sequence[Compared]) -> None:
    verdicts: dict[tuple[str, ...], tuple[object, str]] = {}
    for row in rows:
        for command in commands_of(row):
            verdict = row.plan.verdict if row.plan else None
            known, other = verdicts.setdefault(command, (verdict, row.title))
            assert known == verdict, (other, row.title, command)


def check_said_once(rows: Sequence[Compared]) -> None:
    """Each command in one row; the others of it name that one."""
    found = [tuple(commands_of(row)) for row in rows if commands_of(row)]
    assert len(found) == len(set(found))
    titles = [row.title for row in rows if row.plan]
    for row in rows:
        if row.error and row.error.code == SAME_COMMAND:
            assert any(title in row.error.text for title in titles), row.error


@pytest.mark.timeout(600)
@given(case=CASES, has_draft=DRAFTED, with_cpu=WITH_CPU, flavour=FLAVOURS)
@hypothesis_settings(
    max_examples=EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
def test_no_two_strategies_have_one_command(
    models: Models,
    real_flags: frozenset[str],
    case: dict[str, Any],
    has_draft: bool,
    with_cpu: bool,
    flavour: str,
) -> None:
    if conflicts(case["settings"]):
        return
    base = models[case["model"]]
    weights = base.shape.weights_bytes
    all_devices = (*case["devices"], DeviceFacts("CPU", bandwidth_gbps=50.0))
    rig = {
        device.name: sized(device, room, weights)
        for device, room in zip(all_devices, case["rooms"], strict=False)
    }
    choice = Choice(
        engine(real_flags, flavour),
        model_row(base, case["n_ctx_train"]),
        [name for name in rig if with_cpu or name != "CPU"],
        model_row(models["llama_1b"]) if has_draft else None,
        settings=case["settings"],
    )
    # What compare() does, one after the other.
    rows = every_plan(rig, choice, NAMES, Past())
    check_one_verdict(rows)
    check_said_once(list(each_command_once(rows)))


@pytest.mark.parametrize(
    ("names", "same"),
    [(["CUDA0"], "Independent"), (["CUDA0", "CUDA1"], "Layer split")],
)
def test_experts_that_all_fit_on_the_cards_are_the_plainer_strategy(
    models: Models, real_flags: frozenset[str], names: list[str], same: str
) -> None:
    rig = {device.name: device for device in OWNERS_RIG}
    chosen = Choice(engine(real_flags), model_row(models["gpt_oss_20b"]), names)
    rows = {row.strategy.name: row for row in compare(rig, chosen, NAMES, Past())}
    row = rows[StrategyName.EXPERT_OFFLOAD]
    assert row.plan is None and row.error
    assert row.error.code == SAME_COMMAND
    assert row.error.text == f"Here it comes to the same command as {same}."


def test_each_chosen_device_is_a_layout_of_its_own_and_the_best_has_the_name(
    models: Models, real_flags: frozenset[str]
) -> None:
    rig = {device.name: device for device in OWNERS_RIG}
    names = ["CPU", "CUDA1", "CUDA0"]
    chosen = Choice(engine(real_flags), model_row(models["qwen25_coder_32b"]), names)
    rows = compare(rig, chosen, NAMES, Past())
    alone = [row for row in rows if row.strategy.name == StrategyName.INDEPENDENT]
    # The two cards read as fast as each other; only one of them computes faster.
    assert {row.device for row in alone} == set(names)
    assert [row.key for row in alone] == [
        "independent",
        f"independent-{alone[1].device}",
        "independent-CPU",
    ]
    assert all(len(row.plan.instances[0].devices) == 1 for row in alone if row.plan)
