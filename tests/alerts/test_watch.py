"""The agent's watch with real rows: what fires is written once, also by the next agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.utils import timezone

from deployments.alerts.rules import BY_CODE, Limits, Severity
from deployments.models import (
    Alert,
    AlertRule,
    Deployment,
    Engine,
    GatewayRequest,
    Instance,
)
from deployments.services import alerting
from deployments.services.alerting import acknowledge, prune_alerts, rule_change
from deployments.supervision import alert_watch
from deployments.supervision.alert_watch import AlertWatch
from gpus.models import Gpu, Host
from omni.errors import OmniError
from tests.alerts.conftest import Telemetry

Agent = Callable[[], AlertWatch]
Looks = Callable[..., list[bool]]
HOT, COOL = {"temperature_celsius": 91}, {"temperature_celsius": 40}


def test_a_hot_card_fires_once_and_clears_once(agent: Agent, looks: Looks) -> None:
    watch = agent()
    assert looks(watch, 12, **HOT) == [False] * 12
    assert looks(watch, 9, **HOT) == [True] + [False] * 8
    alert = Alert.objects.get()
    assert alert.text == "RTX 5090 is at 91 °C." and alert.cleared_at is None
    assert looks(watch, 14, **COOL) == [False] * 12 + [True, False]
    alert.refresh_from_db()
    assert alert.cleared_at and alert.cleared_text == "RTX 5090 is at 40 °C."


def test_an_agent_that_restarts_while_an_alert_fires_goes_on_with_it(
    agent: Agent, looks: Looks
) -> None:
    looks(agent(), 14, **HOT)
    looks(agent(), 30, **HOT)
    assert Alert.objects.count() == 1
    looks(agent(), 5, **COOL)
    # What it had counted is gone with it; that it fires is not.
    assert looks(agent(), 14, **COOL) == [False] * 12 + [True, False]
    assert Alert.objects.get().cleared_at


def test_two_agents_write_one_alert(agent: Agent, looks: Looks) -> None:
    one, other = agent(), agent()
    for _ in range(20):
        looks(one, 1, **HOT)
        looks(other, 1)
    assert Alert.objects.count() == 1


def test_without_telemetry_an_alert_goes_on(
    agent: Agent, looks: Looks, telemetry: Telemetry
) -> None:
    watch = agent()
    looks(watch, 14, **HOT)
    telemetry.is_away = True
    looks(watch, 100)
    assert Alert.objects.get().cleared_at is None


def test_what_could_not_be_written_is_written_at_the_next_look(
    agent: Agent, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = agent()
    looks(watch, 12, **HOT)
    with monkeypatch.context() as patch:
        patch.setattr(alert_watch, "record", _refuse)
        with pytest.raises(DatabaseError):
            looks(watch, 1)
    assert looks(watch, 1) == [True]
    assert Alert.objects.count() == 1


def _refuse(*args: Any) -> None:
    raise DatabaseError("away")


def test_a_lost_card_fires_and_one_that_was_deleted_clears(
    agent: Agent, looks: Looks, watched_host: Host
) -> None:
    watch = agent()
    looks(watch, 2)
    Gpu.objects.update(state=Gpu.State.LOST, error="It fell off the bus.")
    looks(watch, 4)
    alert = Alert.objects.get()
    assert (alert.code, alert.severity) == ("gpu_lost", "error")
    Gpu.objects.all().delete()
    looks(watch, 1)
    alert.refresh_from_db()
    assert alert.cleared_text == "It is not there any more."


def test_a_failed_deployment_and_slow_requests_fire_for_it_alone(
    agent: Agent, looks: Looks, watched_host: Host
) -> None:
    engine = Engine.objects.create(host=watched_host, name="llama.cpp", path="/x")
    for name in ("well", "ill"):
        made = Deployment.objects.create(host=watched_host, name=name, engine=engine)
        Instance.objects.create(
            host=made.host,
            deployment=made,
            role="model",
            state="failed" if name == "ill" else "ready",
            generation=made.generation,
            error="out of memory" if name == "ill" else "",
        )
        rows = [
            GatewayRequest(
                at=timezone.now(),
                hour=1,
                surface="gateway",
                path="/v1",
                status=200,
                duration_ms=1,
                deployment_name=name,
                first_token_ms=60_000 if name == "ill" else 100,
            )
            for _ in range(5)
        ]
        GatewayRequest.objects.bulk_create(rows)
    Deployment.objects.update(desired="running")
    looks(agent(), 20)
    assert set(Alert.objects.values_list("code", "subject")) == {
        ("deployment_failed", "ill"),
        ("first_token", "ill"),
    }
    Deployment.objects.update(desired="stopped")
    looks(agent(), 5)
    assert not Alert.objects.filter(cleared_at=None).exists()


@pytest.mark.skipif(
    connection.vendor != "sqlite", reason="only SQLite tells that nobody wrote"
)
def test_an_idle_look_asks_the_database_nothing_and_writes_nothing(
    agent: Agent, looks: Looks, django_assert_num_queries: Any
) -> None:
    watch = agent()
    looks(watch, 3)
    with django_assert_num_queries(0):
        looks(watch, 1)


# --- rules ----------------------------------------------------------------------------------------
def test_a_rule_that_is_changed_holds_for_the_next_look(
    agent: Agent, looks: Looks, admin_user: User
) -> None:
    watch = agent()
    looks(watch, 2, temperature_celsius=60)
    limits = Limits(50, 40, 0, 0, Severity.ERROR)
    rule_change(code="gpu_temperature", limits=limits, user=admin_user)
    assert looks(watch, 1) == [True]
    assert Alert.objects.get().severity == "error"
    off = Limits(50, 40, 0, 0, is_on=False)
    rule_change(code="gpu_temperature", limits=off, user=admin_user)
    assert looks(watch, 1) == [True]
    rule_change(
        code="gpu_temperature",
        limits=BY_CODE["gpu_temperature"].limits,
        user=admin_user,
    )
    assert not AlertRule.objects.exists()


def test_a_row_of_limits_that_make_no_sense_leaves_the_usual_ones(db: None) -> None:
    AlertRule.objects.create(
        code="disk", severity="error", threshold=1, clears_at=0, for_s=0, clears_for_s=0
    )
    AlertRule.objects.create(
        code="of another version",
        severity="error",
        threshold=1,
        clears_at=0,
        for_s=0,
        clears_for_s=0,
    )
    assert alerting.rules_now() == BY_CODE


# --- acknowledging and keeping --------------------------------------------------------------------
def test_an_alert_is_acknowledged_with_a_note_while_it_fires(
    agent: Agent, looks: Looks, operator_user: User, viewer_user: User
) -> None:
    watch = agent()
    looks(watch, 14, **HOT)
    alert = Alert.objects.get()
    with pytest.raises(OmniError, match="You may not"):
        acknowledge(alert=alert, user=viewer_user)
    acknowledge(alert=alert, note=" fan is on order ", user=operator_user)
    looks(watch, 2)
    alert.refresh_from_db()
    assert (alert.acknowledged_by, alert.note) == ("oscar", "fan is on order")
    looks(watch, 14, **COOL)
    with pytest.raises(OmniError, match="cleared meanwhile"):
        acknowledge(alert=alert, user=operator_user)


def test_the_history_is_kept_for_a_while_and_what_fires_always(
    watched_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = timezone.now() - timedelta(days=alerting.KEPT_DAYS + 1)
    usual = {"host": watched_host, "code": "disk", "name": "rig", "severity": "error"}
    for subject, cleared_at in (("a", None), ("b", long_ago), ("c", timezone.now())):
        Alert.objects.create(
            subject=subject, fired_at=long_ago, cleared_at=cleared_at, **usual
        )
    prune_alerts()
    assert set(Alert.objects.values_list("subject", flat=True)) == {"a", "c"}
    monkeypatch.setattr(alerting, "MOST_KEPT", 0)
    prune_alerts()
    assert set(Alert.objects.values_list("subject", flat=True)) == {"a"}
