"""Requests to engines of ours and to external servers: what each is sent, and what
is not passed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from django.conf import settings

from deployments.engines.endpoints import USUAL
from deployments.engines.external import NO_SUCH_CALL
from deployments.gateway.table import Serving
from deployments.instances.engine_stream import (
    EngineAnswer,
    EngineRequest,
    engine_post,
)
from omni.errors import OmniError
from omni.home import Home

# By it a panel knows its own request when somebody gave its own address as that of an external
# server.
MARK = "x-omni-from"
PASSED_ON = ("application/json", "text/event-stream")


def as_taken(
    serving: Serving, fields: dict[str, Any], dropped: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The fields without those the server would refuse the request for, and the names of all that
    were left out."""
    unknown = serving.external.left_out if serving.external else frozenset()
    kept = {name: value for name, value in fields.items() if name not in unknown}
    return kept, sorted({*dropped, *(set(fields) - set(kept))})


def request_to(serving: Serving, path: str, fields: Mapping[str, Any]) -> EngineRequest:
    """Under the model's name there, with the server's own key; engines of ours get their own."""
    assert serving.address
    named = {**fields, "model": serving.alias}
    if serving.external is None:
        return engine_post(serving.address, path, named)
    key = settings.OMNI_HOME.kept_secret(serving.external.key_name)
    mark = {MARK: own_mark()}
    return engine_post(serving.address, path, named, key=key, headers=mark)


def own_mark() -> str:
    """Of this panel and no other; it tells nothing of the key it is made from."""
    return _mark_of(settings.OMNI_HOME)


@cache
def _mark_of(home: Home) -> str:
    """Read once: every request asks for it."""
    return sha256(f"mark {home.secret('mark')}".encode()).hexdigest()[:32]


def refuse_own(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises OmniError (request_loop) for a request that this panel sent itself."""
    if (MARK.encode(), own_mark().encode()) in {
        (name, value) for name, value in headers
    }:
        text = (
            "This panel was given its own address as that of an external server: the request would"
            " go round for ever."
        )
        raise OmniError(
            "request_loop", text, "Give the server's own address, or remove it."
        )


def refuse(serving: Serving, answer: EngineAnswer) -> None:
    """Raises OmniError (engine_refused) for an answer that is not for the client."""
    status = answer.status
    name = serving.name
    if status in (401, 403):
        if serving.external:
            text = f"The server of deployment {name!r} refused the key it was given, or has none."
            raise OmniError(
                "engine_refused", text, "Give it its key on the Models page."
            )
        text = f"The engine of deployment {name!r} refused its own key."
        raise OmniError("engine_refused", text, "Stop and start the deployment.")
    if serving.external is None:
        return
    if 300 <= status < 400:
        text = (
            f"The server of deployment {name!r} sends requests elsewhere (status {status}), and"
            " Omni follows nobody."
        )
        raise OmniError(
            "engine_refused", text, "Give the address it really answers at."
        )
    if (
        not answer.headers.get("content-type", PASSED_ON[0])
        .lower()
        .startswith(PASSED_ON)
    ):
        text = (
            f"The server of deployment {name!r} answered with status {status} and neither JSON nor"
            " events."
        )
        raise OmniError("engine_refused", text, "It may not have this call.")


def refuse_missing(serving: Serving, path: str, status: int) -> None:
    """Raises OmniError (endpoint_missing) where an external server says that it has no such call;
    of the usual ones it may mean the model."""
    if serving.external and path not in USUAL and status in NO_SUCH_CALL:
        text = (
            f"The server of deployment {serving.name!r} has no {path} (it answered with status"
            f" {status})."
        )
        raise OmniError("endpoint_missing", text, "Name another deployment.")
