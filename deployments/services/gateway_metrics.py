"""/metrics on the gateway's own port: the same answer as on the panel's, for who comes with a token
or a key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from django.conf import settings

from omni.database import DatabasePool
from omni.forwarded import below

PATH = "/metrics"
Application = Callable[[dict[str, Any], Any, Any], Coroutine[Any, Any, None]]
_in_database = DatabasePool("metrics", 1)


def with_metrics(application: Application) -> Application:
    """The gateway with /metrics beside it; its own requests cost one comparison more."""

    def answer(
        scope: dict[str, Any], receive: Any, send: Any
    ) -> Coroutine[Any, Any, None]:
        if (
            scope["type"] == "http"
            and below(scope["path"], settings.OMNI_PATH_PREFIX) == PATH
        ):
            return _metrics(scope, send)
        return application(scope, receive, send)

    return answer


async def _metrics(scope: dict[str, Any], send: Any) -> None:
    named = dict(scope["headers"])
    authorization = named.get(b"authorization", b"").decode("latin-1")
    status, body, content_type = await _in_database(_answer)(authorization)
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="metrics"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else body})


def _answer(authorization: str) -> tuple[int, bytes, str]:
    # Loaded by the first scrape: a gateway that nobody scrapes has no use for it.
    from deployments.services.scrape import scrape_answer

    found = scrape_answer(authorization)
    return found.status, found.body, found.content_type
