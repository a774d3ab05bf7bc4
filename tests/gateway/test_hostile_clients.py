"""Attacks over plain connections: bodies without a key, idle and slow connections, long headers,
wrong keys."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import serving
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until

CHAT = "/v1/chat/completions"
REVOKE = """
from deployments.models import ApiKey
ApiKey.objects.filter(name="revoked").update(revoked=True)
"""


@pytest.fixture(scope="module", params=["serve", "gateway"])
def server_command(request: pytest.FixtureRequest) -> str:
    """The panel's web server, and the gateway's own."""
    return str(request.param)


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=45)


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]
    ).encode()


def answer_on(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    with suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def stored_bytes(served: Served) -> int:
    """What the server's process keeps in deleted files of the temporary folder."""
    assert served.process
    total = 0
    for link in Path(f"/proc/{served.process.pid}/fd").iterdir():
        with suppress(OSError):
            if "(deleted)" in str(link.readlink()):
                total += link.stat().st_size
    return total


# --- bodies ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [CHAT, "/v1/anything", "/tokenize"])
@pytest.mark.parametrize(
    "length", ["Content-Length: 31457280", "Transfer-Encoding: chunked"]
)
@pytest.mark.parametrize("expects", [[], ["Expect: 100-continue"]])
def test_a_long_body_without_a_key_is_refused_before_it_is_sent(
    faulty: FakeEngine, served: Served, path: str, length: str, expects: list[str]
) -> None:
    with connect(served) as client:
        client.sendall(head("POST", path, length, *expects))
        answer = answer_on(client)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert (
        json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
        == "invalid_api_key"
    )


# The gateway's own server has no pages.
@pytest.mark.parametrize("server_command", ["serve"], indirect=True)
def test_a_page_takes_no_long_body_from_who_is_not_logged_in(
    faulty: FakeEngine, served: Served
) -> None:
    with connect(served) as client:
        client.sendall(head("POST", "/login/", "Content-Length: 3000000"))
        assert answer_on(client).startswith(b"HTTP/1.1 403 ")


def test_bodies_without_a_key_leave_nothing_in_the_temporary_folder(
    faulty: FakeEngine, served: Served
) -> None:
    with ExitStack() as open_ones:
        for _ in range(9):
            client = open_ones.enter_context(connect(served))
            client.settimeout(10)
            client.sendall(head("POST", CHAT, "Content-Length: 33000000"))
            with suppress(OSError):
                for _ in range(30):
                    client.sendall(b" " * (1 << 20))
        assert stored_bytes(served) < 1 << 20


def test_a_body_that_grows_beyond_what_it_may_have_is_refused(
    faulty: FakeEngine, served: Served
) -> None:
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with connect(served) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(answer_on, client)
        client.sendall(
            head(
                "POST",
                CHAT,
                "Transfer-Encoding: chunked",
                f"Authorization: Bearer {served.key}",
            )
        )
        with suppress(OSError):
            for _ in range(64):
                client.sendall(chunk)
        assert answer.result().startswith(b"HTTP/1.1 413 ")


def test_a_long_body_with_a_key_arrives_whole(
    faulty: FakeEngine, served: Served
) -> None:
    long = "x" * (3 << 20)
    body = {
        "model": "faulty",
        "messages": [{"role": "system", "content": long}],
        "user": "u",
    }
    body["messages"].append({"role": "user", "content": "finds_it_too_long"})
    chunks = iter([json.dumps(body).encode()])
    for sent in ({"json": body}, {"content": chunks}):
        headers = {**served.headers, "content-type": "application/json"}
        answer = httpx.post(f"{served.url}{CHAT}", headers=headers, timeout=60, **sent)
        assert answer.json()["error"]["message"] == "the request exceeds the context"
        assert len(faulty.seen[-1]["messages"][0]["content"]) == len(long)


# --- connections ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def crowded(
    tmp_path_factory: pytest.TempPathFactory, server_command: str
) -> Iterator[Served]:
    """A server that may open 300 files, and answers pages of one other site."""
    with serving(
        tmp_path_factory.mktemp("crowded"),
        command=server_command,
        before=("prlimit", "--nofile=300:300"),
    ) as running:
        running.extra_env = {"OMNI_CORS_ORIGINS": "https://app.example"}
        running.prepare({})
        running.start()
        yield running


