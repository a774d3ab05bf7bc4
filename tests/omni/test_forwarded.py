"""What proxies say of a request is believed from trusted addresses only."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from omni.forwarded import UNTRUSTED, as_asked

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1"))
PROXY, STRANGER = "10.0.0.7", "192.0.2.1"
OWN_HOST = "127.0.0.1:8000"


def asked(client: str, kind: str = "http", **headers: str) -> dict[str, Any]:
    """The scope as the panel takes it; headers by their names with _ for -."""
    sent = [(b"host", OWN_HOST.encode())]
    for name, value in headers.items():
        sent.append((name.replace("_", "-").encode(), value.encode()))
    scope = {
        "type": kind,
        "path": "/",
        "scheme": "http" if kind == "http" else "ws",
        "client": [client, 4711],
        "headers": sent,
    }
    return as_asked(scope, TRUSTED, "")


def host_of(scope: dict[str, Any]) -> list[str]:
    return [value.decode() for name, value in scope["headers"] if name == b"host"]


@pytest.mark.parametrize(
    ("client", "kind", "proto", "scheme"),
    [
        (PROXY, "http", "https", "https"),
        (PROXY, "http", "HTTPS", "https"),
        (PROXY, "http", "http", "http"),
        (PROXY, "http", "gopher", "http"),
        (PROXY, "http", "https,http", "http"),
        (PROXY, "http", "http, https", "https"),
        (PROXY, "websocket", "https", "wss"),
        (PROXY, "websocket", "http", "ws"),
        (STRANGER, "http", "https", "http"),
        (STRANGER, "websocket", "https", "ws"),
        ("", "http", "https", "http"),
        ("::1", "http", "https", "https"),
    ],
)
def test_the_scheme_is_that_of_the_nearest_trusted_proxy(
    client: str, kind: str, proto: str, scheme: str
) -> None:
    assert asked(client, kind, x_forwarded_proto=proto)["scheme"] == scheme


@pytest.mark.parametrize(
    ("client", "said", "host"),
    [
        (PROXY, "omni.lan", "omni.lan"),
        (PROXY, "evil.example, omni.lan:8443", "omni.lan:8443"),
        (PROXY, "", OWN_HOST),
        (STRANGER, "omni.lan", OWN_HOST),
    ],
)
def test_the_host_is_that_of_the_nearest_trusted_proxy(
    client: str, said: str, host: str
) -> None:
    assert host_of(asked(client, x_forwarded_host=said)) == [host]


def test_the_headers_themselves_reach_nobody() -> None:
    for client in (PROXY, STRANGER):
        scope = asked(client, x_forwarded_host="omni.lan", x_forwarded_proto="https")
        assert not [name for name, _ in scope["headers"] if b"forwarded" in name]


def test_who_is_not_believed_is_known() -> None:
    assert asked(STRANGER, x_forwarded_proto="https")[UNTRUSTED] == STRANGER
    assert UNTRUSTED not in asked(PROXY, x_forwarded_proto="https")
    assert UNTRUSTED not in asked(STRANGER)
