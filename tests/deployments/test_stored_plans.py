"""The plan that is stored with a generation: run by, made again, kept and thrown away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.gateway.directory import serving
from deployments.models import Deployment, Engine, Instance, Model, StoredPlan
from deployments.planning.kv_transfer import SHORTEST
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import Plan
from deployments.rig import wanted
from deployments.rig.apply import apply
from deployments.services import measurements, readiness
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_launch,
    deployment_start,
    deployment_stop,
)
from deployments.services.plans import Setup
from deployments.services.readiness import MOST_TRIES, Overtaken
from deployments.services.stored_plans import (
    Planned,
    keep_plans_current,
    make,
    plan_to_run,
    stored_plan,
)
from deployments.services.tenancy import Occupied, check_room_of, held
from deployments.supervision.planned import Plans
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.deployments.planning_counted import Planner

Make = Callable[..., Deployment]


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    return Planner(monkeypatch)


@pytest.fixture
def started(make_deployment: Make, model: Model, planner: Planner) -> Deployment:
    """On a stand-in, whose address stands in the plan."""
    made = make_deployment(members={"model": (model, ["RPC0"])})
    deployment_start(deployment=made)
    made.refresh_from_db()
    planner.since()
    return made


def agents() -> Plans:
    """As an agent that has just been started."""
    return Plans(plan_to_run, lambda deployment: None)


def generations(deployment: Deployment) -> list[int]:
    return list(
        deployment.plans.order_by("generation").values_list("generation", flat=True)
    )


def runs(deployment: Deployment, **values: Any) -> Instance:
    deployment.refresh_from_db()
    own = {"host": deployment.host, "deployment": deployment, "role": "model", "pid": 1}
    return Instance.objects.create(
        **{**own, "state": "ready", "generation": deployment.generation, **values}
    )


# --- run by ---------------------------------------------------------------------------------------
def test_the_agent_runs_by_the_plan_that_was_stored_at_the_start(
    started: Deployment, planner: Planner
) -> None:
    (row,) = started.plans.all()
    assert row.generation == started.generation == 2
    for _ in range(3):
        assert agents().of(started) == row.read()
    assert planner.since() == []


def test_free_memory_does_not_change_what_runs(
    started: Deployment, planner: Planner, in_use: Callable[..., None]
) -> None:
    before = agents().of(started)
    in_use(RPC0=23 << 30)
    assert agents().of(started) == before and planner.since() == []


def engine_is_replaced() -> None:
    Engine.objects.update(build="b99999")


def engine_learns_flags() -> None:
    engine = Engine.objects.get()
    engine.flags = [*engine.flags, "--colour"]
    engine.save()


def file_is_moved() -> None:
    model = Model.objects.get()
    Model.objects.update(path=f"/elsewhere{model.path}")


def file_is_replaced() -> None:
    Model.objects.update(size_bytes=1 << 30, modified_ns=1)


def device_has_another_address() -> None:
    Device.objects.filter(name="RPC0").update(endpoint="127.0.0.1:19555")


def device_comes() -> None:
    Device.objects.create(
        host=Host.objects.get(),
        name="RPC7",
        kind="rpc",
        endpoint="10.0.0.9:1",
        position=1,
    )


def device_has_another_size() -> None:
    Device.objects.filter(name="RPC0").update(memory_bytes=48 << 30)


def another_version_wrote_it() -> None:
    StoredPlan.objects.update(plan={"format": 0})


def another_version_made_it() -> None:
    row = StoredPlan.objects.get()
    row.made_from["version"] = "0.0.1"
    row.save()


def another_machine_made_it() -> None:
    row = StoredPlan.objects.get()
    row.made_from["host"] = "elsewhere"
    row.save()


def there_is_none() -> None:
    """The row is one of the version before."""
    StoredPlan.objects.all().delete()


CHANGES = [
    engine_is_replaced,
    engine_learns_flags,
    file_is_moved,
    file_is_replaced,
    device_has_another_address,
    device_comes,
    device_has_another_size,
    another_version_wrote_it,
    another_version_made_it,
    another_machine_made_it,
    there_is_none,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_it_rests_on_is_another_so_it_is_planned_again_and_stored(
    started: Deployment, planner: Planner, change: Callable[[], None]
) -> None:
    running = agents()
    assert running.of(started)
    change()
    started = Deployment.objects.get()
    is_seen_by_its_row_alone = change in CHANGES[-4:]
    fresh = agents() if is_seen_by_its_row_alone else running
    plan = fresh.of(started)
    assert plan and planner.since() == ["small"]
    assert stored_plan(started) == plan
    assert agents().of(started) == plan and planner.since() == []
    assert generations(started) == [2]


def test_the_address_that_a_device_has_now_stands_in_the_command(
    started: Deployment,
) -> None:
    plans = agents()
    assert plans.of(started)
    device_has_another_address()
    plan = plans.of(started)
    assert plan and "127.0.0.1:19555" in plan.instances[0].argv


def test_a_look_whether_it_still_holds_reads_no_header(
    started: Deployment, planner: Planner
) -> None:
    """Agents look four times a second while something is about to start."""
    plans = agents()
    assert plans.of(started)
    with CaptureQueriesContext(connection) as queries:
        assert plans.of(started)
    asked = " ".join(query["sql"] for query in queries)
    assert len(queries) <= 3 and planner.since() == []
    assert not any(
        f'"{column}"' in asked for column in ("facts", "shape", "vocab", "plan")
    )


def test_a_device_that_is_gone_is_said_and_comes_back(
    started: Deployment, planner: Planner
) -> None:
    plans = agents()
    Device.objects.filter(name="RPC0").update(is_present=False)
    assert plans.of(started) is None
    assert "There is no device 'RPC0'" in Deployment.objects.get().error
    Device.objects.filter(name="RPC0").update(is_present=True)
    planner.since()
    assert plans.of(started) and Deployment.objects.get().error == ""
    assert planner.since() == [], "what was stored holds again"


# --- kept and thrown away -------------------------------------------------------------------------
def test_a_plan_is_kept_for_what_is_wanted(
    make_deployment: Make, planner: Planner
) -> None:
    made = make_deployment()
    assert generations(made) == [], "it is planned when it is started"
    deployment_change(deployment=made, settings={"context": 512})
    assert generations(made) == []
    deployment_start(deployment=made)
    assert planner.since() == ["small"] and generations(made) == [3]


def test_plans_stay_as_long_as_something_runs_by_them(deployment: Deployment) -> None:
    deployment_start(deployment=deployment)
    instance = runs(deployment)
    for context in (512, 1024):
        deployment_change(deployment=deployment, settings={"context": context})
    assert generations(deployment) == [2, 4], "of the process, and the one to come"
    Instance.objects.filter(pk=instance.pk).update(generation=4)
    deployment_change(deployment=deployment, settings={"context": 2048})
    assert generations(deployment) == [4, 5]


def test_what_was_planned_goes_with_its_deployment(deployment: Deployment) -> None:
    deployment_start(deployment=deployment)
    deployment_delete(deployment=deployment)
    assert StoredPlan.objects.exists(), "its processes are still to be ended"
    Deployment.objects.get().delete()
    assert not StoredPlan.objects.exists()


def test_what_cannot_be_planned_is_started_all_the_same_and_the_agent_says_why(
    deployment: Deployment,
) -> None:
    Engine.objects.update(state="missing", error="There is no file.")
    assert deployment_start(deployment=deployment) and not StoredPlan.objects.exists()
    assert agents().of(Deployment.objects.get()) is None
    assert "does not run: There is no file" in Deployment.objects.get().error


def test_loaded_again_it_runs_by_the_plan_that_it_had(
    started: Deployment, planner: Planner
) -> None:
    before = StoredPlan.objects.get()
    Deployment.objects.update(is_unloaded=True)
    assert deployment_start(deployment=started)
    after = StoredPlan.objects.get()
    assert (after.pk, after.made_at, planner.since()) == (before.pk, before.made_at, [])


# --- races ----------------------------------------------------------------------------------------
def while_it_is_planned(
    monkeypatch: pytest.MonkeyPatch, *happens: Callable[[], object]
) -> list[str]:
    """The real planner; after each plan the next of these happens, the last again and again."""
    left, planned = list(happens), []

    def made(setup: Setup, *, holds: bool = False) -> Planned:
        found = make(setup, holds=holds)
        planned.append(str(setup.settings.get("context", "")))
        (left.pop(0) if len(left) > 1 else left[0])()
        return found

    monkeypatch.setattr(readiness, "make", made)
    return planned


def once_its_place_was_checked(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]
) -> list[str]:
    """The real check; after the first one this happens."""
    checked: list[str] = []

    def check(deployment: Deployment, plan: Plan | None) -> None:
        check_room_of(deployment, plan)
        checked.append(deployment.name)
        if len(checked) == 1:
            happens()

    monkeypatch.setattr(readiness, "check_room_of", check)
    return checked


def nothing() -> None:
    pass


def change_context(value: int) -> Callable[[], object]:
    """As another request does it, which is not held up."""

    def change() -> None:
        row = Deployment.objects.get(name="small")
        row.settings, row.generation = {"context": value}, row.generation + 1
        row.save()

    return change


def test_a_change_while_a_start_is_planned_is_not_lost(
    make_deployment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_deployment(settings={"context": 512})
    planned = while_it_is_planned(monkeypatch, change_context(1024), nothing)
    assert deployment_start(deployment=made)
    assert planned == ["512", "1024"]
    made.refresh_from_db()
    assert (made.settings, made.generation, made.desired) == (
        {"context": 1024},
        3,
        "running",
    )
    plan = stored_plan(made)
    assert plan and plan == agents().of(made) and "1024" in plan.instances[0].argv


def test_a_start_that_another_one_was_faster_with_changes_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started_by_another() -> None:
        Deployment.objects.update(desired="running", generation=2)

    while_it_is_planned(monkeypatch, started_by_another)
    assert deployment_start(deployment=deployment) is False
    assert Deployment.objects.get().generation == 2


def test_a_stop_while_a_change_is_planned_holds(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment_start(deployment=deployment)
    while_it_is_planned(monkeypatch, lambda: deployment_stop(deployment=deployment))
    deployment_change(deployment=deployment, settings={"context": 512})
    row = Deployment.objects.get()
    assert (row.desired, row.settings, row.generation) == (
        "stopped",
        {"context": 512},
        3,
    )
    assert 3 not in generations(row)


def test_a_rival_that_comes_while_a_start_is_planned_is_in_its_way(
    make_deployment: Make, model: Model, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.create(host=host, name="CUDA0", kind="cuda", memory_bytes=600 << 20)
    members = {"model": (model, ["CUDA0"])}
    settings = {"context": 1024}
    first = make_deployment("first", members=members, settings=settings)
    second = make_deployment("second", members=members, settings=settings)
    deployment_start(deployment=first)
    checked = once_its_place_was_checked(monkeypatch, lambda: runs(first))
    with pytest.raises(OmniError, match="first holds") as refused:
        deployment_start(deployment=second)
    assert refused.value.code == "place_taken" and checked == ["second"], "passed once"
    assert Deployment.objects.get(name="second").desired == "stopped"


def test_a_rival_that_comes_while_a_new_one_is_planned_leaves_nothing_behind(
    make_deployment: Make,
    model: Model,
    host: Host,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Device.objects.create(host=host, name="CUDA0", kind="cuda", memory_bytes=600 << 20)
    members = {"model": (model, ["CUDA0"])}
    first = make_deployment("first", members=members, settings={"context": 1024})
    deployment_start(deployment=first)
    once_its_place_was_checked(monkeypatch, lambda: runs(first))
    with pytest.raises(OmniError, match="first holds"):
        deployment_launch(
            Setup(host, "late", "independent", engine, members, {"context": 1024})
        )
    assert list(Deployment.objects.values_list("name", flat=True)) == ["first"]


def test_a_start_that_is_overtaken_again_and_again_says_so(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = while_it_is_planned(monkeypatch, change_context(512))
    with pytest.raises(Overtaken) as refused:
        deployment_start(deployment=deployment)
    assert refused.value.retry and refused.value.code == "changed_meanwhile"
    assert len(planned) == MOST_TRIES and Deployment.objects.get().desired == "stopped"


# --- what runs since before -----------------------------------------------------------------------
def test_what_runs_since_the_version_before_gets_its_plan(
    started: Deployment, host: Host, planner: Planner
) -> None:
    runs(started)
    StoredPlan.objects.all().delete()
    keep_plans_current(host)
    keep_plans_current(host)
    assert planner.since() == ["small"] and generations(started) == [2]
    another_version_wrote_it()
    keep_plans_current(host)
    assert planner.since() == ["small"] and stored_plan(started)


def test_a_memory_that_was_measured_anew_changes_what_is_predicted_and_not_what_runs(
    deployment: Deployment, host: Host, planner: Planner
) -> None:
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)
    deployment_start(deployment=deployment)
    runs(deployment)
    before = StoredPlan.objects.get()
    Host.objects.update(ram_bandwidth_gbps=40.0, ram_measured_at=timezone.now())
    timings = {"predicted_n": 101, "predicted_ms": 2000.0}
    measurements.record("small", timings)
    assert not host.measurements.exists(), (
        "it was computed from another reading of the memory"
    )
    keep_plans_current(host)
    after = StoredPlan.objects.get()
    assert after.computed_decode_tps == pytest.approx(
        2 * before.computed_decode_tps, rel=0.2
    )
    old, new = before.read(), after.read()
    assert old and new and new.instances == old.instances
    assert new.predicted.decode_tps > old.predicted.decode_tps
    measurements.record("small", timings)
    assert host.measurements.get().computed_decode_tps == after.computed_decode_tps
    planner.since()
    keep_plans_current(host)
    assert planner.since() == []


def test_an_answer_is_compared_with_the_plan_its_process_runs_by(
    deployment: Deployment, host: Host
) -> None:
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)
    deployment_start(deployment=deployment)
    runs(deployment)
    (ran_by,) = StoredPlan.objects.all()
    deployment_change(deployment=deployment, settings={"kv_cache_k": "q8_0"})
    StoredPlan.objects.filter(generation=3).update(computed_decode_tps=1.0)
    measurements.record("small", {"predicted_n": 101, "predicted_ms": 2000.0})
    assert host.measurements.get().computed_decode_tps == ran_by.computed_decode_tps


def test_a_measurement_of_what_was_never_planned_is_not_kept(
    deployment: Deployment, host: Host
) -> None:
    Deployment.objects.update(desired="running")
    runs(deployment)
    measurements.record("small", {"predicted_n": 101, "predicted_ms": 2000.0})
    assert not host.measurements.exists()
    assert timezone.now() - deployment.created_at < timedelta(minutes=5)


# --- the gateway ----------------------------------------------------------------------------------
def test_what_a_kv_transfer_needs_to_know_stands_in_the_plan(
    make_deployment: Make, model: Model, planner: Planner
) -> None:
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)
    made = make_deployment(
        "pair",
        strategy="prefill_decode",
        members={"prefill": (model, ["RPC0"]), "decode": (model, ["RPC1"])},
        settings={"context": 2048},
    )
    deployment_start(deployment=made)
    planner.since()
    runs(
        made,
        role="decode",
        launch=LaunchFacts(slots_folder="/slots", slots=2).document(),
    )
    plan = stored_plan(Deployment.objects.get())
    assert plan and plan.transferred and plan.transferred.token_bytes > 0
    for _ in range(2):
        facts = serving(Deployment.objects.get()).kv_transfer
        assert facts and facts.slots == 2
        assert facts.least_tokens == plan.settings.get("handover_min", SHORTEST)
        assert facts.token_bytes == plan.transferred.token_bytes
        assert facts.is_recurrent is plan.transferred.is_recurrent is False
    assert planner.since() == []
    deployment_change(deployment=made, settings={"context": 2048, "handover_min": 77})
    facts = serving(Deployment.objects.get()).kv_transfer
    assert facts and facts.least_tokens == 77
    StoredPlan.objects.all().delete()
    facts = serving(Deployment.objects.get()).kv_transfer
    assert facts and (facts.least_tokens, facts.token_bytes) == (77, 0)


# --- rig files ------------------------------------------------------------------------------------
def rig_text_of(model: Model, device: str = "CUDA0") -> str:
    return f"""
