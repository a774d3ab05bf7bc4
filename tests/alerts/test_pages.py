"""The alerts page, the line on every page, and what each role may do there."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import (
    Alert,
    AlertChannel,
    AlertDelivery,
    AlertRule,
    ScrapeToken,
)
from gpus.models import Host


@pytest.fixture
def alert(watched_host: Host) -> Alert:
    return Alert.objects.create(
        host=watched_host,
        code="gpu_lost",
        subject="GPU-1",
        name="RTX 5090",
        severity="error",
        text="RTX 5090 cannot be read: <b>it</b> fell off the bus.",
        fired_at=timezone.now(),
    )


def text_of(client: Client, address: str, **headers: Any) -> str:
    answer = client.get(address, headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def test_without_alerts_the_page_says_so_and_lists_the_rules(
    admin: Client, db: None
) -> None:
    text = text_of(admin, "/alerts/")
    assert "Nothing fires" in text and "GPU temperature" in text
    assert "≥ 85 °C" in text and "≤ 10 GiB free" in text
    assert 'class="alert-line"' not in text


def test_an_alert_stands_on_every_page_until_it_is_acknowledged(
    operator: Client, viewer: Client, alert: Alert
) -> None:
    for address in ("/alerts/", "/models/", "/glossary/", "/activity/"):
        text = text_of(viewer, address)
        assert 'class="alert-line"' in text and "1 alert<" in text, address
        assert "&lt;b&gt;it&lt;/b&gt;" in text
    assert "Acknowledge" not in text_of(viewer, "/alerts/")
    where = f"/alerts/{alert.pk}/acknowledge/"
    assert viewer.post(where).status_code == 403
    assert "Acknowledge" in text_of(operator, "/alerts/")
    answer = operator.post(
        where, {"note": "fan ordered"}, headers={"HX-Request": "true"}
    )
    assert "Acknowledged by oscar" in answer.content.decode()
    assert "fan ordered" in text_of(viewer, "/alerts/")
    assert 'class="alert-line"' not in text_of(viewer, "/models/")
    assert text_of(viewer, "/alerts/line/").strip() == ""


def test_a_page_asks_once_for_its_line_of_alerts(
    admin: Client, alert: Alert, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(4):
        text_of(admin, "/glossary/")


def test_the_history_says_who_had_acknowledged_and_what(
    admin: Client, alert: Alert
) -> None:
    Alert.objects.update(
        cleared_at=timezone.now(), acknowledged_by="oscar", note="was the riser",
        acknowledged_at=timezone.now(),
    )  # fmt: skip
    text = text_of(admin, "/alerts/")
    assert "Nothing fires" in text and "was the riser" in text and "oscar" in text


def test_rules_are_changed_by_administrators(admin: Client, operator: Client) -> None:
    where = "/alerts/rules/gpu_temperature/"
    assert operator.get(where).status_code == 403
    assert 'value="85' in text_of(admin, where)
    sent = {
        "is_on": "on",
        "severity": "error",
        "threshold": "80",
        "clears_at": "90",
        "for_s": "30",
        "clears_for_s": "30",
    }
    refused = admin.post(where, sent)
    assert "clear below 80" in refused.content.decode()
    assert admin.post(where, sent | {"clears_at": "70"}).status_code == 302
    assert AlertRule.objects.get().threshold == 80
    assert "≥ 80 °C" in text_of(admin, "/alerts/")
    assert "threshold" not in text_of(admin, "/alerts/rules/gpu_lost/")
    assert admin.get("/alerts/rules/nothing/").status_code == 404


def test_channels_are_added_tested_changed_and_removed(
    admin: Client, operator: Client
) -> None:
    assert operator.get("/alerts/channel/add/").status_code == 403
    sent = {
        "kind": "ntfy",
        "name": "phone",
        "address": "https://ntfy.sh/s3cret-topic",
        "token": "tk",
        "least_severity": "info",
        "is_on": "on",
    }
    wrong = admin.post("/alerts/channel/add/", sent | {"address": "ftp://s3cret"})
    assert "has to begin with http" in wrong.content.decode()
    assert "s3cret" not in wrong.content.decode()
    assert admin.post("/alerts/channel/add/", sent).status_code == 302
    again = admin.post("/alerts/channel/add/", sent)
    assert "already a channel" in again.content.decode()
    text = text_of(admin, "/alerts/")
    assert "https://ntfy.sh" in text and "s3cret" not in text
    assert "s3cret" not in text_of(admin, "/alerts/channels/phone/")
    assert admin.post("/alerts/channels/phone/test/").status_code == 302
    assert AlertDelivery.objects.get().event == "test"
    assert 'data-delivery="waiting"' in text_of(admin, "/alerts/")
    changed = {"least_severity": "error", "address": "", "token": ""}
    assert admin.post("/alerts/channels/phone/", changed).status_code == 302
    assert AlertChannel.objects.get().is_on is False
    assert admin.post("/alerts/channels/phone/remove/").status_code == 302
    assert not AlertChannel.objects.exists()


def test_a_scrape_token_is_shown_once(admin: Client, operator: Client) -> None:
    assert operator.post("/alerts/tokens/make/", {"name": "x"}).status_code == 403
    answer = admin.post("/alerts/tokens/make/", {"name": "prometheus"})
    assert "omni-scrape-" in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    text = text_of(admin, "/alerts/")
    assert "prometheus" in text and "omni-scrape-" not in text
    made = ScrapeToken.objects.get()
    admin.post(f"/alerts/tokens/{made.pk}/remove/")
    assert not ScrapeToken.objects.exists()
