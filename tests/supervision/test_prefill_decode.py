"""A deployment of two instances from its plan to its answers: started, asked, half of it killed,
stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import stat

import pytest
from django.conf import settings as django_settings

from deployments.gateway.directory import forget_table, read_table
from deployments.gateway.kv_transfer_plan import KvTransferReport, last_timings
from deployments.gateway.relay import open_answer
from deployments.gateway.table import Passage
from deployments.models import Engine, Instance, Model
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
WORDS = ("harbour", "storm", "anchor")


def ask(word: str) -> tuple[KvTransferReport | None, int]:
    """How the prompt got there, and how many tokens of it the decode instance read."""

    async def answered() -> tuple[KvTransferReport | None, int]:
        messages = [{"role": "user", "content": f"{word} " * 100}]
        body = {"model": "pair", "messages": messages, "max_tokens": 1}
        async with open_answer("/v1/chat/completions", body) as upstream:
            timings = last_timings(await upstream.body())
        return upstream.kv_transfer, timings["prompt_n"]

    forget_table()
    return asyncio.run(answered())


def test_prompts_go_over_between_two_instances_that_the_agent_runs(
    engine: Engine, model: Model, ticker: Ticker
) -> None:
    deployment = deployment_create(
        name="pair",
        strategy="prefill_decode",
        engine=engine,
        members={"prefill": (model, ["CPU"]), "decode": (model, ["CPU"])},
        settings={"context": 2048, "parallel": 2, "threads": 1, "handover_min": 64},
    )
    deployment_start(deployment=deployment)
    ticker.until(lambda: {i.state for i in Instance.objects.all()} == {"ready"}, 40)
    folder = django_settings.OMNI_HOME.slots / "pair"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    assert all(
        "--no-cache-idle-slots" in instance.argv for instance in Instance.objects.all()
    )

    serving = read_table().deployments["pair"]
    assert serving.passage == Passage.KV_TRANSFER and set(serving.peers) == {
        "prefill",
        "decode",
    }
    facts = serving.kv_transfer
    assert facts and (facts.slots, facts.least_tokens, facts.folder) == (
        2,
        64,
        str(folder),
    )

    report, read = ask(WORDS[0])
    assert report and report.is_used and read == 1
    # The plan knows the size of the file to within its few bytes of header.
    tokens = report.prompt_tokens or 0
    assert (
        abs(report.size_bytes - (tokens * facts.token_bytes + facts.fixed_bytes)) < 1000
    )
    assert list(folder.iterdir()) == []

    reader = Instance.objects.get(role="prefill")
    assert reader.pid
    os.kill(reader.pid, signal.SIGKILL)
    report, read = ask(WORDS[1])
    # A connection from before may still be tried while the process ends.
    assert report and read > 100
    assert report.header in (
        "failed: prefill: the instance cannot be reached",
        "failed: prefill: the connection broke off",
    )
    ticker.until(lambda: Instance.objects.get(role="prefill").state == "crashed")
    report, read = ask(WORDS[2])
    assert (
        report
        and report.header == "failed: the prefill instance is not ready"
        and read > 100
    )
    ticker.until(lambda: Instance.objects.get(role="prefill").state == "ready", 40)
    report, read = ask(" ".join(WORDS))
    assert report and report.is_used and read == 1

    # The file was replaced before one of them was started again: their caches do not fit each
    # other.
    Instance.objects.filter(role="prefill").update(file_stamp="94 1")
    report, read = ask("another " + " ".join(WORDS))
    assert (
        report
        and report.header.startswith("skipped: the model's file was replaced")
        and read > 100
    )

    deployment_stop(deployment=deployment)
    ticker.until(lambda: {i.state for i in Instance.objects.all()} == {"stopped"})
    assert not folder.exists()