models:
  - {{name: {model.name}, path: {model.path}}}
deployments:
  - name: filed
    strategy: independent
    models: {{model: {model.name}}}
    devices: {{model: [{device}]}}
    settings: {{context: 1024}}
"""


def while_a_file_is_planned(
    monkeypatch: pytest.MonkeyPatch, *happens: Callable[[], object]
) -> list[str]:
    left, planned = list(happens), []

    def made(setup: Setup, *, holds: bool = False) -> Planned:
        found = make(setup, holds=holds)
        planned.append(setup.name)
        if left:
            left.pop(0)()
        return found

    monkeypatch.setattr(wanted, "make", made)
    return planned


def test_a_file_stores_the_plan_that_it_was_judged_by(
    deployment: Deployment, model: Model, planner: Planner
) -> None:
    text = rig_text_of(model, "RPC0")
    apply(text, start=True)
    assert planner.since() == ["filed"], "once: to be judged, to be stored"
    filed = Deployment.objects.get(name="filed")
    assert generations(filed) == [2]
    runs(filed)
    apply(text.replace("1024", "2048"), start=True)
    assert planner.since() == ["filed"] and generations(filed) == [2, 3]
    assert agents().of(Deployment.objects.get(name="filed")) and planner.since() == []


def test_a_rival_that_comes_before_a_file_is_written_is_in_its_way(
    make_deployment: Make, model: Model, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.create(host=host, name="CUDA0", kind="cuda", memory_bytes=600 << 20)
    first = make_deployment(
        "first", members={"model": (model, ["CUDA0"])}, settings={"context": 1024}
    )
    deployment_start(deployment=first)
    real, looked = held, []

    def looked_at(where: Host) -> Occupied:
        found = real(where)
        looked.append(len(found.tenants))
        if len(looked) == 1:
            runs(first)
        return found

    monkeypatch.setattr("deployments.rig.apply.held", looked_at)
    with pytest.raises(OmniError, match="first holds") as refused:
        apply(rig_text_of(model), start=True)
    assert refused.value.code == "place_taken" and looked == [0, 1]
    assert not Deployment.objects.filter(name="filed").exists()


def test_an_engine_that_was_changed_while_a_file_is_planned_is_not_changed_back(
    make_deployment: Make, model: Model, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deployment(
        "filed", members={"model": (model, ["RPC0"])}, settings={"context": 512}
    )
    other = Engine.objects.get(pk=engine.pk)
    other.pk, other.name, other.path = None, "other", f"{engine.path}-other"
    other.save()

    def give_it_the_other() -> None:
        Deployment.objects.update(engine=other)

    planned = while_a_file_is_planned(monkeypatch, give_it_the_other)
    apply(rig_text_of(model, "RPC0"))
    row = Deployment.objects.get()
    assert (row.engine, row.settings) == (other, {"context": 1024}) and len(
        planned
    ) == 2
