"""Pages of requests: what is listed, counted, exported and cancelled, and for whom."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from deployments.models import ApiKey, BodyKeeping, GatewayRequest, KeptBody


def add(n: int = 1, **fields: Any) -> list[GatewayRequest]:
    """Requests of a moment ago, one a second."""
    now = fields.pop("at", None) or timezone.now()
    usual: dict[str, Any] = {
        "key_name": "ci",
        "surface": "gateway",
        "path": "/v1/chat/completions",
        "asked_name": "smol",
        "deployment_name": "smol",
        "status": 200,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "first_token_ms": 300,
        "duration_ms": 2000,
        "queue_ms": 3,
        "is_stream": True,
        "address": "10.1.2.3",
    }
    rows = []
    for number in range(n):
        at = now - timedelta(seconds=number)
        hour = int(at.timestamp() // 3600)
        rows.append(GatewayRequest(at=at, hour=hour, **{**usual, **fields}))
    return GatewayRequest.objects.bulk_create(rows)


def text_of(client: Client, address: str, **data: Any) -> str:
    answer = client.get(address, data)
    assert answer.status_code == 200
    return answer.content.decode()


# --- the page -------------------------------------------------------------------------------------
def test_without_any_request_the_page_says_what_it_will_show(
    admin: Client,
) -> None:
    text = text_of(admin, "/activity/")
    assert "No request has run yet" in text and "Nothing runs at the moment" in text
    assert "Nothing was used yet" in text_of(admin, "/usage/")


def test_the_history_has_figures_and_twenty_five_rows_a_page(admin: Client) -> None:
    add(60)
    add(1, status=502, error_code="engine_died", first_token_ms=None)
    add(1, status=499, error_code="client_left", first_token_ms=9000)
    text = text_of(admin, "/activity/")
    assert "<dd>62</dd>" in text
    assert text.count('data-label="Result"') == 25
    assert "300 ms" in text and "engine_died" in text and "client left" in text
    last = text_of(admin, "/activity/", page=3)
    assert last.count('data-label="Result"') == 12


def test_pages_ask_the_database_as_often_however_many_requests_there_are(
    admin: Client, django_assert_max_num_queries: Any
) -> None:
    add(3)
    add(120, deployment_name="other", key_name="laptop")
    with django_assert_max_num_queries(24):
        text_of(admin, "/activity/")
    with django_assert_max_num_queries(20):
        text_of(admin, "/usage/")


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({}, 6),
        ({"deployment": "big"}, 1),
        ({"key": "laptop"}, 1),
        ({"status": "ok"}, 3),
        ({"status": "failed"}, 1),
        ({"status": "left"}, 1),
        ({"status": "cancelled"}, 1),
        ({"text": "ENGINE_d"}, 1),
        ({"text": "10.1.2"}, 6),
        ({"text": "nobody"}, 0),
        ({"period": "month"}, 7),
        ({"period": "all"}, 8),
        # What makes no sense is as if it was not said.
        ({"period": "never", "status": "x"}, 6),
        ({"deployment": "nothing-is-called-so"}, 0),
    ],
)
def test_filters_choose_what_is_listed_counted_and_exported(
    admin: Client, asked: dict[str, str], shown: int
) -> None:
    add(1, deployment_name="big")
    add(1, key_name="laptop")
    add(1)
    add(1, status=502, error_code="engine_died")
    add(1, status=499, error_code="client_left")
    add(1, status=499, error_code="request_cancelled")
    add(1, at=timezone.now() - timedelta(days=8))
    add(1, at=timezone.now() - timedelta(days=80))
    text = text_of(admin, "/activity/", **asked)
    assert text.count('data-label="Result"') == shown
    assert (f"<dd>{shown}</dd>" in text) == bool(shown)
    assert len(exported(admin, "json", **asked)) == shown


async def whole(answer: Any) -> bytes:
    return b"".join([part async for part in answer.streaming_content])


# --- files ----------------------------------------------------------------------------------------
def exported(client: Client, kind: str, **asked: str) -> list[dict[str, Any]]:
    answer = client.get(f"/activity/export.{kind}", asked)
    assert "attachment" in answer["Content-Disposition"]
    text = async_to_sync(whole)(answer).decode()
    return (
        json.loads(text) if kind == "json" else list(csv.DictReader(io.StringIO(text)))
    )


def test_a_file_has_every_request_once_and_no_formula(admin: Client) -> None:
    add(2100)
    add(1, asked_name="=cmd()", completion_tokens=None)
    found = exported(admin, "csv")
    assert len(found) == 2101
    assert [row for row in found if row["asked_name"] == "'=cmd()"][0][
        "completion_tokens"
    ] == ""
    assert [row["at"] for row in exported(admin, "json")] == [r["at"] for r in found]


def test_usage_adds_up_by_key_deployment_and_day(admin: Client) -> None:
    add(3, key_name="ci", deployment_name="smol")
    add(2, key_name="laptop", deployment_name="big", prompt_tokens=1000)
    add(1, key_name="", surface="chat", prompt_tokens=None, status=502)
    add(1, at=datetime(2026, 1, 2, 12, tzinfo=UTC))
    answer = admin.get("/usage/export.json", {"period": "all"})
    rows = json.loads(answer.content)
    keys = {(r["key"], r["deployment"]): r for r in rows if r["by"] == "key"}
    assert keys["laptop", "big"]["prompt_tokens"] == 2000
    assert keys["ci", "smol"]["requests"] == 4
    assert keys["", "smol"]["failed"] == 1
    days = [row for row in rows if row["by"] == "day"]
    assert days[0]["day"] == "2026-01-02" and sum(r["requests"] for r in days) == 7
    text = text_of(admin, "/usage/", period="all")
    assert "laptop" in text and "Chat" in text and "2026-01-02" in text


# --- who sees what --------------------------------------------------------------------------------
def test_who_is_no_administrator_sees_their_own_requests_alone(
    viewer: Client, operator: Client, admin: Client, viewer_user: User
) -> None:
    key, _ = ApiKey.objects.create_key(name="vera's", owner=viewer_user)
    add(1, key=key, key_name="vera's", user=viewer_user, user_name="vera")
    [other] = add(1, key_name="somebody's", asked_name="secret-model")
    for address in ("/activity/", "/usage/"):
        assert "somebody&#x27;s" in text_of(admin, address)
        mine = text_of(viewer, address)
        assert "vera&#x27;s" in mine and "somebody" not in mine
        assert "secret-model" not in mine
        assert "vera&#x27;s" not in text_of(operator, address)
    assert len(exported(viewer, "csv")) == 1
    assert viewer.get(f"/activity/{other.pk}/").status_code == 404
    assert admin.get(f"/activity/{other.pk}/").status_code == 200
    own = GatewayRequest.objects.get(user=viewer_user)
    assert "vera&#x27;s" in text_of(viewer, f"/activity/{own.pk}/")


# --- bodies ---------------------------------------------------------------------------------------
def test_bodies_are_kept_only_while_an_administrator_wants_it(
    admin: Client, operator: Client
) -> None:
    assert operator.post("/activity/bodies/", {"hours": "1"}).status_code == 403
    admin.post("/activity/bodies/", {"hours": "25"})
    assert not BodyKeeping.objects.exists()

    admin.post("/activity/bodies/", {"hours": "4"})
    keeping = BodyKeeping.objects.get()
    left = keeping.until - timezone.now()
    assert timedelta(hours=3.9) < left <= timedelta(hours=4)
    assert "wants it" in text_of(operator, "/activity/")

    [row] = add(1)
    KeptBody.objects.create(request=row, asked='{"secret": 1}', answered="data: {}")
    assert "secret" in text_of(admin, f"/activity/{row.pk}/")

    BodyKeeping.objects.update(until=timezone.now())
    assert "secret" not in text_of(admin, f"/activity/{row.pk}/")
    assert "wants it" not in text_of(admin, "/activity/")

    admin.post("/activity/bodies/", {"hours": "0"})
    assert not KeptBody.objects.exists() and not BodyKeeping.objects.exists()
