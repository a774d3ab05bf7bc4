"""Which paths are the gateway's, which methods they take, and which other sites' pages may ask."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.conf import settings

from deployments.gateway.fields import POLICIES

MODELS = "/v1/models"
# Other paths of llama-server's: programs that ask for them read JSON, and get an error in JSON.
OF_ENGINES = frozenset(
    {
        "/apply-template",
        "/chat/completions",
        "/completion",
        "/completions",
        "/detokenize",
        "/embedding",
        "/embeddings",
        "/infill",
        "/lora-adapters",
        "/props",
        "/rerank",
        "/reranking",
        "/slots",
        "/v1",
    }
)
_SLASHES = re.compile("/{2,}")
_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")
KNOWN_HEADERS = "authorization, content-type, x-api-key"
EXPOSED = (
    "x-omni-deployment, x-omni-route, x-omni-decision, x-omni-handover, x-omni-dropped-fields,"
    " retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests,"
    " x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens,"
    " x-ratelimit-reset-tokens"
)


def is_gateway_path(path: str) -> bool:
    """Also for //v1/… and paths of engines that the gateway does not have: their errors are
    JSON."""
    plain = _SLASHES.sub("/", path)
    return plain in POLICIES or plain in OF_ENGINES or plain.startswith("/v1/")


def allowed_methods(path: str) -> tuple[str, ...]:
    """What a path takes; empty where there is nothing."""
    if path in POLICIES:
        return ("POST", "OPTIONS")
    if path == MODELS or path.startswith(f"{MODELS}/"):
        return ("GET", "HEAD", "OPTIONS")
    return ()


def cors_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """For a page of one of the sites in OMNI_CORS_ORIGINS; nothing for any other."""
    allowed: list[str] = settings.OMNI_CORS_ORIGINS
    if not allowed:
        return {}
    named = {name: value.decode("latin-1") for name, value in headers}
    origin = named.get(b"origin", "")
    wished = named.get(b"access-control-request-headers", "")
    if origin not in allowed and "*" not in allowed:
        return {"vary": "origin"}
    return {
        "vary": "origin",
        "access-control-allow-origin": origin or "*",
        # Client libraries send headers of their own; what is not understood is not looked at.
        "access-control-allow-headers": wished
        if _NAMES.fullmatch(wished)
        else KNOWN_HEADERS,
        "access-control-expose-headers": EXPOSED,
        "access-control-max-age": "600",
    }
