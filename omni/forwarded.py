"""What a browser asked for, when proxies stand before the panel.

A proxy that ends TLS, or gives the panel a path below its own address, changes what arrives here.
This puts it back into the scope of the request, once, before anybody looks: scheme and host as the
nearest trusted proxy says them, and the path below the panel's prefix, whether the proxy has taken
the prefix off or not. What anybody else says in those headers is taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network
Headers = Iterable[tuple[bytes, bytes]]

PROTO, HOST = b"x-forwarded-proto", b"x-forwarded-host"
# With TLS or without, for pages and for sockets.
SCHEMES = {
    "http": {"http": "http", "https": "https"},
    "websocket": {"http": "ws", "https": "wss"},
}
# In the scope of a request whose sender says that it is a proxy, and is none that is trusted: its
# address.
UNTRUSTED = "omni_untrusted_proxy"


def below(path: str, prefix: str) -> str:
    """The panel's own path, such as /chat/, for /omni/chat/ and for /chat/ as well."""
    if path == prefix:
        return "/"
    if path.startswith(f"{prefix}/"):
        return path[len(prefix) :]
    return path


def as_asked(
    scope: dict[str, Any], trusted: Collection[Network], prefix: str
) -> dict[str, Any]:
    """The scope as the browser meant it; its path is below the prefix."""
    peer = str((scope.get("client") or [""])[0])
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower() not in (PROTO, HOST)
    ]
    asked = {**scope, "path": below(scope["path"], prefix), "headers": headers}
    proto = _nearest(scope["headers"], PROTO).lower()
    host = _nearest(scope["headers"], HOST)
    if not proto and not host:
        return asked
    if not is_in(peer, trusted):
        return {**asked, UNTRUSTED: peer}
    if scheme := SCHEMES[scope["type"]].get(proto):
        asked["scheme"] = scheme
    if host:
        others = [(name, value) for name, value in headers if name.lower() != b"host"]
        asked["headers"] = [*others, (b"host", host.encode("latin-1"))]
    return asked


def _nearest(headers: Headers, name: bytes) -> str:
    """What the last proxy on the way has added: what stands before it may be made up."""
    said = [value.decode("latin-1") for key, value in headers if key.lower() == name]
    return ",".join(said).rpartition(",")[2].strip()


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether it is an address, and in one of the networks."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(
        found.version == network.version and found in network for network in networks
    )
