"""Gateway keys: shown once, kept as hashes, refused as soon as they may no longer be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from deployments.gateway import keys
from deployments.gateway.key_rows import StoredKey
from deployments.gateway.keys import (
    _wrong,
    authorize,
    create_key,
    is_usable,
    key_of,
    prefix_of,
    revoked,
    stored_keys,
)
from deployments.gateway.shapes import status_of
from deployments.gateway.snapshot import Snapshot
from deployments.models import ApiKey
from omni.errors import OmniError
from tests.helpers import PATIENCE_S

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def read_again() -> None:
    """What the test before left, a database that was away too, is no news of this one."""
    stored_keys.changed()


def test_a_new_key_is_usable_and_not_kept_in_clear() -> None:
    key = create_key("notebook")
    row = ApiKey.objects.get()
    assert is_usable(key)
    assert key.partition(".")[2] not in f"{row.id}{row.hashed_key}{row.prefix}"
    assert len(key.partition(".")[2]) >= 32


@pytest.mark.parametrize("name", ["", "  ", "x" * 51])
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(OmniError, match="1 to 50"):
        create_key(name)


@pytest.mark.parametrize("wrong", ["", ".", "x", "x.y", "x" * 300])
def test_what_is_not_a_key_is_refused(wrong: str) -> None:
    create_key("notebook")
    assert not is_usable(wrong)


def test_another_secret_behind_a_known_prefix_is_refused() -> None:
    prefix, _, secret = create_key("notebook").partition(".")
    assert not is_usable(f"{prefix}.{secret[::-1]}")


def test_revoked_and_expired_keys_are_refused() -> None:
    revoked, expired, living = (
        create_key("revoked"),
        create_key("expired"),
        create_key("living"),
    )
    ApiKey.objects.filter(name="revoked").update(revoked=True)
    ApiKey.objects.filter(name="expired").update(
        expiry_date=timezone.now() - timedelta(seconds=1)
    )
    ApiKey.objects.filter(name="living").update(
        expiry_date=timezone.now() + timedelta(hours=1)
    )
    assert [is_usable(key) for key in (revoked, expired, living)] == [
        False,
        False,
        True,
    ]


def test_a_key_can_do_no_more_than_its_owner(
    operator_user: User, viewer_user: User
) -> None:
    of_operator, of_viewer = (
        create_key("o", operator_user),
        create_key("v", viewer_user),
    )
    assert is_usable(of_operator) and not is_usable(of_viewer)
    User.objects.filter(pk=operator_user.pk).update(is_active=False)
    assert not is_usable(of_operator)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer a.b")], "a.b"),
        ([(b"Authorization", b"bearer  a.b ")], "a.b"),
        ([(b"x-api-key", b"a.b")], "a.b"),
        ([(b"authorization", b"Basic YTpi")], ""),
        ([(b"authorization", b"Bearer a.b"), (b"x-api-key", b"c.d")], "a.b"),
        ([], ""),
    ],
)
def test_a_key_is_read_from_either_header(
    headers: list[tuple[bytes, bytes]], key: str
) -> None:
    assert key_of(headers) == key


def with_key(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-api-key", key.encode())]


async def made(name: str = "notebook", **fields: Any) -> str:
    key = await sync_to_async(create_key)(name)
    await ApiKey.objects.filter(prefix=prefix_of(key)).aupdate(**fields)
    return key


@pytest.mark.django_db(transaction=True)
async def test_a_new_key_is_known_at_once() -> None:
    await authorize(with_key(await made("first")))
    key = await authorize(with_key(await made("second")))
    assert (key.name, key.prefix) == ("second", prefix_of(key.secret))
    assert key.secret not in repr(key)


@contextmanager
def database_away() -> Iterator[None]:
    """Keys cannot be read."""
    rename(ApiKey._meta.db_table, "taken_away")
    try:
        yield
    finally:
        rename("taken_away", ApiKey._meta.db_table)


def rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


@asynccontextmanager
async def away() -> AsyncIterator[None]:
    taken = database_away()
    await sync_to_async(taken.__enter__)()
    try:
        yield
    finally:
        await sync_to_async(taken.__exit__)(None, None, None)


@pytest.mark.django_db(transaction=True)
async def test_known_keys_are_taken_while_the_database_is_away(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test may have had it warn less than a minute ago.
    monkeypatch.setattr(stored_keys, "_warned_at_s", float("-inf"))
    headers = with_key(await made())
    await authorize(headers)
    stored_keys.changed()
    async with away():
        for _ in range(100):
            await authorize(headers)
        with pytest.raises(OmniError, match="cannot read its API keys"):
            await authorize(with_key("another.key"))
    warnings = [each for each in caplog.records if "API keys" in each.getMessage()]
    assert len(warnings) == 1


@pytest.mark.django_db(transaction=True)
async def test_without_a_reading_keys_are_not_called_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = with_key(await made())
    monkeypatch.setattr(keys, "stored_keys", Snapshot("API keys", stored_keys._read))
    async with away():
        with pytest.raises(OmniError) as caught:
            await authorize(headers)
    assert (caught.value.code, status_of(caught.value)) == ("database_unavailable", 503)


@pytest.mark.django_db(transaction=True)
async def test_a_revoked_key_is_refused_within_a_second() -> None:
    headers = with_key(await made())
    await authorize(headers)
    await ApiKey.objects.aupdate(revoked=True)
    revoked_at_s = time.monotonic()
    with pytest.raises(OmniError, match="revoked"):
        while time.monotonic() - revoked_at_s < PATIENCE_S:
            await authorize(headers)
            await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change",
    [{"revoked": True}, {"expiry_date": datetime(2020, 1, 1, tzinfo=UTC)}],
    ids=["revoked", "expired"],
)
async def test_requests_on_their_way_hear_that_their_key_is_over(
    change: dict[str, Any],
) -> None:
    key = await authorize(with_key(await made("first")))
    other = await authorize(with_key(await made("other")))
    on_their_way = [asyncio.ensure_future(revoked(key)) for _ in range(20)]
    goes_on = asyncio.ensure_future(revoked(other))
    await ApiKey.objects.filter(prefix=key.prefix).aupdate(**change)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*on_their_way)
    assert not goes_on.done()
    goes_on.cancel()


@pytest.mark.django_db(transaction=True)
async def test_a_request_without_a_key_has_none_to_lose() -> None:
    waiting = asyncio.ensure_future(revoked(None))
    assert not (await asyncio.wait({waiting}, timeout=0.01))[0]
    waiting.cancel()


@pytest.mark.django_db(transaction=True)
async def test_many_wrong_keys_share_few_readings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0

    async def read() -> Mapping[str, StoredKey]:
        nonlocal reads
        reads += 1
        return {}

    monkeypatch.setattr(keys, "stored_keys", Snapshot("API keys", read))
    asked = (authorize(with_key(f"{n}.wrong"), f"10.0.{n % 50}.1") for n in range(500))
    began_s = time.monotonic()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    took_s = time.monotonic() - began_s
    assert all(isinstance(answer, OmniError) for answer in answers)
    assert reads <= 3 + took_s / keys.UNKNOWN_EVERY_S
    _wrong.clear()


@pytest.mark.django_db(transaction=True)
async def test_a_hash_of_an_older_version_is_still_known() -> None:
    secret = await made()
    old = await asyncio.to_thread(make_password, secret, None, "pbkdf2_sha256")
    await ApiKey.objects.aupdate(hashed_key=old)
    stored_keys.changed()
    key = await authorize(with_key(secret))
    assert key.name == "notebook"
    wrong = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    with pytest.raises(OmniError, match="wrong"):
        await authorize(with_key(wrong))


@pytest.mark.django_db(transaction=True)
async def test_wrong_keys_hold_up_the_next_wrong_one_and_no_right_one() -> None:
    _wrong.clear()
    right = with_key(await made())
    await authorize(right, "10.0.0.9")
    for number in range(keys.MOST_WRONG):
        with pytest.raises(OmniError, match="wrong"):
            await authorize(with_key(f"wrong.{number}"), "10.0.0.9")
    with pytest.raises(OmniError) as caught:
        await authorize(with_key("wrong.more"), "10.0.0.9")
    assert caught.value.code == "too_many_wrong_keys"
    await authorize(right, "10.0.0.9")
    _wrong.clear()
