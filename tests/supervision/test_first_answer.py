"""What the first answer of an engine decides, with the real engine."""

from __future__ import annotations

import pytest

from deployments.models import Deployment, Instance, ReferenceAnswer
from deployments.services.deployments import deployment_change, deployment_start
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


def test_an_independent_deployment_that_answered_well_before_is_failed_for_nonsense(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready", 40)
    assert Instance.objects.get().warning == ""
    before = ReferenceAnswer.objects.get().tokens
    deployment_change(deployment=deployment, extra_args=["--rope-freq-scale 0.001"])
    ticker.until_state("failed", 40)
    row = Instance.objects.get()
    assert row.error_code == "wrong_answers" and "one token over and over" in row.error
    assert ReferenceAnswer.objects.get().tokens == before
    ticker.until(lambda: Instance.objects.get().pid is None, 5)
