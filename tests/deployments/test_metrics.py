"""/metrics as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from deployments.gateway import kv_transfer_state
from deployments.models import Deployment, Instance


def scraped(client: Client) -> dict[str, dict[tuple[str, ...], float]]:
    answer = client.get("/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        assert family.documentation, f"{family.name} says what it is"
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def served(make_deployment: Callable[..., Deployment]) -> Deployment:
    made = make_deployment("served")
    Deployment.objects.update(desired=Deployment.Desired.RUNNING)
    Instance.objects.create(
        host=made.host,
        deployment=made,
        role="model",
        state="ready",
        generation=made.generation,
        restarts=3,
    )
    return made


def test_metrics_of_a_ready_deployment_are_one_and_its_restarts(
    admin: Client, served: Deployment
) -> None:
    found = scraped(admin)
    assert found["omni_deployment_ready"] == {("served", "independent"): 1}
    assert found["omni_instance_restarts_total"] == {("served", "model"): 3}


def test_metrics_of_a_stopped_deployment_are_nought(
    admin: Client, make_deployment: Callable[..., Deployment]
) -> None:
    make_deployment("idle")
    assert scraped(admin)["omni_deployment_ready"] == {("idle", "independent"): 0}


def test_metrics_of_kv_transfers_are_counted_by_outcome(
    admin: Client, served: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kv_transfer_state.counts, ('of "quotes"\n', "used"), 2)
    found = scraped(admin)["omni_handovers_total"]
    assert found[('of "quotes"\n', "used")] == 2


def test_metrics_without_a_log_in_are_refused(anonymous: Client) -> None:
    assert anonymous.get("/metrics").status_code == 302
