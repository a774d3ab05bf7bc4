"""What a benchmark measured is kept once, beside what was predicted, and corrects plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import BenchmarkRun, Deployment, Measurement, Model, StoredPlan
from deployments.planning.corrections import Alike
from deployments.services import measurements
from deployments.services.benchmarked import keep_measured
from deployments.services.deployments import (
    deployment_change,
    deployment_start,
    deployment_stop,
    plan_deployment,
)
from deployments.services.effects import effects
from deployments.services.stored_plans import keep_plans_current
from gpus.models import Host
from tests.deployments.plan_page import card_of, page
from tests.deployments.planning_counted import Planner
from tests.helpers import squeezed

Make = Callable[..., Deployment]
SPLIT = {"strategy": "layer_split"}
BOTH = ["RPC0", "RPC1"]


@pytest.fixture(autouse=True)
def fast_enough(host: Host) -> None:
    """Speeds can be computed."""
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    return Planner(monkeypatch)


@pytest.fixture
def alone(make_deployment: Make, model: Model) -> Deployment:
    return started(make_deployment("alone", members={"model": (model, ["RPC0"])}))


@pytest.fixture
def split(make_deployment: Make, model: Model) -> Deployment:
    return started(make_deployment("split", members={"model": (model, BOTH)}, **SPLIT))


def started(deployment: Deployment) -> Deployment:
    deployment_start(deployment=deployment)
    deployment.refresh_from_db()
    return deployment


def computed(deployment: Deployment) -> tuple[float, float]:
    """Prefill and decode, from before any correction."""
    row = StoredPlan.objects.get(
        deployment=deployment, generation=deployment.generation
    )
    assert row.computed_prefill_tps and row.computed_decode_tps
    return row.computed_prefill_tps, row.computed_decode_tps


# --- documents ------------------------------------------------------------------------------------
def figure(value: float | None) -> dict[str, Any]:
    return {"p50": value, "p95": value, "mean": value, "low": None, "high": None}


def arm_of(
    deployment: Deployment, decode: float | None, prefill: float | None, **changes: Any
) -> dict[str, Any]:
    return {
        "deployment": deployment.name,
        "strategy": deployment.strategy,
        "concurrency": 1,
        "load": "",
        "decode_tps": figure(decode),
        "prefill_tps": figure(prefill),
        "start_ms": figure(None),
        **changes,
    }


def environment_of(deployment: Deployment) -> dict[str, Any]:
    bindings = deployment.bindings.select_related("model")
    return {
        "engine": deployment.engine.name,
        "build": deployment.engine.build,
        "generation": deployment.generation,
        "settings": deployment.settings,
        "extra_args": deployment.extra_args,
        "models": {
            each.role: {"name": each.model.name, "fingerprint": each.model.fingerprint}
            for each in bindings
        },
    }


def run_of(
    *arms: tuple[Deployment, dict[str, Any]],
    request: Mapping[str, Any] | None = None,
    count: int = 40,
    **changes: Any,
) -> BenchmarkRun:
    """A run that is done; each arm asked `count` questions."""
    asked = {
        "load": "",
        "ending": "done",
        "prompt_tokens": 300,
        "cached_tokens": 20,
        "output_tokens": 100,
        **(request or {}),
    }
    document = {
        "valid": True,
        "environment": {
            "deployments": {each.name: environment_of(each) for each, _ in arms}
        },
        "arms": [arm for _, arm in arms],
        "requests": [
            {
                "deployment": each.name,
                "concurrency": arm["concurrency"],
                **asked,
                "load": arm["load"],
            }
            for each, arm in arms
            for _ in range(count)
        ],
    }
    first = arms[0][0]
    return BenchmarkRun.objects.create(
        host=first.host,
        scenario="chat",
        most_rounds=10,
        gateway="http://127.0.0.1:8000",
        **{"state": "done", "document": document, **changes},
    )


# --- keeping --------------------------------------------------------------------------------------
def test_a_run_is_kept_once_with_what_was_computed(alone: Deployment) -> None:
    run = run_of((alone, arm_of(alone, 30.0, 200.0)))
    assert keep_measured(run) == 1
    assert keep_measured(run) == 0
    (kept,) = Measurement.objects.all()
    assert (kept.decode_tps, kept.prefill_tps) == (30.0, 200.0)
    assert (kept.computed_prefill_tps, kept.computed_decode_tps) == computed(alone)
    assert kept.predicted_decode_tps == kept.computed_decode_tps
    assert (kept.is_benchmark, kept.requests, kept.run) == (True, 40, run)
    assert (kept.devices, kept.strategy) == (["RPC0"], "independent")
    assert (kept.flavour, kept.build) == (alone.engine.flavour, alone.engine.build)
    assert kept.number_format == "Q4_1"
    # What it taught stays when the report goes.
    run.delete()
    kept.refresh_from_db()
    assert kept.is_benchmark and kept.run is None


@pytest.mark.parametrize(
    ("changes", "request_", "expected"),
    [
        ({}, {}, (30.0, 200.0)),
        ({"load": "alone"}, {}, (30.0, 200.0)),
        ({"load": "together"}, {}, None),
        ({"rate": 0.5, "concurrency": None}, {}, None),
        ({"think_s": 2.0}, {}, None),
        ({"concurrency": 4}, {}, None),
        # A cold start: its answers are the first of a process.
        ({"start_ms": figure(900.0)}, {}, None),
        ({"decode_tps": figure(None)}, {}, (None, 200.0)),
        # Too short to tell a rate; what was cached was not read.
        ({}, {"output_tokens": 5}, (None, 200.0)),
        ({}, {"prompt_tokens": 60}, (30.0, None)),
        ({}, {"cached_tokens": 290}, (30.0, None)),
        ({}, {"prompt_tokens": None, "output_tokens": None}, None),
        ({}, {"ending": "cut"}, None),
    ],
)
def test_only_what_a_prediction_speaks_of_is_kept(
    alone: Deployment,
    changes: dict[str, Any],
    request_: dict[str, Any],
    expected: tuple[float | None, float | None] | None,
) -> None:
    run = run_of((alone, arm_of(alone, 30.0, 200.0, **changes)), request=request_)
    assert keep_measured(run) == (expected is not None)
    found = [(row.decode_tps, row.prefill_tps) for row in Measurement.objects.all()]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    "changes", [{"state": "failed"}, {"state": "cancelled"}, {"document": None}]
)
def test_a_run_that_did_not_end_well_says_nothing(
    alone: Deployment, changes: dict[str, Any]
) -> None:
    assert not keep_measured(run_of((alone, arm_of(alone, 30.0, 200.0)), **changes))


def test_a_disturbed_run_says_nothing(alone: Deployment) -> None:
    run = run_of((alone, arm_of(alone, 30.0, 200.0)))
    run.document["valid"] = False
    assert not keep_measured(run) and not Measurement.objects.exists()


def test_what_is_not_as_it_was_measured_says_nothing(alone: Deployment) -> None:
    run = run_of((alone, arm_of(alone, 30.0, 200.0)))
    deployment_change(deployment=alone, settings={"context": 1024})
    assert not keep_measured(run)


def test_a_later_generation_that_differs_in_nothing_is_as_good(
    alone: Deployment,
) -> None:
    """Deployments that took turns are started again to put back what was wanted before."""
    run = run_of((alone, arm_of(alone, 30.0, 200.0)))
    deployment_stop(deployment=alone)
    started(alone)
    StoredPlan.objects.exclude(generation=alone.generation).delete()
    assert keep_measured(run) == 1


def test_what_was_never_planned_or_is_gone_says_nothing(
    alone: Deployment, split: Deployment
) -> None:
    run = run_of(*((each, arm_of(each, 30.0, 200.0)) for each in (alone, split)))
    StoredPlan.objects.filter(deployment=alone).delete()
    Deployment.objects.filter(pk=split.pk).delete()
    assert not keep_measured(run)


def test_a_memory_that_was_measured_anew_is_another_prediction(
    alone: Deployment,
) -> None:
    run = run_of((alone, arm_of(alone, 30.0, 200.0)))
    Host.objects.update(ram_measured_at=timezone.now())
    assert not keep_measured(run)


def test_what_another_instance_reads_is_not_the_answering_ones_prefill(
    make_deployment: Make, model: Model
) -> None:
    members = {"prefill": (model, ["RPC0"]), "decode": (model, ["RPC1"])}
    pair = started(make_deployment("pair", strategy="prefill_decode", members=members))
    assert keep_measured(run_of((pair, arm_of(pair, 30.0, 200.0)))) == 1
    (kept,) = Measurement.objects.all()
    assert (kept.decode_tps, kept.prefill_tps) == (30.0, None)
    assert kept.devices == ["RPC0", "RPC1"]


# --- correcting -----------------------------------------------------------------------------------
def test_what_runs_is_predicted_again_once_something_was_measured(
    alone: Deployment, split: Deployment, planner: Planner
) -> None:
    """It runs on as it was planned."""
    keep_plans_current(alone.host)
    assert planner.since() == []
    before = StoredPlan.objects.get(deployment=split).read()
    _, of_alone = computed(alone)
    keep_measured(run_of((alone, arm_of(alone, of_alone / 2, None))))
    keep_plans_current(alone.host)
    assert sorted(planner.since()) == ["alone", "split"]
    after = StoredPlan.objects.get(deployment=split).read()
    assert before and after and after.predicted != before.predicted
    assert replace(after, predicted=before.predicted) == before
    keep_plans_current(alone.host)
    assert planner.since() == []


def predicted(deployment: Deployment) -> float:
    found = plan_deployment(deployment).predicted.decode_tps
    assert found
    return found


def test_a_split_that_was_measured_changes_the_split_and_nothing_else(
    make_deployment: Make, model: Model, alone: Deployment, split: Deployment
) -> None:
    tensor = make_deployment(
        "tensor", strategy="tensor_split", members={"model": (model, BOTH)}
    )
    second = make_deployment("second", members={"model": (model, ["RPC1"])})
    others = (alone, tensor, second)
    before = [plan_deployment(each) for each in others]
    was, prompt_was = predicted(split), plan_deployment(split).predicted.prefill_tps

    _, decode = computed(split)
    keep_measured(run_of((split, arm_of(split, decode / 2, None))))
    assert predicted(split) == pytest.approx(was / 2)
    assert plan_deployment(split).predicted.prefill_tps == prompt_was
    assert [plan_deployment(each) for each in others] == before


def test_a_device_that_was_measured_does_not_count_twice_in_a_split(
    alone: Deployment, split: Deployment
) -> None:
    _, of_alone = computed(alone)
    _, of_split = computed(split)

    keep_measured(run_of((alone, arm_of(alone, of_alone / 2, None))))
    by_device = plan_deployment(split).predicted
    assert by_device.decode_correction
    assert by_device.decode_correction.alike is Alike.DEVICES
    assert by_device.decode_correction.devices == ("RPC0",)
    # Half of the layers are on the device that is half as fast: 2/3 of the speed.
    assert by_device.decode_tps == pytest.approx(of_split * 2 / 3, rel=0.1)

    keep_plans_current(split.host)
    keep_measured(run_of((split, arm_of(split, of_split * 0.9, None))))
    by_itself = plan_deployment(split).predicted
    assert by_itself.decode_tps == pytest.approx(of_split * 0.9)
    assert by_itself.decode_correction
    assert by_itself.decode_correction.alike is Alike.MODEL
    # What that run was predicted with was the device's correction.
    row = Measurement.objects.get(strategy="layer_split")
    assert row.predicted_decode_tps == pytest.approx(of_split * 2 / 3, rel=0.1)
    assert row.computed_decode_tps == pytest.approx(of_split)


def test_a_benchmark_outweighs_a_chat(alone: Deployment, host: Host) -> None:
    _, decode = computed(alone)
    keep_measured(run_of((alone, arm_of(alone, decode * 0.8, None))))
    (first,) = Measurement.objects.all()
    for _ in range(3):
        first.pk, first.run, first.is_benchmark, first.requests = None, None, False, 1
        first.decode_tps = decode * 1.6
        first.save()
    known = plan_deployment(alone).predicted
    assert known.decode_tps == pytest.approx(decode * 0.8)
    assert known.decode_correction
    assert (known.decode_correction.benchmarks, known.decode_correction.answers) == (
        1,
        3,
    )
    (effect,) = effects(host, Model.objects.get())
    assert (effect.answers, effect.decode_tps) == (43, pytest.approx(decode * 0.8))


def test_another_build_counts_until_there_is_enough_of_this_one(
    alone: Deployment,
) -> None:
    _, decode = computed(alone)
    keep_measured(run_of((alone, arm_of(alone, decode * 0.5, None))))
    alone.engine.build = "another"
    alone.engine.save()
    alone.refresh_from_db()
    known = plan_deployment(alone).predicted
    assert known.decode_correction
    assert known.decode_correction.alike is Alike.OTHER_BUILD
    assert known.decode_tps == pytest.approx(decode * 0.5)

    started(deployment_again(alone))
    keep_measured(run_of((alone, arm_of(alone, decode * 0.7, None))))
    known = plan_deployment(alone).predicted
    assert known.decode_correction and known.decode_correction.alike is Alike.MODEL
    assert known.decode_tps == pytest.approx(decode * 0.7)


def deployment_again(deployment: Deployment) -> Deployment:
    deployment_stop(deployment=deployment)
    return deployment


def test_layers_left_to_the_host_correct_no_device(
    make_deployment: Make, model: Model, alone: Deployment
) -> None:
    part = started(
        make_deployment(
            "part", members={"model": (model, ["RPC0"])}, settings={"gpu_layers": 8}
        )
    )
    before = predicted(alone)
    keep_measured(run_of((part, arm_of(part, 1.0, None))))
    assert Measurement.objects.get().devices == ["RPC0", "CPU"]
    assert predicted(alone) == before


def test_an_answer_says_what_it_was_an_answer_of(alone: Deployment) -> None:
    alone.instances.create(
        host=alone.host, role="model", pid=1, generation=alone.generation
    )
    measurements.record("alone", {"predicted_n": 101, "predicted_ms": 2000.0})
    (kept,) = Measurement.objects.all()
    assert (kept.requests, kept.is_benchmark, kept.decode_tps) == (1, False, 50.0)
    assert (kept.flavour, kept.number_format) == (alone.engine.flavour, "Q4_1")
    assert kept.predicted_decode_tps == kept.computed_decode_tps


# --- pages ----------------------------------------------------------------------------------------
QUERY = "model={model}&device=RPC0&device=RPC1"


def test_the_plan_page_says_that_nothing_was_measured(
    split: Deployment, model: Model, viewer: Client
) -> None:
    card = card_of(page(viewer, QUERY.format(model=model.name)), "layer_split")
    assert "computed only: nothing like it was measured on this rig yet" in card
    assert "How right this was before" not in card


def test_the_plan_page_says_by_what_and_how_right_it_was(
    split: Deployment, model: Model, viewer: Client
) -> None:
    _, decode = computed(split)
    keep_measured(run_of((split, arm_of(split, decode * 0.8, None))))
    keep_measured(run_of((split, arm_of(split, decode * 0.8, None)), count=20))
    card = card_of(page(viewer, QUERY.format(model=model.name)), "layer_split")
    assert "predicted, corrected by 2 benchmarks with this model" in card
    assert "Benchmark of 20 requests" in card and "Benchmark of 40 requests" in card
    # The first was computed only, the second corrected by the first.
    assert (
        "2 predictions of its answers before were 12 % too fast in the median" in card
    )
    assert "between right and 25 % too fast" in card
    other = card_of(page(viewer, QUERY.format(model=model.name)), "tensor_split")
    assert "computed only" in other and "Benchmark of" not in other


@pytest.mark.parametrize("is_running", [True, False])
def test_the_page_of_a_deployment_says_it_too(
    split: Deployment, viewer: Client, is_running: bool
) -> None:
    """Also one that was started before anything was measured."""
    _, decode = computed(split)
    keep_measured(run_of((split, arm_of(split, decode * 0.8, None))))
    if not is_running:
        deployment_stop(deployment=split)
    text = squeezed(viewer.get("/deployments/split/").content.decode())
    assert "Speed, as predicted" in text
    assert "predicted, corrected by 1 benchmark with this model" in text
    assert "The one prediction of its answers before was 25 % too fast." in text


@pytest.mark.parametrize(
    "path", ["/plan/?model={model}&device=RPC0&device=RPC1", "/deployments/split/"]
)
def test_a_page_asks_no_more_for_many_runs_than_for_one(
    split: Deployment, model: Model, viewer: Client, path: str
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            page_ = viewer.get(path.format(model=model.name))
        assert "Benchmark of" in squeezed(page_.content.decode())
        return len(asked)

    keep_measured(run_of((split, arm_of(split, 30.0, 200.0))))
    queries()
    few = queries()
    for _ in range(20):
        keep_measured(run_of((split, arm_of(split, 30.0, 200.0)), count=4))
    assert queries() == few
