"""Asks an external server whether it can be used, and which models it has.

Nothing is followed.
"""

from __future__ import annotations

import ssl
import time

import httpx
from django.conf import settings

from deployments.engines.external import (
    READY_PATHS,
    ServerReport,
    checked_address,
    is_ready,
    no_answer,
    parse_models,
    parse_owner,
)
from omni.errors import OmniError

# For one answer, and for all of one look; a server that is slow to say it lives is no use to
# anybody.
TIMEOUT_S = 3.0
WHOLE_S = 6.0
LARGEST_BYTES = 2 << 20
AGAIN = "It is asked again by itself."


def allowed_address(text: str) -> str:
    """Raises OmniError (bad_address, address_not_allowed)."""
    return checked_address(text, settings.OMNI_EXTERNAL_HOSTS)


def ask(address: str, key: str) -> ServerReport:
    """Never raises: why it cannot be used is part of the answer."""
    try:
        checked = allowed_address(address)
        with httpx.Client(
            trust_env=False, follow_redirects=False, timeout=TIMEOUT_S
        ) as client:
            # Packed, a short body would become one without end.
            plain = {"accept-encoding": "identity"}
            return _asked(
                client,
                checked,
                plain | ({"authorization": f"Bearer {key}"} if key else {}),
            )
    except OmniError as error:
        return ServerReport(error=error)
    except httpx.TimeoutException:
        return ServerReport(
            error=OmniError(
                "server_silent", "It gives no answer in time.", AGAIN, retry=True
            )
        )
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        text = f"It cannot be reached: {_reason(error)}."
        return ServerReport(error=OmniError("server_away", text, AGAIN, retry=True))


def _reason(error: BaseException) -> str:
    """The system's word for it, which httpx keeps among the causes of its own error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).strip().rstrip(".") or type(error).__name__


def _asked(client: httpx.Client, address: str, headers: dict[str, str]) -> ServerReport:
    ends_at = time.monotonic() + WHOLE_S
    body = b""
    for path in READY_PATHS:
        status, body = _get(client, f"{address}{path}", headers, ends_at)
        is_last = path == READY_PATHS[-1]
        if is_ready(path, status) is False or (is_last and status != 200):
            return ServerReport(error=no_answer(path, status))
    return ServerReport(parse_models(body), parse_owner(body))


def _get(
    client: httpx.Client, url: str, headers: dict[str, str], ends_at: float
) -> tuple[int, bytes]:
    """Status and body. Raises OmniError when the body has no end, or comes drop by drop."""
    with client.stream("GET", url, headers=headers) as response:
        body = b""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise OmniError(
                "not_openai_compatible",
                "It packs its answer although it was asked not to.",
            )
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > LARGEST_BYTES:
                raise OmniError(
                    "not_openai_compatible",
                    f"Its answer is larger than {LARGEST_BYTES >> 20} MiB.",
                )
            if time.monotonic() > ends_at:
                raise OmniError(
                    "server_silent",
                    "It gives no whole answer in time.",
                    AGAIN,
                    retry=True,
                )
        return response.status_code, body
