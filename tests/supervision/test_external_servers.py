"""Deployments on external servers: offered and watched, never started, signalled or
adopted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from deployments.models import Deployment, Engine, Instance, Model, Transition
from deployments.services import servers
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_start,
    deployment_stop,
)
from deployments.supervision import process
from gpus.models import Host
from omni.errors import OmniError
from tests.fakes.external_server import FakeExternalServer
from tests.gateway.engine import RealEngine
from tests.supervision.conftest import Ticker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]
KEY = "key-of-somebody-else"


@pytest.fixture
def external() -> Iterator[FakeExternalServer]:
    running = FakeExternalServer()
    yield running
    running.close()


@pytest.fixture
def quick(ticker: Ticker) -> Ticker:
    ticker.agent.external.every_s = 0.1
    return ticker


def offered(
    host: Host, address: str, model: str = "org/Big-1", key: str = ""
) -> Deployment:
    engine = servers.server_add(host=host, name="other", address=address, key=key)
    return servers.model_offer(engine=engine, model=model, name="remote")


def own_records() -> list[process.Record]:
    return list(process.records(django_settings.OMNI_HOME.run))


@pytest.mark.real
def test_a_real_server_is_watched_through_its_death_and_return_and_outlives_stop_and_delete(
    host: Host, quick: Ticker, tmp_path: Path
) -> None:
    key_path = tmp_path / "external.key"
    key_path.write_text(KEY)
    real = RealEngine(tmp_path, key_path)
    try:
        remote = offered(host, f"http://127.0.0.1:{real.port}", "smol-alias", KEY)
        quick.until_state("ready")
        row, engine = Instance.objects.get(), Engine.objects.get()
        assert (row.pid, row.port, row.argv, row.address) == (
            None,
            None,
            [],
            engine.path,
        )
        assert (engine.build, engine.offers, engine.was_verified) == (
            "llamacpp",
            ["smol-alias"],
            True,
        )
        real.kill()
        quick.until_state("unhealthy")
        assert "cannot be reached" in Instance.objects.get().error
        quick.until(lambda: Engine.objects.get().state == "broken")
        assert Deployment.objects.get().state == "unhealthy"
        real = RealEngine(tmp_path, key_path, port=real.port)
        quick.until_state("ready", 60)
        assert Instance.objects.get().error == "" and Engine.objects.get().state == "ok"
        pid = real.process.pid
        deployment_stop(deployment=remote)
        quick.until_state("stopped")
        deployment_start(deployment=remote)
        quick.until_state("ready")
        deployment_delete(deployment=remote)
        quick.until(lambda: not Deployment.objects.exists())
        for _ in range(3):
            quick.agent.tick()
        assert real.process.poll() is None and real.process.pid == pid, real.said()
        assert own_records() == []
    finally:
        real.kill()


def test_each_change_is_kept_with_its_reason(
    host: Host, quick: Ticker, external: FakeExternalServer
) -> None:
    offered(host, external.address)
    quick.until_state("ready")
    external.answers["/health"] = (503, "application/json", b"{}")
    quick.until_state("unhealthy")
    del external.answers["/health"]
    quick.until_state("ready")
    steps = [(t.old, t.new) for t in Transition.objects.order_by("id")]
    assert steps[-3:] == [
        ("starting", "ready"),
        ("ready", "unhealthy"),
        ("unhealthy", "ready"),
    ]
    reasons = list(Transition.objects.order_by("id").values_list("reason", flat=True))
    assert all(reasons) and "status 503" in reasons[-2]


def test_a_model_that_the_server_no_longer_offers_makes_it_unhealthy(
    host: Host, quick: Ticker, external: FakeExternalServer
) -> None:
    offered(host, external.address)
    quick.until_state("ready")
    external.answers["/v1/models"] = (
        200,
        "application/json",
        b'{"data":[{"id":"org/Two"}]}',
    )
    quick.until_state("unhealthy")
    assert "does not offer the model org/Big-1" in Instance.objects.get().error
    quick.until(lambda: Engine.objects.get().offers == ["org/Two"])
    deployment_change(deployment=Deployment.objects.get(), external_model="org/Two")
    quick.until_state("ready")


def test_a_new_agent_does_not_let_a_ready_server_blink(
    host: Host, quick: Ticker, external: FakeExternalServer
) -> None:
    offered(host, external.address)
    quick.until_state("ready")
    changes = Transition.objects.count()
    for _ in range(3):
        quick.new_agent()
        quick.agent.tick()
        assert Instance.objects.get().state == "ready"
    assert Transition.objects.count() == changes


def test_a_server_that_hangs_holds_nobody_up(
    host: Host, quick: Ticker, external: FakeExternalServer
) -> None:
    offered(host, external.address)
    quick.until_state("ready")
    asked = len(external.seen)
    external.answers["/health"] = FakeExternalServer.silent
    quick.until(lambda: len(external.seen) > asked)
    # The question hangs now; the next looks come and go beside it.
    for _ in range(3):
        quick.agent.tick()
    assert quick.agent.external.asked[Engine.objects.get().pk].future is not None
    external.go_on.set()


def test_a_change_in_the_administration_cannot_leave_models_behind(
    deployment: Deployment, external: FakeExternalServer
) -> None:
    """There a form saves the row and the services look at it afterwards."""
    other = servers.server_add(
        host=deployment.host, name="other", address=external.address
    )
    Deployment.objects.update(engine=other, settings={})
    with pytest.raises(OmniError, match="not said which"):
        deployment_change(deployment=deployment, settings={}, extra_args=[])
    Deployment.objects.update(external_model="org/Big-1")
    deployment_change(deployment=deployment, settings={}, extra_args=[])
    assert not deployment.bindings.exists()


@pytest.mark.real
def test_a_deployment_moves_to_an_external_server_and_back(
    deployment: Deployment, model: Model, quick: Ticker, external: FakeExternalServer
) -> None:
    own = deployment.engine
    deployment_start(deployment=deployment)
    quick.until_state("ready")
    (record,) = own_records()
    other = servers.server_add(
        host=deployment.host, name="other", address=external.address
    )
    deployment_change(
        deployment=deployment,
        engine=other,
        members={},
        settings={},
        external_model="org/Big-1",
    )
    quick.until(
        lambda: Instance.objects.filter(
            address=external.address, state="ready"
        ).exists()
    )
    assert process.has_ended(record) and own_records() == []
    assert Instance.objects.count() == 1 and Deployment.objects.get().state == "ready"
    deployment_change(
        deployment=deployment, engine=own, members={"model": (model, ["CPU"])},
        settings={"context": 512, "threads": 1}, external_model="",
    )  # fmt: skip
    quick.until(lambda: Instance.objects.filter(address="", state="ready").exists())
    assert Instance.objects.count() == 1 and len(own_records()) == 1
