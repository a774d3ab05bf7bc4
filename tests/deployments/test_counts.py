"""What pages, starts and answers cost: plans and queries are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Instance, Measurement, Model, StoredPlan
from deployments.rig.apply import apply
from deployments.services import measurements, one_click
from deployments.services.deployments import deployment_change, deployment_start
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.deployments.planning_counted import Planner, touched_in_transactions

Make = Callable[..., Deployment]
PAGE = {"HX-Request": "true"}


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    return Planner(monkeypatch)


def runs(deployment: Deployment, state: str = "ready", pid: int | None = 1) -> Instance:
    """As its agent would have written it."""
    deployment.refresh_from_db()
    return Instance.objects.create(
        host=deployment.host,
        deployment=deployment,
        role="model",
        state=state,
        pid=pid,
        generation=deployment.generation,
    )


# --- pages ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "state",
    ["wanted", "starting", "loading", "ready", "unloaded", "failed", "stopping"],
)
@pytest.mark.parametrize("headers", [{}, PAGE])
def test_the_page_of_a_running_deployment_plans_nothing(
    deployment: Deployment,
    planner: Planner,
    viewer: Client,
    state: str,
    headers: dict[str, str],
) -> None:
    deployment_start(deployment=deployment)
    if state == "unloaded":
        Deployment.objects.update(is_unloaded=True)
    elif state != "wanted":
        runs(deployment, state, None if state == "failed" else 1)
    if state == "stopping":
        Deployment.objects.update(desired="stopped")
    assert planner.since() == ["small"], "once, for the start"
    with CaptureQueriesContext(connection) as queries:
        page = viewer.get("/deployments/small/", headers=headers).content.decode()
    assert planner.since() == []
    assert "Memory, as planned" in page and "weights" in page
    assert len(queries) <= 20, [query["sql"] for query in queries]


def test_the_page_shows_what_it_runs_by_and_not_what_would_be_planned_now(
    make_deployment: Make, model: Model, viewer: Client, planner: Planner
) -> None:
    made = make_deployment(members={"model": (model, ["RPC0"])})
    deployment_start(deployment=made)
    runs(made)
    before = viewer.get("/deployments/small/").content.decode()
    Device.objects.filter(name="RPC0").update(memory_bytes=1 << 20)
    after = viewer.get("/deployments/small/").content.decode()
    assert before.count("24 GiB") == after.count("24 GiB") > 0
    assert planner.since() == ["small"]


def test_the_page_of_a_stopped_one_says_how_it_would_run_now(
    deployment: Deployment, viewer: Client, planner: Planner
) -> None:
    assert "Memory, as planned" in viewer.get("/deployments/small/").content.decode()
    assert planner.since() == ["small"]


@pytest.mark.parametrize("path", ["/deployments/", "/deployments/quick/"])
def test_a_list_of_fifty_plans_nothing_and_asks_no_more_than_one_of_five(
    make_deployment: Make, viewer: Client, planner: Planner, path: str
) -> None:
    def add(numbers: range) -> None:
        for number in numbers:
            made = make_deployment(f"d{number}")
            deployment_start(deployment=made)
            runs(made)

    add(range(5))
    viewer.get(path)
    planner.since()
    with CaptureQueriesContext(connection) as few:
        viewer.get(path)
    assert planner.since() == []
    add(range(5, 50))
    planner.since()
    with CaptureQueriesContext(connection) as many:
        page = viewer.get(path).content.decode()
    assert planner.since() == []
    assert path.endswith("quick/") or page.count("/deployments/d") >= 50
    assert len(many) == len(few) <= 15


# --- starts ---------------------------------------------------------------------------------------
RIG = """
models:
  - name: smollm2-135m-instruct-q4_1
    path: {path}
deployments:
  - name: small
    strategy: independent
    models: {{model: smollm2-135m-instruct-q4_1}}
    devices: {{model: [CPU]}}
    settings: {{context: 1024}}
