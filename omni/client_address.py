"""From where a request comes, when proxies stand before the panel."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest

from omni.forwarded import Network, is_in


def client_address(request: HttpRequest) -> str:
    """The address of whoever asks, as the nearest proxy that is trusted has it."""
    forwarded = str(request.META.get("HTTP_X_FORWARDED_FOR", ""))
    return nearest_stranger(
        str(request.META.get("REMOTE_ADDR", "")),
        forwarded,
        settings.OMNI_TRUSTED_PROXIES,
    )


def nearest_stranger(peer: str, forwarded: str, trusted: Iterable[Network]) -> str:
    """The last address on the way here that is no trusted proxy.

    What stands before it may be made up.
    """
    trusted = tuple(trusted)
    last = peer
    for claimed in [peer, *reversed(forwarded.split(","))]:
        address = claimed.strip()
        if not _is_address(address):
            return last
        last = address
        if not is_in(address, trusted):
            return last
    return last


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