def test_idle_connections_make_room_for_others(crowded: Served) -> None:
    with ExitStack() as open_ones:
        for _ in range(400):
            with suppress(OSError):
                open_ones.enter_context(connect(crowded))
        answer = httpx.get(f"{crowded.url}/healthz", timeout=45)
        assert answer.status_code == 200
        assert (
            httpx.get(
                f"{crowded.url}/v1/models", headers=crowded.headers, timeout=45
            ).status_code
            == 200
        )


def test_half_sent_heads_and_bodies_make_room_as_well(crowded: Served) -> None:
    with ExitStack() as open_ones:
        for number in range(400):
            with suppress(OSError):
                client = open_ones.enter_context(connect(crowded))
                begun = head("POST", CHAT, "Content-Length: 60000") + b"{"
                client.sendall(
                    begun
                    if number % 2
                    else b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
                )
        assert httpx.get(f"{crowded.url}/healthz", timeout=45).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("GET", "/v1/models", "X-Long: " + "x" * 20_000), b"431"),
        (head("GET", "/", "X-Long: " + "x" * 20_000), b"431"),
        (head("GET", "/" + "x" * 20_000), b"431"),
        (
            head("GET", "/v1/models", *[f"X-{n}: {'x' * 1000}" for n in range(50)]),
            b"431",
        ),
        (head("GET", "/v1/models", "Authorization: Bearer " + "x" * 15_000), b"401"),
    ],
)
def test_long_headers_get_an_answer(
    faulty: FakeEngine, served: Served, sent: bytes, status: bytes
) -> None:
    with connect(served) as client:
        client.sendall(sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert answer_on(client).split(b" ")[1] == status


def test_long_headers_are_said_with_their_limit_in_the_shape_of_the_api(
    faulty: FakeEngine, served: Served
) -> None:
    with connect(served) as client:
        client.sendall(head("POST", "/v1/messages", "X-Long: " + "x" * 20_000))
        said = json.loads(answer_on(client).partition(b"\r\n\r\n")[2])
    assert said["type"] == "error"
    assert said["error"]["message"].startswith(
        "A line of the headers is longer than 16"
    )


# --- what is said in JSON -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "/apply-template",
        "/lora-adapters",
        "/props",
        "/slots",
        "/completion",
        "/v1",
        "/v1/nothing",
        "//v1/models",
        "/v1//models",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_programs_ask_for_and_is_not_there_says_so_in_json(
    faulty: FakeEngine, served: Served, path: str, method: str
) -> None:
    with connect(served) as client:
        key = f"Authorization: Bearer {served.key}"
        client.sendall(
            head(method, path, key, "Content-Length: 0", "Connection: close")
        )
        answer = answer_on(client)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert (
        json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
        == "path_not_found"
    )


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (CHAT, "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/nothing", "OPTIONS"),
    ],
)
def test_options_tell_what_a_path_takes_and_nothing_of_other_sites(
    faulty: FakeEngine, served: Served, path: str, allow: str
) -> None:
    answer = httpx.options(
        f"{served.url}{path}", headers={"origin": "https://app.example"}, timeout=45
    )
    assert (answer.status_code, answer.headers["allow"]) == (204, allow)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_head_is_get_without_its_body(faulty: FakeEngine, served: Served) -> None:
    got = httpx.get(f"{served.url}/v1/models", headers=served.headers, timeout=45)
    answer = httpx.head(f"{served.url}/v1/models", headers=served.headers, timeout=45)
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", CHAT), ("GET", CHAT), ("POST", "/v1/models")]
)
def test_a_method_that_is_not_taken_is_told_which_are(
    faulty: FakeEngine, served: Served, method: str, path: str
) -> None:
    answer = httpx.request(
        method, f"{served.url}{path}", headers=served.headers, timeout=45
    )
    assert answer.status_code == 405 and "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize(
    "raw",
    [
        (
            rb'{"model": "faulty", "messages": [{"role": "user", "content": "finds_it_too_long"}],'
            rb' "user": "\ud800"}'
        ),
        b'{"model": "faulty", "messages": [{"role": "user", "content": "x"}], "max_tokens": '
        + b"9" * 400
        + b"}",
        b'{"model": "faulty", "messages": [{"role": "user", "content": "x"}], "top_p": 1e999}',
        b'{"model": "faulty", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
        b"[" * 500_000,
        b"\xff\xfe",
    ],
)
def test_hostile_json_is_refused_or_passed_on_and_never_a_mistake_of_the_panel(
    faulty: FakeEngine, served: Served, raw: bytes
) -> None:
    answer = served.post(None, content=raw, json=None)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