"""


def start(deployment: Deployment) -> None:
    assert deployment_start(deployment=deployment)


def start_again(deployment: Deployment) -> None:
    assert deployment_start(deployment=deployment, again=True)


def load_again(deployment: Deployment) -> None:
    Deployment.objects.update(desired="running", is_unloaded=True)
    assert deployment_start(deployment=deployment)


def change_what_runs(deployment: Deployment) -> None:
    Deployment.objects.update(desired="running")
    deployment_change(deployment=deployment, settings={"context": 2048})


def deploy_by_one_click(deployment: Deployment) -> None:
    deployment.delete()
    model = Model.objects.get()
    model.pk, model.name, model.path = None, "copy", f"{model.path}.copy"
    model.save()
    one_click.deploy(model=model)


def apply_a_file(deployment: Deployment) -> None:
    text = RIG.format(path=Model.objects.get().path)
    assert apply(text, start=True).changes


ACTS = [
    start,
    start_again,
    load_again,
    change_what_runs,
    deploy_by_one_click,
    apply_a_file,
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", ACTS)
def test_a_transaction_that_starts_plans_nothing_reads_nothing_and_asks_nobody(
    make_deployment: Make,
    planner: Planner,
    in_use: Callable[..., None],
    act: Callable[..., None],
) -> None:
    """Beside another that runs, with the sampler's figures at the broker."""
    in_use(RPC0=1 << 30)
    other = make_deployment("other")
    start(other)
    runs(other)
    # What is imported only once, and the file of the settings, has been opened by then.
    start(make_deployment("warm"))
    deployment = make_deployment()
    planner.since()
    with touched_in_transactions() as touched:
        act(deployment)
    assert touched == []
    made = Deployment.objects.exclude(name__in=["other", "warm"]).get()
    assert made.desired == "running" and set(planner.since()) - {made.name} == set()
    (stored,) = StoredPlan.objects.filter(deployment=made, generation=made.generation)
    assert stored.read() is not None


@pytest.mark.django_db(transaction=True)
def test_what_is_touched_in_a_transaction_is_seen(
    make_deployment: Make, planner: Planner, in_use: Callable[..., None]
) -> None:
    """The proof above is one: a plan in a transaction, a file and the broker are all told."""
    deployment = make_deployment()
    with touched_in_transactions() as touched, transaction.atomic():
        deployment_start(deployment=deployment)
        (django_settings.OMNI_HOME.root / "seen").write_text("x")
    what = {line.partition(" ")[0] for line in touched}
    assert what >= {"plan", "socket.connect", "open"}


def test_a_start_is_planned_once_and_who_holds_memory_not_at_all(
    make_deployment: Make, model: Model, planner: Planner
) -> None:
    for number in range(4):
        made = make_deployment(f"holder{number}", members={"model": (model, ["RPC0"])})
        deployment_start(deployment=made)
        runs(made)
    planner.since()
    made = make_deployment(members={"model": (model, ["RPC1"])})
    with CaptureQueriesContext(connection) as queries:
        deployment_start(deployment=made)
    assert planner.since() == ["small"]
    assert len(queries) <= 45, len(queries)
    with CaptureQueriesContext(connection) as again:
        assert not deployment_start(deployment=made)
    assert planner.since() == [] and len(again) <= 8, "wanted already"


def test_the_place_of_a_rival_is_what_it_was_started_with(
    make_deployment: Make, model: Model, host: Host, planner: Planner
) -> None:
    Device.objects.create(host=host, name="CUDA0", kind="cuda", memory_bytes=600 << 20)
    members = {"model": (model, ["CUDA0"])}
    first = make_deployment("first", members=members, settings={"context": 1024})
    deployment_start(deployment=first)
    runs(first)
    Model.objects.update(size_bytes=1)
    second = make_deployment("second", members=members, settings={"context": 8192})
    planner.since()
    with pytest.raises(OmniError, match="first holds") as refused:
        deployment_start(deployment=second)
    assert refused.value.code == "place_taken" and planner.since() == ["second"]


# --- answers --------------------------------------------------------------------------------------
TIMINGS = {
    "predicted_n": 101,
    "predicted_ms": 2000.0,
    "prompt_n": 200,
    "prompt_ms": 500.0,
}


def test_an_answer_that_is_saved_plans_nothing(
    deployment: Deployment, planner: Planner, host: Host
) -> None:
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)
    deployment_start(deployment=deployment)
    runs(deployment)
    (stored,) = StoredPlan.objects.all()
    planner.since()
    with CaptureQueriesContext(connection) as queries:
        measurements.record("small", TIMINGS)
    assert planner.since() == [] and len(queries) <= 8, len(queries)
    (kept,) = Measurement.objects.all()
    assert (kept.decode_tps, kept.prefill_tps) == (50.0, 400.0)
    assert kept.computed_decode_tps == stored.computed_decode_tps > 0
    assert kept.computed_prefill_tps == stored.computed_prefill_tps > 0


def test_what_a_measurement_is_compared_with_is_not_fitted_to_measurements(
    deployment: Deployment, planner: Planner, host: Host, model: Model
) -> None:
    Host.objects.update(ram_bandwidth_gbps=20.0, cpu_count=4)
    deployment_start(deployment=deployment)
    before = StoredPlan.objects.get()
    rates = {"decode_tps": 3.0, "computed_decode_tps": 1.0, "strategy": "independent"}
    Measurement.objects.create(
        host=host, model=model, deployment_name="x", devices=["CPU"], **rates
    )
    deployment_start(deployment=deployment, again=True)
    after = StoredPlan.objects.get(generation=3)
    fitted = after.read()
    assert fitted and fitted.predicted.basis == "measured"
    assert (
        after.computed_decode_tps
        == before.computed_decode_tps
        != fitted.predicted.decode_tps
    )
