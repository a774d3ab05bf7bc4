"""Connections to engines: one client for each event loop, the panel's key, and what their failures mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from django.conf import settings

from omni.errors import OmniError

MOST_CONNECTIONS = 1000
CONNECT_S, WRITE_S = 5.0, 30.0
# An engine may close a kept-alive connection just when it is used again; a new one is cheap.
LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=0)

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def client() -> httpx.AsyncClient:
    """The client of this event loop; no proxies from the environment, no redirects."""
    loop = asyncio.get_running_loop()
    if (found := _clients.get(loop)) is None:
        found = httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=LIMITS)
        _clients[loop] = found
    return found


def engine_key() -> str:
    return settings.OMNI_HOME.secret("engine")


def engine_request(
    address: str, path: str, fields: Mapping[str, Any], silence_s: float, *, key: str | None = None
) -> httpx.Request:
    """With the panel's key, or another one, or with none if that is empty; `silence_s`: how long nothing may come."""
    key = engine_key() if key is None else key
    headers = {
        **({"authorization": f"Bearer {key}"} if key else {}),
        "content-type": "application/json",
        "accept-encoding": "identity",  # what comes is passed on as it is
    }
    content = json.dumps(fields, ensure_ascii=False).encode()
    timeout = httpx.Timeout(connect=CONNECT_S, read=silence_s, write=WRITE_S, pool=CONNECT_S)
    return client().build_request("POST", f"{address}{path}", content=content, headers=headers, timeout=timeout)


@contextmanager
def engine_errors(deployment: str) -> Iterator[None]:
    """Turns a failed connection to this deployment's engine into an OmniError."""
    who = f"the engine of deployment {deployment!r}"
    again = "Try again; the Deployments page shows its state."
    try:
        yield
    except httpx.PoolTimeout as error:
        text = f"More than {MOST_CONNECTIONS} requests are open."
        raise OmniError("gateway_busy", text, "Try again later.", retry=True) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise OmniError("engine_unreachable", f"Cannot connect to {who}.", again, retry=True) from error
    except httpx.TimeoutException as error:
        raise OmniError("engine_silent", f"No answer in time from {who}.", again, retry=True) from error
    except httpx.HTTPError as error:
        raise OmniError("engine_died", f"The connection to {who} broke off.", again, retry=True) from error
