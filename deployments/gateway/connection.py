"""What the failures of a connection to an engine mean to whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from deployments.instances.engine_client import MOST_CONNECTIONS
from deployments.instances.engine_stream import TooManyOpen
from deployments.instances.listener import NotTheEngine
from omni.errors import OmniError

NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    NotTheEngine,
)


@contextmanager
def engine_errors(deployment: str) -> Iterator[None]:
    """Turns a failed connection to this deployment's engine into an OmniError."""
    who = f"the engine of deployment {deployment!r}"
    again = "Try again; the Deployments page shows its state."
    try:
        yield
    except TooManyOpen as error:
        text = f"More than {MOST_CONNECTIONS} requests are open."
        raise OmniError("gateway_busy", text, "Try again later.", retry=True) from error
    except NOT_CONNECTED as error:
        raise OmniError(
            "engine_unreachable", f"Cannot connect to {who}.", again, retry=True
        ) from error
    except aiohttp.ServerTimeoutError as error:
        raise OmniError(
            "engine_silent", f"No answer in time from {who}.", again, retry=True
        ) from error
    except aiohttp.ClientError as error:
        raise OmniError(
            "engine_died", f"The connection to {who} broke off.", again, retry=True
        ) from error
