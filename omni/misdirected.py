"""What to say when a page, a form or a socket comes by an address that the panel does not know:
which setting is missing, as the very line to set, and nothing that the browser does not know."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from django.http.request import split_domain_port

from omni.errors import OmniError

LONGEST = 253
PROXY_PAGE = "docs/proxy.md has settings of proxies that work."


def unknown_host(named: str) -> OmniError:
    """For a request under a name that is not the panel's."""
    name = split_domain_port(named)[0][:LONGEST]
    if not name:
        return OmniError(
            "unknown_host",
            "The request does not say a name of this panel that can be read.",
            f"Is a proxy before the panel? Let it pass the Host header on: {PROXY_PAGE}",
        )
    fix = (
        f"Is it a name of this panel? Then start it with OMNI_ALLOWED_HOSTS={name} (several are"
        " separated by commas)."
    )
    return OmniError(
        "unknown_host", f"This panel does not answer to the name {name}.", fix
    )


WITHOUT_TLS = OmniError(
    "without_tls",
    "The page was opened without TLS, and the panel's cookies are for TLS only: the browser keeps"
    " none of them. Nothing was changed.",
    "Open the panel by https://. Is no proxy with TLS before it? Then start it with"
    " OMNI_BEHIND_TLS=0.",
)


def unknown_origin(
    page: str, *, untrusted_proxy: str = "", behind_tls: bool = False
) -> OmniError:
    """For a form or a socket of a page under another address than the panel was asked by: mostly a
    proxy that does not say, or is not believed, by what address it was asked itself."""
    scheme, host = _address(page)
    origin = (f"{scheme}://{host}" if host else page or "no address")[:LONGEST]
    text = (
        f"The page came from {origin}, which is not the address under which the panel was asked."
        " Nothing was changed."
    )
    lines = [f"OMNI_TRUSTED_ORIGINS={origin}"]
    if untrusted_proxy:
        lines = [f"OMNI_TRUSTED_PROXIES={_shown(untrusted_proxy)}"]
    if scheme == "https" and not behind_tls:
        lines.append("OMNI_BEHIND_TLS=1")
    fix = (
        f"Is a proxy of yours before the panel? Then start the panel with {' and '.join(lines)}."
        f" {PROXY_PAGE}"
    )
    return OmniError("unknown_origin", text, fix)


def _address(page: str) -> tuple[str, str]:
    """Scheme and host, with its port; empty where there is none that can be read."""
    try:
        parts = urlsplit(page)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _shown(proxy: str) -> str:
    """Addresses of other machines are for who reads the panel's log."""
    try:
        is_loopback = ip_address(proxy).is_loopback
    except ValueError:
        is_loopback = False
    if is_loopback:
        return proxy
    return "ADDRESS (the proxy's, which is in the panel's log)"
