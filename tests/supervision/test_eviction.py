"""A device's memory is held by one or by the other: refusal and swap, by an agent with real
engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from django.test import Client

from deployments.gateway.waking import deployment_wake
from deployments.models import Deployment, Engine, Instance, Model
from deployments.planning.plan import InstancePlan
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from deployments.supervision import launch
from deployments.supervision.eviction import HOLD_S
from deployments.supervision.process import Record
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
MIB = 1 << 20
Make = Callable[..., Deployment]


@pytest.fixture
def card(host: Host) -> Device:
    """A device that the packaged engine has not got, with room for one of the two."""
    return Device.objects.create(
        host=host, name="CUDA0", kind="cuda", memory_bytes=1000 * MIB
    )


@pytest.fixture
def make(
    engine: Engine,
    model: Model,
    card: Device,
    ticker: Ticker,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Deployments planned for the card; their engines run on the CPU, where this machine can run
    them."""
    start = launch.start

    def on_cpu(
        instance: Instance, plan: InstancePlan, generation: int, taken: Sequence[int]
    ) -> Record:
        argv = tuple("none" if word == "CUDA0" else word for word in plan.argv)
        return start(instance, replace(plan, argv=argv), generation, taken)

    monkeypatch.setattr(launch, "start", on_cpu)

    def make_one(name: str, **settings: object) -> Deployment:
        return deployment_create(
            name=name,
            strategy="independent",
            engine=engine,
            members={"model": (model, ["CUDA0"])},
            settings={"context": 1024, "threads": 1, **settings},
        )

    return make_one


def state(deployment: Deployment) -> str:
    return str(Deployment.objects.get(pk=deployment.pk).state)


def test_a_start_for_which_there_is_no_memory_beside_another_is_refused_with_its_name(
    make: Make, ticker: Ticker, admin: Client
) -> None:
    first, second = make("first"), make("second")
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 30)
    with pytest.raises(OmniError, match="first holds") as refused:
        deployment_start(deployment=second)
    assert refused.value.code == "place_taken" and "on CUDA0" in refused.value.text
    assert state(second) == "stopped"
    page = admin.post("/deployments/second/start/", headers={"HX-Request": "true"})
    assert "first holds" in page.content.decode()


def test_both_wanted_at_once_one_runs_and_the_other_fails_and_says_why(
    make: Make, ticker: Ticker
) -> None:
    first, second = make("first"), make("second")
    for deployment in (first, second):
        deployment_start(deployment=deployment)
    ticker.until(lambda: sorted(map(state, (first, second))) == ["failed", "ready"], 30)
    (failed,) = Instance.objects.filter(state="failed")
    assert failed.error_code == "place_taken" and "holds" in failed.error
    (other,) = Deployment.objects.exclude(pk=failed.deployment_id)
    deployment_stop(deployment=other)
    ticker.until(lambda: state(other) == "stopped", 30)
    assert failed.deployment
    deployment_start(deployment=failed.deployment)
    ticker.until(lambda: state(failed.deployment) == "ready", 30)  # type: ignore[arg-type]


def test_one_that_swaps_has_the_other_unloaded_which_comes_back_when_it_is_asked_for(
    make: Make, ticker: Ticker
) -> None:
    first, second = make("first", when_taken="swap"), make("second", when_taken="swap")
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 30)
    began = time.monotonic()
    deployment_start(deployment=second)
    ticker.until(lambda: state(second) == "ready", 40)
    assert time.monotonic() - began > HOLD_S - 1
    gone = Deployment.objects.get(pk=first.pk)
    assert (
        gone.is_unloaded
        and gone.state == "stopped"
        and gone.unloaded_why == "to make room for second"
    )
    deployment_wake(first.pk)
    ticker.until(lambda: state(first) == "ready", 40)
    assert Deployment.objects.get(pk=second.pk).is_unloaded
    assert (
        Instance.objects.filter(pid__isnull=False, deployment__isnull=False).count()
        == 1
    )


def test_on_a_card_large_enough_both_run(
    make: Make, ticker: Ticker, card: Device
) -> None:
    Device.objects.filter(pk=card.pk).update(memory_bytes=2000 * MIB)
    first, second = make("first"), make("second")
    for deployment in (first, second):
        deployment_start(deployment=deployment)
    ticker.until(lambda: state(first) == state(second) == "ready", 40)
