"""A device's memory is held by one or by the other: refusal and swap, by an agent with real
engines."""

from __future__ import annotations

import time

import pytest
from django.test import Client

from deployments.models import Deployment, Instance
from deployments.services.deployments import (
    deployment_start,
    deployment_stop,
)
from deployments.supervision.turns import HOLD_S
from gpus.models import Device
from omni.errors import OmniError
from tests.supervision.conftest import Make, Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


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
    deployment_start(deployment=first)
    ticker.until(lambda: state(first) == "ready", 40)
    assert Deployment.objects.get(pk=second.pk).is_unloaded
    assert (
        Instance.objects.filter(pid__isnull=False, deployment__isnull=False).count()
        == 1
    )


def test_on_a_card_large_enough_both_run(
    make: Make, ticker: Ticker, card: Device
) -> None:
    Device.objects.filter(pk=card.pk).update(memory_bytes=2000 << 20)
    first, second = make("first"), make("second")
    for deployment in (first, second):
        deployment_start(deployment=deployment)
    ticker.until(lambda: state(first) == state(second) == "ready", 40)
