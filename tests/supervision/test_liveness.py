"""An engine whose computing thread hangs says it is well: it is asked what only that thread can
answer."""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx
import pytest
from django.conf import settings

from deployments.instances.drain import RequestLocks
from deployments.models import Deployment, Instance
from deployments.services.deployments import deployment_change, deployment_start
from deployments.supervision.liveness import LivenessLimits
from tests.supervision.conftest import Ticker, fake_plan

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(90),
]
QUICK_LIVENESS = LivenessLimits(every_s=0.2, idle_s=1.0, busy_s=60.0)


@pytest.fixture
def stuck(deployment: Deployment, ticker: Ticker) -> Instance:
    """Ready, and from now on nothing but /health is answered."""
    ticker.new_agent(plan=fake_plan("stuck"), liveness=QUICK_LIVENESS)
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    found = Instance.objects.get()
    os.kill(found.pid or 0, signal.SIGUSR1)
    return found


def test_one_that_has_nothing_to_do_and_does_not_answer_is_started_anew(
    stuck: Instance, ticker: Ticker
) -> None:
    ticker.until_state("unhealthy")
    assert "does not answer" in Instance.objects.get().error
    ticker.until(
        lambda: (
            Instance.objects.get().state == "ready"
            and Instance.objects.get().pid != stuck.pid
        ),
        20,
    )
    assert Instance.objects.get().restarts == 1


def test_one_that_has_work_is_given_more_time(stuck: Instance, ticker: Ticker) -> None:
    assert stuck.deployment_id
    with RequestLocks(settings.OMNI_HOME.drain_locks).held(stuck.deployment_id):
        began = time.monotonic()
        ticker.until(lambda: time.monotonic() - began > 3 * QUICK_LIVENESS.idle_s, 20)
        assert (Instance.objects.get().pid, Instance.objects.get().state) == (
            stuck.pid,
            "ready",
        )
    ticker.until_state("unhealthy")


def test_a_real_engine_answers_while_it_reads_a_long_prompt(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_change(
        deployment=deployment, settings={"context": 4096, "threads": 1, "batch": 512}
    )
    ticker.new_agent(liveness=LivenessLimits(every_s=0.1, idle_s=15.0, busy_s=15.0))
    deployment_start(deployment=deployment)
    ticker.until_state("ready", 40)
    found = Instance.objects.get()
    answered = threading.Event()

    def ask() -> None:
        body = {"prompt": "one two three four five six seven " * 200, "n_predict": 4}
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=found.socket), timeout=80
        ) as client:
            client.post("http://localhost/completion", json=body)
        answered.set()

    threading.Thread(target=ask, daemon=True).start()
    ticker.until(answered.is_set, 80)
    after = Instance.objects.get()
    assert (after.pid, after.state, after.restarts) == (found.pid, "ready", 0)
