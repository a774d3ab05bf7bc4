"""What the Plan page deploys is what it shows; who may; what a page costs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, Model
from deployments.services.deployments import plan_deployment
from deployments.services.runnable import runnable
from deployments.strategies import STRATEGIES
from gpus.models import Device, Host
from tests.deployments.plan_page import card_of, page, shown_commands
from tests.helpers import squeezed

pytestmark = pytest.mark.usefixtures("engine", "model")


# --- deploying ------------------------------------------------------------------------------------
def press(client: Client, query: str, **body: str) -> object:
    return client.post(f"/plan/?{query}", {"strategy": "independent", **body})


def test_deploying_makes_and_starts_exactly_what_is_shown(
    operator: Client, operator_user: User, model: Model
) -> None:
    query = f"model={model.name}&device=RPC1&context=2048&kv_cache_k=q8_0&kv_cache_v=q8_0&threads=2"
    (shown,) = [
        each for each in shown_commands(page(operator, query)) if "--alias" in each
    ][:1]
    answer = press(operator, query, name="")
    made = Deployment.objects.get()
    assert answer["Location"] == f"/deployments/{made.name}/"  # type: ignore[index]
    assert (made.desired, made.created_by) == ("running", operator_user)
    (instance,) = plan_deployment(made).instances
    assert runnable(instance, made.name).argv == shown[-len(instance.argv) :]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_what_can_be_deployed_is_planned_the_same_when_memory_has_changed(
    operator: Client, in_use: Callable[..., None], model: Model, strategy: str
) -> None:
    in_use(RPC0=3 << 30, RPC1=9 << 30)
    query = f"model={model.name}&device=RPC0&device=RPC1&context=4096"
    text = page(operator, query)
    card = card_of(text, strategy)
    press(operator, query, strategy=strategy)
    assert Deployment.objects.exists() == ("Deploy this" in card)
    in_use(RPC0=15 << 30, RPC1=1 << 30)
    for made in Deployment.objects.all():
        planned = plan_deployment(made).instances
        argv = [runnable(instance, made.name).argv for instance in planned]
        assert argv == [
            each[-len(mine) :]
            for each, mine in zip(shown_commands(card), argv, strict=True)
        ]


def test_the_name_can_be_chosen(operator: Client) -> None:
    press(operator, "device=CPU", name="mine")
    assert Deployment.objects.get().name == "mine"


@pytest.mark.parametrize("name", ["small", "Not A Name", "new"])
def test_a_name_that_cannot_be_is_said_at_the_card_and_kept(
    operator: Client, deployment: Deployment, name: str
) -> None:
    answer = press(operator, "device=CPU&context=2048", name=name)
    text = squeezed(answer.content.decode())  # type: ignore[attr-defined]
    assert answer.status_code == 200 and Deployment.objects.count() == 1  # type: ignore[attr-defined]
    assert re.search(rf'name="name" value="{name}"[^>]*aria-invalid', text)
    assert 'name="context" value="2048"' in text


TOO_MUCH = "device=RPC0&gpu_layers=all&context=16000000&parallel=64&kv_cache_k=f32&kv_cache_v=f32"


@pytest.mark.parametrize(
    ("query", "strategy"),
    [
        (TOO_MUCH, "independent"),
        ("context=x", "independent"),
        ("", "nothing"),
        ("", ""),
    ],
)
def test_what_cannot_run_is_not_deployed(
    operator: Client, query: str, strategy: str
) -> None:
    answer = press(operator, query, strategy=strategy)
    assert answer.status_code == 200 and not Deployment.objects.exists()  # type: ignore[attr-defined]


def test_a_viewer_looks_and_deploys_nothing(viewer: Client) -> None:
    text = page(viewer)
    assert "Deploy this" not in text and "Create and start" not in text
    assert press(viewer, "device=CPU").status_code == 403  # type: ignore[attr-defined]
    assert not Deployment.objects.exists()


def test_a_running_deployment_does_not_count_its_own_memory(
    make_deployment: Callable[..., Deployment],
    model: Model,
    in_use: Callable[..., None],
) -> None:
    made = make_deployment(members={"model": (model, ["RPC0"])})
    in_use(RPC0=2 << 30)
    assert plan_deployment(made).devices[0].held_bytes == 2 << 30
    made.instances.create(host=made.host, role="model", pid=1, state="ready")
    assert plan_deployment(made).devices[0].held_bytes == 0


# --- cost -----------------------------------------------------------------------------------------
def test_more_models_and_devices_cost_no_more_queries(
    viewer: Client, host: Host, model: Model
) -> None:
    page(viewer)
    with CaptureQueriesContext(connection) as few:
        page(viewer, "device=RPC0")
    for number in range(2, 8):
        Device.objects.create(
            host=host,
            name=f"RPC{number}",
            kind="rpc",
            is_stand_in=True,
            position=100 + number,
            endpoint=f"127.0.0.1:{18990 + number}",
            memory_bytes=24 << 30,
        )
        Model.objects.create(
            name=f"copy-{number}", path=f"/copy-{number}.gguf", facts=model.facts
        )
    with CaptureQueriesContext(connection) as many:
        page(viewer, "&".join(f"device=RPC{number}" for number in range(8)))
    assert len(many) <= len(few) <= 15
