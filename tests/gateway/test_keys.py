"""Gateway keys: shown once, kept as hashes, refused as soon as they may no longer be used."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from deployments.gateway import keys
from deployments.gateway.keys import authorize, create_key, is_usable, key_of
from deployments.models import ApiKey
from omni.errors import OmniError

pytestmark = pytest.mark.django_db


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


def forget_keys() -> None:
    """The next request asks the database again."""
    for remembered in (keys._seen, keys._right, keys._wrong):
        remembered.clear()


@pytest.mark.django_db(transaction=True)
async def test_a_decision_is_remembered_shortly_and_never_longer() -> None:
    from asgiref.sync import sync_to_async

    forget_keys()
    headers = [(b"x-api-key", (await sync_to_async(create_key)("notebook")).encode())]
    await authorize(headers)
    await ApiKey.objects.aupdate(revoked=True)
    await authorize(headers)  # remembered for a second
    forget_keys()
    with pytest.raises(OmniError, match="revoked"):
        await authorize(headers)
