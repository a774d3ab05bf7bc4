"""Requests that nobody should send, thousands of them: the gateway never fails, and always says
what is wrong in the shape of the API that was called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deployments.gateway import asgi
from deployments.gateway.api import Api
from deployments.gateway.asgi import LARGEST_BODY_BYTES, gateway
from deployments.gateway.directory import forget_table
from deployments.gateway.endpoints import ALIASES, ENDPOINTS, api_of, canonical
from deployments.gateway.keys import create_key
from tests.gateway.engine import make_deployment
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.test_endpoints import LEAST
from tests.helpers import cases

pytestmark = pytest.mark.django_db(transaction=True)
MODELS = [*["auto"] * 6, "smol", "vectors", "scores", "nobody", "", 5, None]
# Paths that are not there, beside those that are.
STRANGE = [
    "/v1/models",
    "/v1/models/smol",
    "/v1/nothing",
    "/v1/messages/x",
    "//v1",
    "/v1/",
]
DEEP = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"input":' + b"[" * 5000 + b"]" * 5000 + b"}",
]
BYTES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"NaN",
    b'{"a": 1e999}',
    b"\xff\xfe{}",
    b"\0",
]

texts = st.text(max_size=8) | st.sampled_from(
    ["http://127.0.0.1/", "data:,", "\ud800", "\0", "x" * 2000, "text", "user", "tool"]
)
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([-1, 0, 1 << 31, 1 << 64, 10**400, -(10**400)])
)
# The words of messages, items and blocks, so that a value comes as far as it can.
words = st.sampled_from(
    [
        *("role", "type", "content", "text", "image_url", "url", "source", "data"),
        *("name", "arguments", "call_id", "output", "input", "tool_calls", "function"),
        *("parameters", "input_schema", "properties", "$ref", "pattern", "schema"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def one_in(times: int) -> st.SearchStrategy[bool]:
    return st.sampled_from([False] * (times - 1) + [True])


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """Bytes that are no JSON, JSON that is no request, or a request with something wrong in it."""
    kind = draw(st.sampled_from(["bytes", "json", *["fields"] * 8]))
    if kind == "bytes":
        return draw(st.sampled_from([*BYTES, *DEEP]) | st.binary(max_size=40))
    if kind == "json":
        return json.dumps(draw(values)).encode()
    endpoint = ENDPOINTS.get(canonical(path))
    known = [*endpoint.policy] if endpoint else ["messages"]
    names = st.sampled_from([*known, "model", "unknown"]) | st.text(max_size=5)
    body = {"model": draw(st.sampled_from(MODELS)), **LEAST.get(canonical(path), {})}
    body |= draw(st.dictionaries(names, values, max_size=3))
    raw = json.dumps(body).encode()
    return raw[: draw(st.integers(0, len(raw)))] if draw(one_in(20)) else raw


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    paths = [*ENDPOINTS, *ENDPOINTS, *ENDPOINTS, *ALIASES, *STRANGE]
    path = draw(st.sampled_from(paths))
    if draw(one_in(20)):
        path = f"/v1/{draw(st.text(max_size=20))}"
    method = draw(
        st.sampled_from(["POST"] * 40 + ["GET", "PUT", "DELETE", "HEAD", "x"])
    )
    lengths = [b"0", b"-1", b"9" * 30, b"x", b"33554433", b"1_0", "²".encode()]
    headers = draw(
        st.lists(
            st.sampled_from(
                [
                    (b"content-type", b"text/xml; charset=utf-16"),
                    (b"content-encoding", b"gzip"),
                    (b"anthropic-version", b"\xff"),
                    (b"anthropic-beta", b"x" * 4000),
                    (b"accept", b"image/png"),
                    (b"x-omni-from", b"x"),
                    (b"x-forwarded-for", b"no address, \xff"),
                ]
            ),
            max_size=2,
        )
    )
    if draw(one_in(20)):
        headers.append((b"content-length", draw(st.sampled_from(lengths))))
    return {
        "path": path,
        "method": method,
        "headers": headers,
        "body": draw(bodies(path)),
        "has_key": not draw(one_in(20)),
        "cut_at": draw(st.integers(0, 30)),
        "hangs_up": draw(one_in(20)),
    }


class Client:
    """Sends one request after another to the gateway in this process."""

    def __init__(self, key: str) -> None:
        self.key = key.encode()
        self.runner = asyncio.Runner()

    def send(self, **wanted: Any) -> list[dict[str, Any]]:
        """What the gateway sent: a start and bodies; nothing to whoever hung up."""
        return self.runner.run(self._send(**wanted))

    async def _send(
        self,
        path: str,
        body: bytes = b"",
        method: str = "POST",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        has_key: bool = True,
        cut_at: int = 0,
        hangs_up: bool = False,
    ) -> list[dict[str, Any]]:
        first = {"type": "http.request", "body": body[:cut_at], "more_body": True}
        last = {"type": "http.request", "body": body[cut_at:], "more_body": False}
        coming = [first, {"type": "http.disconnect"} if hangs_up else last]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if coming:
                return coming.pop(0)
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        key = [(b"authorization", b"Bearer " + self.key)] if has_key else []
        scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": [*key, *headers],
            # Who sends wrong keys is held up, each at an address.
            "client": ("192.0.2.1", 1),
        }
        await gateway(scope, receive, send)
        return sent


@pytest.fixture
def client() -> Iterator[Client]:
    kinds = {"smol": "text", "vectors": "embedding", "scores": "reranker"}
    engines = {name: FakeEngine("answers_anything") for name in kinds}
    made = Client(create_key("tests"))
    for name, engine in engines.items():
        make_deployment(name, engine.port, kind=kinds[name])
    forget_table()
    yield made
    made.runner.close()
    for engine in engines.values():
        engine.close()


def check_error(path: str, raw: bytes) -> None:
    said = json.loads(raw)
    error = said["error"]
    assert isinstance(error["message"], str) and error["message"] and error["type"]
    if api_of(path) == Api.ANTHROPIC:
        assert said["type"] == "error"
    else:
        assert set(error) == {"message", "type", "param", "code"} and error["code"]


@pytest.mark.timeout(600)
def test_no_request_makes_the_gateway_fail(client: Client) -> None:
    seen: dict[int, int] = {}

    @given(requests())
    @hypothesis_settings(
        max_examples=cases(500, 5000),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
    )
    def check(wanted: dict[str, Any]) -> None:
        sent = client.send(**wanted)
        if not sent:
            assert wanted["hangs_up"]
            return
        start, *rest = sent
        status = start["status"]
        assert start["type"] == "http.response.start" and status < 500, (wanted, sent)
        assert [message["type"] for message in rest] == ["http.response.body"]
        if status >= 400 and wanted["method"] != "HEAD":
            check_error(wanted["path"], rest[0]["body"])
        seen[status] = seen.get(status, 0) + 1

    check()
    # What it is for is refusing; some must have come as far as the engine.
    # A body beyond its limit is rare among them; test_hostile_clients.py sends one.
    assert {200, 400, 401, 404, 405} <= set(seen), seen


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_too_much_is_refused_with_the_limit(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str, is_declared: bool
) -> None:
    if is_declared:
        length = str(LARGEST_BODY_BYTES + 1).encode()
        start, body = client.send(path=path, headers=((b"content-length", length),))
        assert b"32 MiB" in body["body"]
    else:
        monkeypatch.setattr(asgi, "LARGEST_BODY_BYTES", 1 << 20)
        start, body = client.send(path=path, body=b"x" * ((1 << 20) + 1))
        assert b"1 MiB" in body["body"]
    assert start["status"] == 413
    check_error(path, body["body"])
