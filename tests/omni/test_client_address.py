"""From where somebody comes, and whom a lock therefore locks out."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings

from omni.client_address import nearest_stranger
from omni.env import EnvError, envnetworks

LOOPBACK = ip_network("127.0.0.0/8")
LAN = ip_network("10.0.0.0/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("192.0.2.7", "", (), "192.0.2.7"),
        # Without a trusted proxy nobody can say who they are.
        ("192.0.2.7", "198.51.100.1", (), "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", (LOOPBACK,), "192.0.2.7"),
        ("127.0.0.1", "198.51.100.1", (LOOPBACK,), "198.51.100.1"),
        # What stands before the nearest stranger may be made up by that stranger.
        ("127.0.0.1", "203.0.113.9, 198.51.100.1", (LOOPBACK,), "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1, 10.0.0.2", (LOOPBACK, LAN), "198.51.100.1"),
        ("127.0.0.1", "10.0.0.2", (LOOPBACK, LAN), "10.0.0.2"),
        ("127.0.0.1", "nonsense", (LOOPBACK,), "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, nonsense", (LOOPBACK,), "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", (LOOPBACK,), "2001:db8::1"),
        ("", "198.51.100.1", (LOOPBACK,), ""),
    ],
)
def test_the_address_is_the_nearest_that_is_no_trusted_proxy(
    peer: str, forwarded: str, trusted: tuple[object, ...], address: str
) -> None:
    assert nearest_stranger(peer, forwarded, trusted) == address  # type: ignore[arg-type]


def test_networks_are_read_and_nonsense_is_refused_by_name() -> None:
    given = {"NETS": "127.0.0.1, 10.0.0.0/8,::1"}
    assert [str(net) for net in envnetworks("NETS", environ=given)] == [
        "127.0.0.1/32",
        "10.0.0.0/8",
        "::1/128",
    ]
    with pytest.raises(EnvError, match="NETS has 'proxy'"):
        envnetworks("NETS", environ={"NETS": "proxy"})


def log_in(address: str, password: str) -> int:
    headers = {"x-forwarded-for": address}
    return (
        Client()
        .post("/login/", {"username": "vera", "password": password}, headers=headers)
        .status_code
    )


@pytest.mark.django_db
@override_settings(OMNI_TRUSTED_PROXIES=(LOOPBACK,))
def test_who_guesses_behind_the_same_proxy_locks_nobody_else_out(
    viewer_user: User,
) -> None:
    from tests.conftest import PASSWORD

    for _ in range(settings.AXES_FAILURE_LIMIT):
        last = log_in("198.51.100.66", "wrong")
    assert last == 429 and log_in("198.51.100.66", PASSWORD) == 429
    assert log_in("192.0.2.1", PASSWORD) == 302


@pytest.mark.django_db
def test_without_a_trusted_proxy_a_header_gets_nobody_round_a_lock(
    viewer_user: User,
) -> None:
    for number in range(settings.AXES_FAILURE_LIMIT):
        last = log_in(f"198.51.100.{number}", "wrong")
    assert last == 429
