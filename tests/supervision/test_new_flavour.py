"""A flavour that nothing of Omni names is planned, started, watched, answered through and unloaded:
one file (tests/toy/flavour.py) and a row in the registry."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from deployments.engines import FLAVOURS
from deployments.gateway.asgi import gateway
from deployments.gateway.directory import forget_table, read_table
from deployments.gateway.keys import create_key
from deployments.gateway.waking import deployment_wake
from deployments.instances.model_files import file_bytes, serves_old_file
from deployments.models import Deployment, Engine, Instance, Model, ReferenceAnswer
from deployments.planning.launch_facts import LaunchFacts
from deployments.rig.export import current_rig
from deployments.rig.words import dump
from deployments.services.deployments import (
    deployment_change,
    deployment_create,
    deployment_start,
    deployment_stop,
)
from deployments.services.discovery import refresh_engine, register_engine
from deployments.supervision import process
from deployments.supervision.liveness import LivenessLimits
from gpus.models import Host
from omni.home import Home
from tests.supervision.conftest import Ticker
from tests.toy.flavour import SERVER, Toy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
ASKED = {"model": "polly", "messages": [{"role": "user", "content": "hello you"}]}


@pytest.fixture
def toy(host: Host, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The row in the registry, and the program found on this machine."""
    monkeypatch.setitem(FLAVOURS, "toy", Toy())
    engine = register_engine(host, SERVER, name="parrot", flavour="toy")
    return refresh_engine(engine)


@pytest.fixture
def polly(toy: Engine, model: Model) -> Deployment:
    return deployment_create(
        name="polly",
        strategy="independent",
        engine=toy,
        members={"model": (model, ["CPU"])},
        settings={"context": 512, "parallel": 2},
    )


@pytest.fixture
def running(polly: Deployment, ticker: Ticker) -> Iterator[Instance]:
    deployment_start(deployment=polly)
    ticker.until_state("ready")
    yield Instance.objects.get()


def ask(**fields: Any) -> httpx.Response:
    """Through the gateway, as any client would."""
    key = create_key("parrot's friend")
    forget_table()

    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)  # type: ignore[arg-type]
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://omni"
        ) as client:
            body = {**ASKED, **fields}
            return await client.post("/v1/chat/completions", json=body, headers=headers)

    return asyncio.run(answered())


def test_it_is_asked_what_it_is_and_shown_under_its_name(
    toy: Engine, admin: Client, model: Model
) -> None:
    assert (toy.state, toy.build) == ("ok", "parrot 7")
    assert "+answers_as" in toy.flags and toy.archs == {}
    assert "Toy engine, parrot 7" in admin.get("/models/").content.decode()
    assert "Toy engine" in admin.get("/admin/deployments/engine/").content.decode()
    form = admin.get(f"/admin/deployments/engine/{toy.pk}/change/").content.decode()
    assert '<option value="toy" selected>Toy engine</option>' in form
    assert admin.get(f"/models/{model.name}/advice/").status_code == 200
    assert "flavour: toy" in dump(current_rig(toy.host))


def test_it_is_started_and_the_agent_knows_what_it_was_started_with(
    running: Instance, ticker: Ticker, model: Model, settings: Any
) -> None:
    home: Home = settings.OMNI_HOME
    expected = LaunchFacts(
        flavour="toy",
        model_path=model.path,
        alias="polly",
        slots=2,
        devices=("parrot",),
    )
    record = process.read_record(home.run, running.pk)
    assert record and record.launch == running.launch_facts == expected
    assert file_bytes(record.launch) == Path(model.path).stat().st_size
    assert running.file_stamp and not serves_old_file(running)
    serving = read_table().deployments["polly"]
    assert (serving.alias, serving.flavour) == ("polly", "toy")

    # Its first answer was asked for in its own way, and is kept for others to be compared with.
    assert (running.judgement, running.warning) == ("alone", "")
    assert ReferenceAnswer.objects.get().tokens == list(range(24))


def test_it_answers_through_the_gateway_with_the_fields_that_it_takes(
    running: Instance,
) -> None:
    whole = ask()
    assert whole.status_code == 200, whole.text
    assert whole.json()["choices"][0]["message"]["content"] == "parrot: hello you"
    assert (
        ask(shout=True).json()["choices"][0]["message"]["content"]
        == "PARROT: HELLO YOU"
    )
    assert ask(shout=5).status_code == 400

    lines = [
        line
        for line in ask(stream=True).text.splitlines()
        if line.startswith("data: {")
    ]
    deltas = [
        json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines
    ]
    assert "".join(delta.get("content", "") for delta in deltas) == "parrot: hello you "


def test_one_that_dies_or_hangs_is_started_anew(
    running: Instance, ticker: Ticker
) -> None:
    os.kill(running.pid or 0, signal.SIGKILL)
    ticker.until_state("crashed")
    ticker.until_state("ready")
    again = Instance.objects.get()
    assert (again.restarts, again.pid == running.pid) == (1, False)

    ticker.new_agent(liveness=LivenessLimits(every_s=0.2, idle_s=1.0, busy_s=60.0))
    os.kill(again.pid or 0, signal.SIGUSR1)
    ticker.until_state("unhealthy")
    ticker.until(lambda: Instance.objects.get().pid not in (None, again.pid), 20)
    ticker.until_state("ready")


def test_a_new_agent_adopts_it(running: Instance, ticker: Ticker) -> None:
    ticker.new_agent()
    for _ in range(3):
        ticker.agent.tick()
    after = Instance.objects.get()
    assert (after.pid, after.state, after.restarts) == (running.pid, "ready", 0)


def test_it_is_unloaded_when_idle_comes_back_when_asked_for_and_stops(
    running: Instance, polly: Deployment, ticker: Ticker
) -> None:
    deployment_change(deployment=polly, settings={**polly.settings, "idle_unload_s": 1})
    ticker.until(lambda: Deployment.objects.get().shown_state == "unloaded")
    assert Instance.objects.get().pid is None and not Path(running.socket).exists()
    deployment_change(deployment=polly, settings=polly.settings)
    deployment_wake(polly.pk)
    ticker.until_state("ready")
    assert ask().status_code == 200
    deployment_stop(deployment=polly)
    ticker.until_state("stopped")
    assert Instance.objects.get().socket == ""
