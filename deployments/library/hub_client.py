"""The HTTP client with which the hub is asked: it goes nowhere else than the hub would have to, and
reads no end.

A hub is a stranger. What it redirects to is looked up and has to be public, or the hub itself;
every answer has a limit in bytes and in time.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled

from omni.errors import OmniError
from omni.units import MIB, bytes_text

MAX_REDIRECTS = 5
# What a repository may say of itself; the largest real lists of files have a few MiB.
MOST_INFO_BYTES = 32 * MIB
# A file that comes slower than this is asked for again: somebody holds the line.
SLOWEST_BPS = 1024
SLOW_FOR_S = 60.0
# In a request's extensions: the most bytes that its answer may have.
MOST_BYTES = "most_bytes"
_PORTS = {"http": 80, "https": 443}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")

Address = tuple[str, int]


def endpoint() -> str:
    """HF_ENDPOINT names a mirror; read at every call, the client itself reads it only when it is
    imported."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def token() -> str | None:
    """HF_TOKEN, which private and gated repositories ask for."""
    return (os.environ.get("HF_TOKEN") or "").strip() or None


def has_token() -> bool:
    return token() is not None


def page_url(repo: str) -> str:
    return f"{endpoint()}/{repo}"


def _client() -> httpx2.Client:
    hooks: dict[str, list[Callable[..., None]]] = {
        "request": [_check_request],
        "response": [_limit_response],
    }
    return httpx2.Client(
        event_hooks=hooks,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=10.0,
    )


# --- where a request may go -----------------------------------------------------------------------
def _check_request(request: httpx2.Request) -> None:
    """Called before each request, those that follow a redirect too.

    Raises OmniError (hub_redirect).
    """
    if constants.is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set.")
    # What is compressed has no size that could be trusted.
    request.headers["Accept-Encoding"] = "identity"
    check_target(str(request.url))


def check_target(url: str) -> None:
    """Raises OmniError (hub_redirect) for an address to which only an attacker would send a
    download."""
    hub = urlsplit(endpoint())
    target = urlsplit(url)
    if (target.scheme, _place(target)) == (hub.scheme, _place(hub)):
        return
    if target.scheme != "https" and hub.scheme == "https":
        raise _refused(url, "which is not encrypted")
    host, port = _place(target)
    found = _addresses(host, port)
    if all(is_public(address) for address, _ in found):
        return
    # A mirror in the own network may call itself by another name.
    if not found <= _addresses(*_place(hub)):
        raise _refused(url, "which is inside a private network")


def _place(parts: SplitResult) -> Address:
    return (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def _addresses(host: str, port: int) -> set[Address]:
    """Where a name leads; nothing where that is not known here because a proxy looks it up."""
    try:
        return {(str(ipaddress.ip_address(host)), port)}
    except ValueError:
        pass
    if host != "localhost" and _has_proxy():
        return set()
    try:
        return {
            (str(info[4][0]), port)
            for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        }
    except (OSError, UnicodeError):
        # The connection will fail in the same way and say so.
        return set()


def _has_proxy() -> bool:
    return any(
        os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES
    )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the whole internet's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = (
        getattr(found, "ipv4_mapped", None)
        or getattr(found, "sixtofour", None)
        or found
    )
    return bool(inner.is_global and found.is_global and not inner.is_multicast)


def _refused(url: str, why: str) -> OmniError:
    host = urlsplit(url).netloc.rpartition("@")[2][:80]
    text = f"The hub sends on to {host}, {why}."
    return OmniError(
        "hub_redirect", text, "Set HF_ENDPOINT to a hub that serves its files itself."
    )


# --- how much may come ----------------------------------------------------------------------------
def _limit_response(response: httpx2.Response) -> None:
    """Raises OmniError (hub_redirect, hub_incomplete)."""
    _check_peer(response)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        text = f"{endpoint()} compresses its answers although it was asked not to."
        raise OmniError(
            "hub_incomplete", text, "Use another hub or mirror (HF_ENDPOINT)."
        )
    most = int(response.request.extensions.get(MOST_BYTES, MOST_INFO_BYTES))
    # The client is a synchronous one.
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = Limited(response.stream, most)


def _check_peer(response: httpx2.Response) -> None:
    """Whom the connection really reached: a name may lead elsewhere when it is looked up again."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream else None
    if not peer or _has_proxy() or is_public(str(peer[0])):
        return
    hub = urlsplit(endpoint())
    if (str(peer[0]), int(peer[1])) not in _addresses(*_place(hub)):
        raise _refused(str(response.request.url), "which is inside a private network")


@dataclass
class Limited(httpx2.SyncByteStream):
    """The bytes of an answer, up to a limit, and not slower than a person would wait for."""

    inner: httpx2.SyncByteStream
    most_bytes: int

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        window = 0
        began = time.monotonic()
        for piece in self.inner:
            had = had + len(piece)
            window = window + len(piece)
            if had > self.most_bytes:
                text = (
                    f"The hub sends more than the {bytes_text(self.most_bytes)} that this answer"
                    " may have."
                )
                raise OmniError(
                    "hub_changed",
                    text,
                    "Look the repository up again, or use another hub.",
                )
            if (now := time.monotonic()) - began >= SLOW_FOR_S:
                if window < SLOWEST_BPS * SLOW_FOR_S:
                    text = "The hub sends next to nothing."
                    raise OmniError(
                        "hub_unreachable", text, "Try again later.", retry=True
                    )
                window = 0
                began = now
            yield piece

    def close(self) -> None:
        self.inner.close()


# Whoever imports this has huggingface_hub ask through this client too.
set_client_factory(_client)
