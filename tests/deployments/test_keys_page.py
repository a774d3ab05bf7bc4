"""The page of API keys: whose are shown, made, changed, revoked and deleted, and what it says of
them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import timezone

from deployments.gateway.key_rows import read_keys
from deployments.gateway.keys import is_usable
from deployments.gateway.last_use import write_use
from deployments.gateway.limit_counts import minute_key, running_key
from deployments.gateway.limits import Limits
from deployments.models import ApiKey, Deployment, Route
from deployments.services.keys import (
    MOST_KEYS,
    KeyTerms,
    key_change,
    key_delete,
    key_make,
    key_revoke,
    uses_now,
)
from omni.errors import OmniError
from omni.events import STATE_GROUP
from tests.helpers import squeezed, wait_until

pytestmark = pytest.mark.django_db

TERMS = KeyTerms("notebook")


def own(user: User, name: str = "notebook", **fields: Any) -> ApiKey:
    key, _ = ApiKey.objects.create_key(name=name, owner=user, **fields)
    return key


def shown(client: Client, address: str = "/keys/") -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return squeezed(answer.content.decode())


# --- pages ----------------------------------------------------------------------------------------
def test_with_no_key_the_page_says_what_one_is_for(operator: Client) -> None:
    page = shown(operator)
    assert "No API keys yet" in page and page.count('href="/keys/new/"') == 1


@override_settings(OMNI_GATEWAY_PORT=8001)
def test_the_page_says_where_programs_ask_and_leads_to_their_settings(
    operator: Client,
) -> None:
    for address, method in (("/keys/", operator.get), ("/keys/new/", operator.post)):
        answer = method(
            address, {"name": "editor"}, HTTP_HOST="testserver:8000", SERVER_PORT="8000"
        )
        page = answer.content.decode()
        assert "http://testserver:8001/v1</span>" in page
        assert page.count('href="/connect/"') > 1


def test_who_may_not_chat_is_told_whom_to_ask(viewer: Client) -> None:
    page = shown(viewer)
    assert "Ask an administrator" in page and "/keys/new/" not in page


def test_everybody_sees_own_keys_and_administrators_all(
    operator: Client, operator_user: User, admin: Client, admin_user: User
) -> None:
    own(operator_user, "of the operator")
    own(admin_user, "of the admin")
    ApiKey.objects.create_key(name="of the command line")
    page = shown(operator)
    assert "of the operator" in page and "· oscar" not in page
    assert "of the admin" not in page and "of the command line" not in page
    page = shown(admin)
    assert "· oscar" in page and "· command line" in page
    assert "of the operator" in page and "of the admin" in page


@pytest.mark.parametrize("page", ["", "revoke/", "delete/"])
def test_a_key_of_somebody_else_is_not_there(
    operator: Client, admin_user: User, page: str
) -> None:
    key = own(admin_user)
    assert operator.post(f"/keys/{key.prefix}/{page}").status_code == 404
    assert not ApiKey.objects.get().revoked


def test_a_new_key_is_shown_once_and_works(
    operator: Client, operator_user: User, deployment: Deployment
) -> None:
    Route.objects.create(name="public", deployment=deployment)
    sent = {
        "name": " editor ",
        "last_day": "2999-12-31",
        "models": ["small", "public"],
        "purposes": ["coding"],
        "requests_per_minute": "60",
        "concurrent_requests": "4",
    }
    answer = operator.post("/keys/new/", sent)
    assert answer["Cache-Control"] == "no-store"
    found = re.search(r'id="new-key"[^>]*>([^<]+)<', answer.content.decode())
    assert found and is_usable(found[1])
    stored = read_keys()[found[1].partition(".")[0]]
    assert (stored.name, stored.owner) == ("editor", operator_user.username)
    assert stored.scope.names == {"small", "public"}
    assert stored.scope.purposes == {"coding"}
    assert stored.limits == Limits(60, 0, 4)
    assert stored.expires_at == datetime(2999, 12, 31, 23, 59, 59, 999999, UTC)
    page = shown(operator)
    assert found[1] not in page and "editor" in page and "all for coding" in page


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 51}, "at most 50 characters"),
        ({"name": "a", "last_day": "2020-01-01"}, "This day is over."),
        ({"name": "a", "last_day": "soon"}, "Enter a valid date."),
        ({"name": "a", "models": ["nothing"]}, "not one of the available choices"),
        ({"name": "a", "requests_per_minute": "-1"}, "greater than or equal to 0"),
        ({"name": "a", "tokens_per_minute": "many"}, "Enter a whole number."),
    ],
)
def test_what_cannot_be_kept_is_said_at_its_field(
    operator: Client, sent: dict[str, Any], says: str
) -> None:
    page = operator.post("/keys/new/", sent).content.decode()
    assert says in page and not ApiKey.objects.exists()


def test_a_key_is_changed_and_keeps_what_is_gone_until_it_is_taken_away(
    operator: Client, operator_user: User, deployment: Deployment
) -> None:
    at = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)
    key = own(
        operator_user,
        expiry_date=at,
        allowed_names=["gone", "small"],
        allowed_purposes=["law"],
    )
    page = shown(operator, f"/keys/{key.prefix}/")
    assert "gone (not there now)" in page and "law (not there now)" in page
    assert page.count("checked") == 3 and 'value="2999-01-02"' in page
    sent = {"name": "another", "last_day": "2999-01-02", "models": ["gone"]}
    answer = operator.post(f"/keys/{key.prefix}/", sent, follow=True)
    assert "The key another is changed." in answer.content.decode()
    key.refresh_from_db()
    assert (key.name, key.expiry_date, key.allowed_names) == ("another", at, ["gone"])
    assert key.allowed_purposes == []
    operator.post(f"/keys/{key.prefix}/", {"name": "another"})
    key.refresh_from_db()
    assert key.expiry_date is None and key.allowed_names == []


def test_a_key_is_revoked_and_then_deleted(
    operator: Client, operator_user: User
) -> None:
    key = own(operator_user)
    assert "Revoke the key notebook" in shown(operator)
    operator.post(f"/keys/{key.prefix}/revoke/")
    page = shown(operator)
    assert "revoked" in page and "Delete the key notebook" in page
    assert "Change the key" not in page
    operator.post(f"/keys/{key.prefix}/delete/")
    assert not ApiKey.objects.exists()


def test_keys_that_can_be_used_come_first_and_dates_are_said(
    operator: Client, operator_user: User
) -> None:
    own(operator_user, "living", expiry_date=timezone.now() + timedelta(days=3))
    own(operator_user, "bygone", expiry_date=timezone.now() - timedelta(days=3))
    own(operator_user, "revoked-one", revoked=True)
    ApiKey.objects.filter(name="living").update(last_used_at=timezone.now())
    page = shown(operator)
    assert page.index("living") < page.index("revoked-one") < page.index("bygone")
    assert page.count(">expired<") == 1 and page.count("never") == 2


def test_what_is_used_of_the_limits_is_shown(
    operator: Client, operator_user: User
) -> None:
    key = own(operator_user, requests_per_minute=1000, concurrent_requests=2)
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute is nearly over")
    now_s = time.time()
    with redis.Redis.from_url(settings.CHANNEL_REDIS_URL) as client:
        client.hset(minute_key(key.prefix, now_s), "requests", 12)
        client.zadd(running_key(key.prefix), {"a": now_s + 30, "killed": now_s - 1})
    use = uses_now([key])[key.prefix]
    assert (use.requests, use.tokens, use.running) == (12, 0, 1)
    page = re.sub("<[^>]+>", " ", shown(operator))
    assert "12 of 1,000" in re.sub(r"\s+", " ", page) and "1 of 2" in re.sub(
        r"\s+", " ", page
    )


def test_without_the_broker_only_the_limits_are_shown(
    operator: Client, operator_user: User, settings: Any
) -> None:
    settings.CHANNEL_REDIS_URL = "unix:///nowhere/valkey.sock"
    own(operator_user, requests_per_minute=1000)
    page = shown(operator)
    assert "1,000" in page and "of 1,000" not in page


# --- services -------------------------------------------------------------------------------------
def test_an_operator_changes_no_key_of_somebody_else(
    operator_user: User, admin_user: User
) -> None:
    key = own(admin_user)
    for call in (
        lambda: key_make(terms=TERMS, owner=admin_user, user=operator_user),
        lambda: key_change(key=key, terms=TERMS, user=operator_user),
        lambda: key_revoke(key=key, user=operator_user),
        lambda: key_delete(key=key, user=operator_user),
    ):
        with pytest.raises(OmniError) as refused:
            call()
        assert refused.value.code == "forbidden"


def test_an_administrator_changes_every_key(
    operator_user: User, admin_user: User
) -> None:
    key = own(operator_user)
    key_change(key=key, terms=KeyTerms("renamed"), user=admin_user)
    key_revoke(key=key, user=admin_user)
    key.refresh_from_db()
    assert (key.name, key.revoked, key.owner) == ("renamed", True, operator_user)
    with pytest.raises(OmniError, match="was revoked"):
        key_change(key=key, terms=TERMS, user=admin_user)
    key_delete(key=key, user=admin_user)


def test_a_key_that_can_be_used_is_not_deleted(operator_user: User) -> None:
    key = own(operator_user)
    with pytest.raises(OmniError, match="Revoke it first"):
        key_delete(key=key, user=operator_user)


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        (KeyTerms("  "), "bad_key_name"),
        (KeyTerms("x" * 51), "bad_key_name"),
        (KeyTerms("a", allowed_names=("",)), "bad_key_scope"),
        (KeyTerms("a", allowed_purposes=("x" * 201,)), "bad_key_scope"),
        (KeyTerms("a", allowed_names=("b",) * 101), "bad_key_scope"),
        (KeyTerms("a", requests_per_minute=-1), "bad_key_limit"),
        (KeyTerms("a", tokens_per_minute=10**10), "bad_key_limit"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(terms: KeyTerms, code: str) -> None:
    with pytest.raises(OmniError) as refused:
        key_make(terms=terms)
    assert refused.value.code == code and not ApiKey.objects.exists()


def test_nobody_has_more_keys_than_a_gateway_holds_well(operator_user: User) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(id=f"{n}", prefix=f"{n}", hashed_key="x", name="a", owner=operator_user)
        for n in range(MOST_KEYS)
    )
    with pytest.raises(OmniError, match="Revoke one"):
        key_make(terms=TERMS, owner=operator_user, user=operator_user)
    ApiKey.objects.filter(prefix="0").update(revoked=True)
    key_make(terms=TERMS, owner=operator_user, user=operator_user)


@pytest.mark.django_db(transaction=True)
async def test_gateways_and_pages_hear_of_every_change() -> None:
    from asgiref.sync import sync_to_async

    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(STATE_GROUP, channel)
    key, _ = await sync_to_async(key_make)(terms=TERMS)
    await sync_to_async(key_change)(key=key, terms=KeyTerms("b"))
    await sync_to_async(key_revoke)(key=key)
    heard = [await layer.receive(channel) for _ in range(3)]
    assert heard == [{"type": "keys.changed"}] * 3


# --- what the gateway reads and writes ------------------------------------------------------------
@pytest.mark.parametrize("written", [{"a": 1}, "small", [1], 7])
def test_a_scope_that_is_written_wrongly_allows_nothing(written: Any) -> None:
    key, _ = key_make(terms=TERMS)
    ApiKey.objects.update(allowed_names=written)
    scope = read_keys()[key.prefix].scope
    assert not scope.is_open and not scope.allows("small", ["coding"])


def test_the_last_use_is_written_once_in_a_while() -> None:
    key, _ = key_make(terms=TERMS)
    write_use(key.prefix)
    key.refresh_from_db()
    first = key.last_used_at
    assert first
    write_use(key.prefix)
    key.refresh_from_db()
    assert key.last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=1))
    write_use(key.prefix)
    key.refresh_from_db()
    assert key.last_used_at and key.last_used_at > first
