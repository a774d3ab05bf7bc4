"""What a benchmark measured of a layout is found again by what the layout is, and says when it does
not hold any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from deployments.advice.layouts import layouts
from deployments.bench import prepared
from deployments.bench.blocks import rounds_of
from deployments.bench.run import Benchmark
from deployments.models import Deployment, Engine, LayoutResult, Model
from deployments.services.benchmarked import keep_measured
from deployments.services.deployments import deployment_change, deployment_delete
from deployments.services.fitting import past_of
from deployments.services.layout_plans import Bench, LayoutPlans, Planned
from deployments.services.layout_results import (
    KEPT_EACH,
    Figure,
    Result,
    changes,
    identity_of,
    results_of,
)
from deployments.services.plans import rig_facts
from gpus.models import Gpu, Host
from tests.bench.test_rounds import BASE, Upstream, measured_by, prompts
from tests.deployments.test_benchmarked import arm_of, figure, run_of, started

Make = Callable[..., Deployment]


@pytest.fixture(autouse=True)
def fast_enough(host: Host) -> None:
    """Speeds can be computed."""
    Host.objects.update(
        ram_bandwidth_gbps=20.0, cpu_count=4, driver_version="580.65.06"
    )


@pytest.fixture
def alone(make_deployment: Make, model: Model) -> Deployment:
    return started(make_deployment("alone", members={"model": (model, ["RPC0"])}))


def result(deployment: Deployment, users: int = 1) -> Result | None:
    deployment.refresh_from_db()
    return results_of(deployment.host).of(identity_of(deployment), users)


# --- which layout it is ---------------------------------------------------------------------------
@pytest.fixture
def planned(host: Host, engine: Engine, model: Model) -> list[Planned]:
    """Every layout of the model that can serve."""
    bench = Bench(rig_facts(host, live=False), past_of(host))
    plans = LayoutPlans(bench, lambda model: [])
    places = ("RPC0", "RPC1", "CPU")
    found = plans.of(model, engine, places, context=2048, parallel=2)
    return [each for each in found if each.can_serve]


def test_a_planned_layout_and_the_deployment_of_it_are_the_same(
    planned: list[Planned], make_deployment: Make
) -> None:
    """Before it is started, and after that."""
    assert len({identity_of(each).key for each in planned}) == len(planned) > 4
    for number, each in enumerate(planned):
        row = make_deployment(
            f"one-{number}",
            strategy=each.layout.strategy,
            members=each.members,
            settings=each.settings,
        )
        assert identity_of(row) == identity_of(each), each.title
        assert identity_of(started(row)).layout == identity_of(each).layout, each.title
        Deployment.objects.filter(pk=row.pk).update(desired="stopped")


def test_a_layout_is_every_one_of_its_kind_once(planned: list[Planned]) -> None:
    strategies = {
        each.strategy for each in layouts(["RPC0", "RPC1"], has_experts=False)
    }
    assert {each.layout.strategy for each in planned} <= strategies


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        # Not in its command, or what it is anyway.
        ({"settings": {"idle_unload_s": 60, "when_taken": "swap"}}, True),
        ({"settings": {"parallel": 1, "kv_cache_k": "f16"}}, True),
        # Of another strategy.
        ({"settings": {"draft_max": 5}}, True),
        ({"settings": {"context": 512}}, False),
        ({"settings": {"parallel": 4}}, False),
        ({"settings": {"kv_cache_k": "q8_0"}}, False),
        ({"extra_args": ["--no-warmup"]}, False),
        ({"devices": ["RPC1"]}, False),
        ({"devices": ["RPC0", "RPC1"], "strategy": "layer_split"}, False),
    ],
)
def test_what_makes_a_layout(
    make_deployment: Make, model: Model, changed: dict[str, Any], is_same: bool
) -> None:
    plain = make_deployment("plain", members={"model": (model, ["RPC0"])})
    devices = changed.pop("devices", ["RPC0"])
    other = make_deployment("other", members={"model": (model, devices)}, **changed)
    assert (identity_of(plain).key == identity_of(other).key) == is_same


# --- keeping and reading --------------------------------------------------------------------------
def full_arm(deployment: Deployment, **changes: Any) -> dict[str, Any]:
    arm = arm_of(deployment, 30.0, 200.0)
    arm["decode_tps"] = {**figure(30.0), "low": 29.0, "high": 31.0}
    more = {"first_token_ms": figure(90.0), "total_tps": 28.0}
    return {**arm, **more, "joules_per_token": 4.0, "mean_watts": 120.0, **changes}


def test_each_arm_is_kept_at_its_number_of_users(alone: Deployment) -> None:
    run = run_of(
        (alone, full_arm(alone)), (alone, full_arm(alone, concurrency=4, total_tps=70))
    )
    keep_measured(run)
    keep_measured(run)
    assert LayoutResult.objects.count() == 2
    one, four = result(alone), result(alone, 4)
    assert one and four and result(alone, 2) is None
    assert one.decode_tps == Figure(30.0, 29.0, 31.0)
    assert one.prefill_tps == Figure(200.0) and one.first_token_ms == Figure(90.0)
    assert (one.total_tps, four.total_tps) == (Figure(28.0), Figure(70))
    assert (one.joules_per_token, one.mean_watts) == (4.0, 120.0)
    assert (one.answer_check, one.scenario, one.benchmark) == (
        "unknown",
        "chat",
        run.pk,
    )
    assert one.stale == four.stale == ""
    by_users = results_of(alone.host).by_users(identity_of(alone))
    assert by_users == {1: one, 4: four}


def test_a_report_has_what_is_kept(make_deployment: Make) -> None:
    """Not one that a test has written down."""
    base = make_deployment("base")
    run = run_of((base, full_arm(base)))
    benchmark = Benchmark((BASE,), rounds_of(prompts(40), (BASE,), 3))
    made = asyncio.run(measured_by(Upstream(0.0, base=100.0), benchmark))
    environment = prepared.environment_of([base], swaps=False)
    run.document = {**made, "environment": environment}
    keep_measured(run)
    found = result(base)
    assert found and found.first_token_ms == Figure(500.0, 500.0, 500.0)
    assert found.total_tps.p50 and found.total_tps.p50 > 0
    assert (found.joules_per_token, found.mean_watts) == (None, None)
    assert found.answer_check == "unknown"


@pytest.mark.parametrize(
    ("arm", "run"),
    [
        ({"load": "together"}, {}),
        ({"start_ms": figure(900.0)}, {}),
        ({}, {"state": "failed"}),
        ({}, {"state": "cancelled"}),
        ({}, {"document": None}),
    ],
)
def test_what_says_nothing_of_a_layout_is_not_kept(
    alone: Deployment, arm: dict[str, Any], run: dict[str, Any]
) -> None:
    keep_measured(run_of((alone, full_arm(alone, **arm)), **run))
    assert not LayoutResult.objects.exists()


def test_another_deployment_by_now_is_not_kept(alone: Deployment) -> None:
    run = run_of((alone, full_arm(alone)))
    deployment_change(deployment=alone, settings={"context": 1024})
    keep_measured(run)
    assert not LayoutResult.objects.exists()


def test_what_was_disturbed_is_marked_and_gives_way_to_what_was_not(
    alone: Deployment,
) -> None:
    keep_measured(run_of((alone, full_arm(alone))))
    disturbed = run_of((alone, full_arm(alone)))
    disturbed.document["valid"] = False
    assert keep_measured(disturbed) == 0
    assert LayoutResult.objects.filter(is_disturbed=True).count() == 1

    found = results_of(alone.host).of(identity_of(alone))
    assert found and not found.is_disturbed
    LayoutResult.objects.filter(is_disturbed=False).delete()
    found = results_of(alone.host).of(identity_of(alone))
    assert found and found.is_disturbed


def test_it_says_how_its_first_answer_was(alone: Deployment) -> None:
    run = run_of((alone, full_arm(alone)))
    run.document["environment"]["deployments"]["alone"]["answer_check"] = "drift"
    keep_measured(run)
    found = result(alone)
    assert found and found.answer_check == "drift"


def test_the_newest_counts_and_few_older_ones_are_kept(alone: Deployment) -> None:
    for speed in range(1, KEPT_EACH + 4):
        keep_measured(run_of((alone, full_arm(alone, total_tps=float(speed)))))
    found = result(alone)
    assert found and found.total_tps.p50 == KEPT_EACH + 3
    assert LayoutResult.objects.count() == KEPT_EACH


def test_it_outlives_deployment_and_benchmark_and_is_found_by_a_plan(
    planned: list[Planned], make_deployment: Make, host: Host
) -> None:
    each = next(one for one in planned if one.layout.strategy == "layer_split")
    row = make_deployment(
        "split",
        strategy=each.layout.strategy,
        members=each.members,
        settings=each.settings,
    )
    run = run_of((row, full_arm(row)))
    keep_measured(run)
    number = run.pk
    run.delete()
    deployment_delete(deployment=row)
    row.delete()
    found = results_of(host).of(identity_of(each))
    assert found and found.benchmark == number
    others = [one for one in planned if one is not each]
    assert not any(results_of(host).of(identity_of(one)) for one in others)


# --- stale ----------------------------------------------------------------------------------------
def depends(**changed: Any) -> dict[str, Any]:
    found = {
        "build": "b6100",
        "driver": "580.65",
        "links": {"CUDA0": "gen4 x16", "CPU": ""},
        "models": {"model": {"size_bytes": 2 << 30, "fingerprint": "a"}},
    }
    return found | changed


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, ""),
        ({"build": "b6200"}, "engine build b6100 → b6200"),
        ({"driver": "580.95"}, "driver 580.65 → 580.95"),
        ({"driver": ""}, "driver 580.65 → unknown"),
        (
            {"links": {"CUDA0": "gen4 x8", "CPU": ""}},
            "link of CUDA0 gen4 x16 → gen4 x8",
        ),
        (
            {"models": {"model": {"size_bytes": 3 << 30, "fingerprint": "b"}}},
            "file of the model 2 GiB → 3 GiB",
        ),
        (
            {"models": {"model": {"size_bytes": 2 << 30, "fingerprint": "b"}}},
            "file of the model has other contents",
        ),
        (
            {"build": "b6200", "driver": "580.95"},
            "engine build b6100 → b6200, driver 580.65 → 580.95",
        ),
    ],
)
def test_what_changed_is_said(now: dict[str, Any], said: str) -> None:
    assert changes(depends(), depends(**now)) == said


def test_a_result_is_stale_once_engine_driver_link_or_file_changed(
    alone: Deployment, host: Host
) -> None:
    gpu = Gpu.objects.create(
        host=host, uuid="GPU-1", name="card", pcie_generation_max=4, pcie_width_max=16
    )
    host.devices.filter(name="RPC0").update(gpu=gpu)
    keep_measured(run_of((alone, full_arm(alone))))

    def stale() -> str:
        fresh = Deployment.objects.get(pk=alone.pk)
        found = results_of(fresh.host).of(identity_of(fresh))
        assert found
        return found.stale

    assert stale() == ""
    Engine.objects.update(build="b9999")
    assert stale() == "engine build unknown → b9999"
    Engine.objects.update(build=alone.engine.build)
    Host.objects.update(driver_version="590.1")
    Gpu.objects.update(pcie_width_max=8)
    assert stale() == "driver 580.65.06 → 590.1, link of RPC0 gen4 x16 → gen4 x8"
    Host.objects.update(driver_version="580.65.06")
    Gpu.objects.update(pcie_width_max=16)
    Model.objects.update(fingerprint="other")
    assert stale() == "file of the model has other contents"
