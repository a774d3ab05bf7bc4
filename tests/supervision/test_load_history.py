"""What a real engine does is kept, and its life is marked."""

from __future__ import annotations

import os
import signal
import time

import pytest

from deployments.instances.connecting import address_of
from deployments.instances.engine_client import begin_asking, engine_request
from deployments.models import Deployment, Instance
from deployments.services.deployments import deployment_start, deployment_stop
from deployments.services.history_marks import subject_of
from deployments.services.load_history import LoadHistory
from gpus.buckets import read_history
from gpus.models import HistoryMark, HistorySubject
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
QUESTION = {"prompt": "Once upon a time", "max_tokens": 30, "ignore_eos": True}


def answered(instance: Instance) -> None:
    address = address_of(instance)
    assert address
    request = engine_request(address, "/v1/completions", QUESTION, 60)
    status, _ = begin_asking(60, request, 1 << 20).result()
    assert status == 200


def test_work_of_an_engine_is_kept_and_its_life_marked(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    instance = Instance.objects.get()
    history = LoadHistory(deployment.host)
    begin_s = time.time() // 10 * 10 - 60
    history.tick(begin_s)
    answered(instance)
    history.tick(begin_s + 10)

    subject = HistorySubject.objects.get(key=subject_of(deployment.pk))
    assert subject.title == deployment.name
    found = read_history(subject, begin_s, begin_s + 20)
    assert found.starts == [begin_s, begin_s + 10]
    of = {name: columns.mean for name, columns in found.metrics.items()}
    assert of["requests"] == of["queue_length"] == [0, 0]
    assert of["output_tps"][0] is of["prompt_tps"][0] is None
    output, prompt = of["output_tps"][1], of["prompt_tps"][1]
    assert output and prompt
    # As many tokens as were asked for, and the few of the prompt.
    assert 5 < output / prompt < 20

    assert instance.pid
    os.kill(instance.pid, signal.SIGKILL)
    ticker.until_state("crashed")
    ticker.until_state("ready")
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")
    kinds = HistoryMark.objects.order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["started", "crashed", "started", "stopped"]
    assert {row.subject for row in HistoryMark.objects.all()} == {subject.key}
