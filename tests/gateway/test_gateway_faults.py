"""Engines that break off, hang or flood, and clients that do not read."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.gateway.fake_engine import EVENT, FLOOD_BYTES, FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until


def ask(behaviour: str, **fields: Any) -> dict[str, Any]:
    return question(behaviour, "faulty", **fields)


def test_a_stream_that_breaks_off_ends_with_an_error_event_behind_whole_events(
    faulty: FakeEngine, served: Served
) -> None:
    answer = served.post(ask("breaks_off", stream=True))
    assert answer.content.startswith(EVENT + EVENT)
    last = answer.content.removeprefix(EVENT + EVENT)
    assert last.startswith(b"data: ") and last.endswith(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_died"


def test_a_stream_that_ends_before_its_answer_is_complete_ends_with_an_error_event(
    faulty: FakeEngine, served: Served
) -> None:
    answer = served.post(ask("ends_early", stream=True))
    last = answer.content.removeprefix(EVENT + EVENT)
    assert (
        json.loads(last.removeprefix(b"data: "))["error"]["code"] == "answer_incomplete"
    )


def test_a_fragment_at_the_end_of_a_stream_does_not_spoil_the_error_behind_it(
    faulty: FakeEngine, served: Served
) -> None:
    answer = served.post(ask("ends_inside_an_event", stream=True))
    events = [
        json.loads(event.removeprefix("data: "))
        for event in answer.text.split("\n\n")
        if event
    ]
    assert [list(event) for event in events] == [["choices"], ["error"]]
    assert events[-1]["error"]["code"] == "answer_incomplete"


def test_text_that_reads_like_an_end_is_no_end(
    faulty: FakeEngine, served: Served
) -> None:
    answer = served.post(ask("writes_of_ends", stream=True))
    last = answer.text.strip().rpartition("\n\n")[2]
    assert (
        json.loads(last.removeprefix("data: "))["error"]["code"] == "answer_incomplete"
    )


def test_an_end_is_read_as_the_standard_has_it(
    faulty: FakeEngine, served: Served
) -> None:
    answer = served.post(ask("ends_with_a_reason", stream=True))
    assert answer.text.endswith('"stop"}]}\r\n\r\n') and "error" not in answer.text


def test_an_answer_without_end_is_given_up_and_not_kept(
    faulty: FakeEngine, served: Served
) -> None:
    assert served.process
    process = psutil.Process(served.process.pid)
    before_bytes = process.memory_info().rss
    answer = served.post(ask("answers_without_end"))
    assert (
        answer.status_code == 502
        and "more than 64 MiB" in answer.json()["error"]["message"]
    )
    assert process.memory_info().rss - before_bytes < 300 << 20
    wait_until(
        lambda: faulty.open_requests == 0, 5, "the engine still works for nobody"
    )


def test_a_packed_answer_is_refused(faulty: FakeEngine, served: Served) -> None:
    answer = served.post(ask("packs_its_answer"))
    assert (
        answer.status_code == 502
        and "packs its answer" in answer.json()["error"]["message"]
    )


def test_openais_client_raises_when_a_stream_breaks_off(
    faulty: FakeEngine, served: Served
) -> None:
    stream = served.client().chat.completions.create(**ask("breaks_off"), stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ("hangs_up", 502, "engine_died"),
        ("refuses_the_key", 502, "engine_refused"),
        ("finds_it_too_long", 400, 400),
    ],
)
def test_what_goes_wrong_before_the_answer_has_its_own_status(
    faulty: FakeEngine, served: Served, behaviour: str, status: int, code: object
) -> None:
    answer = served.post(ask(behaviour))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("behaviour", ["says_nothing", "begins_and_waits"])
def test_a_client_that_hangs_up_ends_the_request_to_the_engine(
    faulty: FakeEngine, served: Served, behaviour: str
) -> None:
    client = connect(served, ask(behaviour, stream=True))
    wait_until(lambda: faulty.open_requests == 1, 5, "the engine got no request")
    client.close()
    wait_until(
        lambda: faulty.open_requests == 0, 1, "the engine still works for nobody"
    )


def test_the_engine_sees_its_own_name_for_the_model_and_only_allowed_fields(
    faulty: FakeEngine, served: Served
) -> None:
    served.post(
        ask(
            "hangs_up",
            temperature=0.5,
            top_k=None,
            api_base="http://evil.example",
            n_discard=-9,
        )
    )
    assert faulty.seen[-1] == {
        "messages": [{"role": "user", "content": "hangs_up"}],
        "temperature": 0.5,
        "model": "smol-alias",
    }


def test_a_client_that_reads_nothing_holds_the_engine_back_and_no_memory_grows(
    faulty: FakeEngine, served: Served
) -> None:
    assert served.process
    process = psutil.Process(served.process.pid)
    before_bytes, faulty.sent_bytes = process.memory_info().rss, 0
    with connect(served, ask("floods", stream=True)):
        wait_until(lambda: faulty.sent_bytes > 0, 5, "the engine did not begin")
        wait_until(
            lambda: standing_still(faulty),
            20,
            "the engine is not held back",
            interval_s=0.3,
        )
        grown_bytes = process.memory_info().rss - before_bytes
        assert faulty.sent_bytes < FLOOD_BYTES / 8
        assert grown_bytes < 20 << 20
        # The stalled client takes nothing from the others.
        assert httpx.get(f"{served.url}/healthz", timeout=2).status_code == 200
    wait_until(
        lambda: faulty.open_requests == 0, 2, "the engine still works for nobody"
    )


def test_a_client_that_reads_gets_all_of_a_flood(
    faulty: FakeEngine, served: Served
) -> None:
    faulty.sent_bytes = begun_at = FLOOD_BYTES - (32 << 20)
    url = f"{served.url}/v1/chat/completions"
    with httpx.stream(
        "POST", url, json=ask("floods", stream=True), headers=served.headers, timeout=60
    ) as answer:
        received_bytes = sum(len(chunk) for chunk in answer.iter_raw())
    assert received_bytes == faulty.sent_bytes - begun_at


def standing_still(engine: FakeEngine) -> bool:
    """Nothing was sent since this was asked the last time."""
    before, engine.noted_bytes = getattr(engine, "noted_bytes", -1), engine.sent_bytes  # type: ignore[attr-defined]
    return before == engine.sent_bytes


def connect(served: Served, body: dict[str, Any]) -> socket.socket:
    """A client that sends its request and reads nothing."""
    raw = json.dumps(body).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    client.connect(("127.0.0.1", served.port))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer"
        f" {served.key}\r\n"
    )
    client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return client


def test_three_hundred_hang_ups_leave_no_connection_behind(
    faulty: FakeEngine, served: Served
) -> None:
    for _ in range(6):
        clients = [
            connect(served, ask("begins_and_waits", stream=True)) for _ in range(50)
        ]
        wait_until(
            lambda: faulty.open_requests == 50,
            15,
            lambda: f"{faulty.open_requests} of 50 reached the engine",
        )
        for client in clients:
            client.close()
        wait_until(
            lambda: faulty.open_requests == 0,
            5,
            lambda: f"{faulty.open_requests} are still open",
        )
    assert served.process
    to_engine = [
        c
        for c in psutil.Process(served.process.pid).net_connections("tcp")
        if c.raddr and c.raddr.port == faulty.port
    ]
    assert [c for c in to_engine if c.status == psutil.CONN_ESTABLISHED] == []


def test_a_hundred_streams_run_side_by_side(faulty: FakeEngine, served: Served) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(
            pool.map(
                lambda _: served.post(ask("takes_its_time", stream=True)), range(100)
            )
        )
    assert {
        (a.status_code, a.content.count(b"word"), a.content.endswith(b"[DONE]\n\n"))
        for a in answers
    } == {(200, 10, True)}


def test_sigterm_lets_open_streams_finish_and_takes_no_new_ones(
    faulty: FakeEngine, own_served: Served
) -> None:
    served = own_served
    served.prepare({"faulty": faulty.port})
    served.start()
    assert served.process
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.post, ask("takes_its_time", stream=True))
        wait_until(lambda: faulty.open_requests == 1, 5, "the engine got no request")
        served.terminate()
        wait_until(lambda: refuses(served), 1, "new connections are still taken")
        assert answer.result().content.endswith(b"[DONE]\n\n")
    assert served.process.wait(5) == 0


def refuses(served: Served) -> bool:
    try:
        socket.create_connection(("127.0.0.1", served.port), timeout=1).close()
    except OSError:
        return True
    return False