# --- keys -----------------------------------------------------------------------------------------
def test_the_streams_of_a_revoked_key_end(faulty: FakeEngine, served: Served) -> None:
    key = served.shell(
        "from deployments.gateway.keys import create_key; print('KEY', create_key('revoked'))"
    )
    headers = {"authorization": f"Bearer {key.split('KEY ')[1].strip()}"}
    body = question("begins_and_waits", "faulty", stream=True)
    with httpx.stream(
        "POST", f"{served.url}{CHAT}", json=body, headers=headers, timeout=60
    ) as answer:
        assert answer.status_code == 200
        served.shell(REVOKE)
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert (
        json.loads(lines[-1].removeprefix("data: "))["error"]["code"]
        == "invalid_api_key"
    )
    wait_until(lambda: faulty.open_requests == 0, 45, "the engine still works for it")


def test_wrong_keys_are_held_up_and_right_ones_are_not(
    faulty: FakeEngine, served: Served
) -> None:
    # Wrong ones are counted by address, and the other tests come from another one.
    with httpx.Client(
        transport=httpx.HTTPTransport(local_address="127.0.0.2"),
        base_url=served.url,
        timeout=45,
    ) as client:
        check_wrong_keys(client, served)


def check_wrong_keys(client: httpx.Client, served: Served) -> None:
    def tried(header: dict[str, str]) -> httpx.Response:
        return client.get("/v1/models", headers=header)

    assert tried(served.headers).status_code == 200
    wrong = [
        tried({"authorization": f"Bearer wrong.{n}"}).status_code for n in range(25)
    ]
    assert wrong[:20] == [401] * 20 and wrong[-1] == 429
    # The other header is no way round it.
    late = tried({"x-api-key": "wrong.99"})
    assert late.status_code == 429 and int(late.headers["retry-after"]) > 1
    assert late.json()["error"]["code"] == "too_many_wrong_keys"
    assert tried(served.headers).status_code == 200


def test_a_page_of_another_site_may_ask_where_the_setting_names_it(
    crowded: Served,
) -> None:
    url, seen = f"{crowded.url}/v1/models", {}
    page = {"origin": "https://app.example"}
    asks = {
        **page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-stainless-os, x-a",
    }
    allowed = httpx.options(
        f"{crowded.url}/v1/chat/completions", headers=asks, timeout=45
    ).headers
    assert allowed["access-control-allow-headers"] == "x-stainless-os, x-a"
    assert "POST" in allowed["access-control-allow-methods"]

    # A refusal is read as well, also one that comes before the body.
    for body in (b"{}", b" " * (2 << 20)):
        refused = httpx.post(
            f"{crowded.url}/v1/chat/completions",
            content=body,
            headers=page,
            timeout=45,
        )
        assert (
            refused.status_code,
            refused.headers["access-control-allow-origin"],
        ) == (
            401,
            page["origin"],
        )

    for origin in ("https://app.example", "https://evil.example"):
        asked = httpx.options(url, headers={"origin": origin}, timeout=45)
        got = httpx.get(url, headers={"origin": origin, **crowded.headers}, timeout=45)
        seen[origin] = [
            answer.headers.get("access-control-allow-origin") for answer in (asked, got)
        ]
    assert seen == {
        "https://app.example": ["https://app.example"] * 2,
        "https://evil.example": [None] * 2,
    }
