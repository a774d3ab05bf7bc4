"""Layouts that are not deployed are benchmarked by trials, which nobody else is offered and which
go away with the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.bench.candidates import candidates
from deployments.bench.executing import execute
from deployments.bench.prepared import in_the_way_of, restore
from deployments.bench.runs import benchmark_cancel, benchmark_forget, get_benchmark
from deployments.bench.trials import SECONDS_EACH, trial_request
from deployments.gateway.directory import read_table
from deployments.gateway.routing import route_request
from deployments.models import BenchmarkRun, Deployment, Instance, Model
from deployments.names import LENGTH
from deployments.rig.export import rig_text
from deployments.services.deployments import deployment_delete, deployment_start
from deployments.services.trials import end_trials_left, trial_name
from gpus.models import Host
from omni.errors import OmniError
from tests.helpers import squeezed

State = BenchmarkRun.State
Make = Callable[..., Deployment]
GATEWAY = "http://127.0.0.1:1"
ROOMY = {"context": 4096}


def layout(
    strategy: str = "independent", *devices: str, **changes: Any
) -> dict[str, Any]:
    found = {
        "name": "any",
        "strategy": strategy,
        "models": {"model": Model.objects.get().name},
        "devices": {"model": list(devices or ("CPU",))},
        "settings": ROOMY,
    }
    return found | changes


def measured(*wanted: dict[str, Any], **changes: Any) -> BenchmarkRun:
    return trial_request(wanted=wanted, gateway=GATEWAY, **changes)


def trials() -> list[str]:
    rows = Deployment.objects.filter(trial_of__isnull=False, is_deleting=False)
    return list(rows.values_list("name", flat=True))


@pytest.fixture
def some(engine: object, model: Model) -> None:
    """An engine and a model; nothing is deployed."""


# --- asking ---------------------------------------------------------------------------------------
def test_what_is_deployed_is_measured_as_it_is_and_each_other_by_a_trial(
    some: None, make_deployment: Make, model: Model
) -> None:
    make_deployment("mine", settings={**ROOMY, "threads": 2})
    split = layout("layer_split", "RPC0", "RPC1")
    run = measured(layout(), layout("independent", "RPC0"), split, concurrency=(1, 2))
    names = [f"{model.name}-independent", f"{model.name}-layer_split"]
    assert run.names == ["mine", *names]
    assert sorted(trials()) == sorted(names)
    made = Deployment.objects.get(name=names[1])
    assert (made.trial_of, made.desired) == (run.pk, "stopped")
    assert (made.strategy, made.settings) == ("layer_split", ROOMY)
    assert [each.devices for each in made.bindings.all()] == [["RPC0", "RPC1"]]
    assert (run.state, run.swaps, run.makes_room) == (State.QUEUED, True, True)
    assert run.seconds == SECONDS_EACH * 3 * 2


@pytest.mark.parametrize(
    ("there", "wanted", "is_same"),
    [
        ({}, {}, True),
        ({"threads": 2, "idle_unload_s": 60}, {}, True),
        ({}, {"parallel": 1, "flash_attention": "auto"}, True),
        ({}, {"parallel": "1"}, True),
        ({}, {"parallel": 2}, False),
        ({"threads": 2}, {"threads": 1}, False),
    ],
)
def test_a_deployment_is_the_same_as_far_as_settings_are_given(
    some: None,
    make_deployment: Make,
    there: dict[str, Any],
    wanted: dict[str, Any],
    is_same: bool,
) -> None:
    make_deployment("mine", settings=ROOMY | there)
    run = measured(layout(settings=ROOMY | wanted))
    assert (run.names == ["mine"]) == is_same
    assert len(trials()) == (not is_same)


def test_what_a_plan_decided_is_the_same_as_what_was_left_to_it(
    make_deployment: Make,
) -> None:
    deployment_start(deployment=make_deployment("mine", settings=ROOMY))
    run = measured(layout(settings=ROOMY | {"gpu_layers": "auto"}))
    assert run.names == ["mine"]


def test_one_layout_alone_is_measured_without_swaps_and_the_same_one_once(
    some: None,
) -> None:
    run = measured(layout(), layout(name="again"))
    assert (len(run.names), run.swaps, run.seconds) == (1, False, SECONDS_EACH)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"models": {"model": "nobody"}}, "unknown_model"),
        ({"models": {}}, "no_model"),
        ({"engine": "nobody"}, "unknown_engine"),
        ({"devices": {"model": ["CUDA7"]}}, "unknown_device"),
        ({"devices": {}}, "no_device"),
        ({"settings": {"contxt": 1}}, "unknown_setting"),
        ({"strategy": "nothing"}, "unknown_strategy"),
        (
            {"settings": {"context": 512}, "scenario": "long_prompt"},
            "context_too_small",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_kept(
    some: None, wanted: dict[str, Any], code: str
) -> None:
    scenario = wanted.pop("scenario", "chat")
    with pytest.raises(OmniError) as refused:
        measured(layout("independent", "RPC0"), layout(**wanted), scenario=scenario)
    assert refused.value.code == code
    assert not BenchmarkRun.objects.exists() and not Deployment.objects.exists()


def test_who_may_not_operate_measures_nothing(some: None) -> None:
    with pytest.raises(OmniError) as refused:
        measured(layout(), user=AnonymousUser())
    assert refused.value.code == "forbidden"
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("length", [5, 45, 120])
def test_the_name_of_a_trial_has_the_strategy_in_it_and_room_for_a_number(
    make_deployment: Make, length: int
) -> None:
    first = trial_name("m" * length, "expert_offload")
    make_deployment(first)
    second = trial_name("m" * length, "expert_offload")
    assert first.endswith("-expert_offload") and second == f"{first}-2"
    assert len(second) <= LENGTH["deployments"]


# --- who sees them --------------------------------------------------------------------------------
def test_a_trial_is_offered_to_nobody_and_answers_who_knows_its_name(
    some: None, viewer: Client
) -> None:
    run = measured(layout())
    (name,) = run.names
    Deployment.objects.update(desired="running")
    table = read_table()
    assert table.public_names() == []
    assert route_request(name, table).serving.name == name
    with pytest.raises(OmniError) as refused:
        route_request("auto", table)
    assert refused.value.code == "no_deployment_ready"

    assert not Deployment.giving_text().exists() and candidates() == []
    assert name not in rig_text()
    page = squeezed(viewer.get("/deployments/").content.decode())
    assert "Trial: goes away after" in page and f"benchmark {run.pk}" in page


# --- the end --------------------------------------------------------------------------------------
def cancelled(run: BenchmarkRun) -> None:
    benchmark_cancel(run=run)


def left_by_its_process(run: BenchmarkRun) -> None:
    BenchmarkRun.objects.filter(pk=run.pk).update(state=State.RUNNING)
    execute(run.pk)


def given_up(run: BenchmarkRun) -> None:
    """By the agent, as in supervision/benchmarks.py."""
    BenchmarkRun.objects.filter(pk=run.pk).update(state=State.FAILED)


def deleted(run: BenchmarkRun) -> None:
    """In the middle of it."""
    BenchmarkRun.objects.filter(pk=run.pk).delete()


def cancelled_and_deleted(run: BenchmarkRun) -> None:
    benchmark_cancel(run=run)
    benchmark_forget(run=get_benchmark(run.pk))


@pytest.mark.parametrize(
    ("ends", "needs_agent"),
    [
        (cancelled, False),
        (left_by_its_process, False),
        (cancelled_and_deleted, False),
        (given_up, True),
        (deleted, True),
    ],
)
def test_trials_go_away_however_a_run_ends(
    some: None,
    host: Host,
    make_deployment: Make,
    ends: Callable[[BenchmarkRun], None],
    needs_agent: bool,
) -> None:
    make_deployment("mine", settings=ROOMY)
    other = measured(layout("independent", "RPC1"))
    run = measured(layout(), layout("independent", "RPC0"))
    kept = set(other.names)
    end_trials_left(host, lambda number: False)
    assert set(trials()) == kept | set(run.names) - {"mine"}
    ends(run)
    assert (set(trials()) == kept) == (not needs_agent)
    end_trials_left(host, lambda number: False)
    assert set(trials()) == kept
    assert not Deployment.objects.get(name="mine").is_deleting


def test_the_process_of_a_run_that_is_over_removes_its_trials_itself(
    some: None, host: Host
) -> None:
    """Until then the planner learns from them."""
    run = measured(layout())
    BenchmarkRun.objects.update(state=State.DONE)
    end_trials_left(host, lambda number: number == run.pk)
    assert trials() == run.names


def test_nothing_but_one_question_is_asked_where_there_is_no_trial(
    host: Host, make_deployment: Make
) -> None:
    make_deployment("mine")
    with CaptureQueriesContext(connection) as asked:
        end_trials_left(host, lambda number: False)
    assert len(asked) == 1


# --- room -----------------------------------------------------------------------------------------
def test_what_is_in_the_way_is_what_runs_and_leaves_no_room(
    some: None, make_deployment: Make, model: Model
) -> None:
    """An RPC server serves one engine at a time."""
    for number, name in enumerate(("there", "elsewhere")):
        members = {"model": (model, [f"RPC{number}"])}
        row = make_deployment(name, members=members, settings=ROOMY)
        Instance.objects.create(
            host=row.host, deployment=row, role="model", state="ready", pid=1 + number
        )
    stopped = {"members": {"model": (model, ["RPC0"])}, "settings": ROOMY}
    make_deployment("stopped", **stopped)
    run = measured(layout("independent", "RPC0", settings=ROOMY | {"threads": 1}))
    assert in_the_way_of(run.names) == ["there"]
    run = measured(layout("layer_split", "RPC0", "RPC1"))
    assert sorted(in_the_way_of(run.names)) == ["elsewhere", "there"]


def test_what_ran_before_runs_again_also_when_a_trial_is_gone_by_then(
    some: None, make_deployment: Make
) -> None:
    make_deployment("mine", settings=ROOMY)
    run = measured(layout("independent", "RPC0"))
    (trial,) = run.names
    deployment_delete(deployment=Deployment.objects.get(name=trial))
    restore({trial: False, "mine": True})
    assert Deployment.objects.get(name="mine").desired == "running"
