"""Which addresses a server without authentication may be offered at or reached at."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from omni.errors import OmniError

LOOPBACK = "127.0.0.1"
# RFC 1918. Link-local addresses change, and carriers share 100.64/10 among strangers.
PRIVATE = tuple(
    map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
)


def is_loopback(address: str) -> bool:
    return address.startswith("127.")


def plain_ip_address(url: str) -> tuple[str, int] | None:
    """The IP address and port of a server that is asked without TLS; None where the URL has a name
    or wants TLS."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return None
    return (str(address), parts.port or 80) if parts.scheme == "http" else None


def is_private(text: str) -> bool:
    """Whether it is one IPv4 address of a loopback or private network; ggml-rpc-server speaks IPv4
    alone."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in PRIVATE)


def private_hint() -> str:
    networks = ", ".join(map(str, PRIVATE))
    return f"{LOOPBACK}, or one IPv4 address of a private network ({networks})"


def parse_endpoint(text: str) -> tuple[str, int]:
    """Address and port of `address:port`. Raises OmniError (bad_endpoint)."""
    address, _, port = text.strip().rpartition(":")
    if not re.fullmatch(r"[1-9]\d{0,4}", port, re.ASCII) or int(port) > 65535:
        raise OmniError(
            "bad_endpoint",
            f"{text!r} is not address:port.",
            "Write it as 10.0.0.2:18999.",
        )
    if not is_private(address):
        said = (
            f"{address!r} is no address that is taken: what goes there is neither encrypted nor"
            " authenticated."
        )
        raise OmniError("bad_endpoint", said, f"Use {private_hint()}.")
    return address, int(port)
