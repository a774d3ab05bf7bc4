"""Which pages may open a socket here: those of this very panel, its port and scheme included.

Browsers send cookies to every port of a host, so a page of another port would come with the session
of whoever looks at it. The Origin header is what tells the two apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
Origin = tuple[str, str, int]


def parse_origin(text: str) -> Origin | None:
    """Scheme, host and port of an Origin header; None for `null` and for what is no origin."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None

    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]


def is_own(origin: str, *, scheme: str, host: str) -> bool:
    """Whether the origin is the one that was asked: `host` is the Host header, with its port."""
    own = parse_origin(f"{scheme}://{host}")
    return own is not None and parse_origin(origin) == own


def is_trusted(origin: str, trusted: Iterable[str]) -> bool:
    """Whether a site listed it, as `https://omni.example` or `https://*.example`."""
    found = parse_origin(origin)
    return found is not None and any(_matches(found, pattern) for pattern in trusted)


def _matches(origin: Origin, pattern: str) -> bool:
    is_wild = "://*." in pattern
    wanted = parse_origin(pattern.replace("://*.", "://", 1))
    if wanted is None or (origin[0], origin[2]) != (wanted[0], wanted[2]):
        return False
    if not is_wild:
        return origin[1] == wanted[1]
    return origin[1].endswith(f".{wanted[1]}")


def header(headers: Iterable[tuple[bytes, bytes]], name: str) -> str:
    """The value of the one header of this name; empty when it is not there, or there more than
    once."""
    found = [
        value.decode("latin1").strip()
        for key, value in headers
        if key.lower() == name.encode()
    ]
    if len(found) == 1:
        return found[0]
    return ""


def may_open(
    headers: Collection[tuple[bytes, bytes]],
    *,
    is_tls: bool,
    trusted: Iterable[str],
) -> bool:
    """Whether the page that asks with these headers is the panel's own, or of an origin that its
    site trusts."""
    origin = header(headers, "origin")
    scheme = "https" if is_tls else "http"
    return is_own(origin, scheme=scheme, host=header(headers, "host")) or is_trusted(
        origin, trusted
    )
