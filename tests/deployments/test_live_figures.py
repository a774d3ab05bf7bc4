"""What running deployments do at this moment, read from the slots of their engines."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from deployments.engines.slots import SlotWork, decoded_between, slots_at_work
from deployments.models import Deployment, Instance
from deployments.services.live_figures import FRESH_S, LiveFigures, LiveReader
from tests.fakes.engine import UnixServer
from tests.helpers import wait_until


def slot(number: int, task: int, n_decoded: int, busy: bool = True) -> dict[str, Any]:
    return {
        "id": number,
        "id_task": task,
        "is_processing": busy,
        "next_token": [{"n_decoded": n_decoded}],
    }


# --- what an engine says --------------------------------------------------------------------------
def test_only_slots_with_a_request_are_at_work() -> None:
    older = {
        "id": 2,
        "id_task": 9,
        "is_processing": True,
        "next_token": {"n_decoded": 4},
    }
    answer = [slot(0, 7, 12), slot(1, 3, 99, busy=False), older]
    assert slots_at_work(answer) == {0: SlotWork(7, 12), 2: SlotWork(9, 4)}


@pytest.mark.parametrize(
    "slots",
    [
        [7, None, "x"],
        [{"is_processing": "yes"}],
        [{"is_processing": False}],
    ],
)
def test_what_is_no_slot_at_work_is_left_out(slots: list[Any]) -> None:
    assert slots_at_work(slots) == {}


def test_what_a_slot_leaves_out_is_nothing() -> None:
    assert slots_at_work([{"is_processing": True, "next_token": []}]) == {
        0: SlotWork(0, 0)
    }
    with pytest.raises(ValueError, match="list"):
        slots_at_work({"error": "no"})


@pytest.mark.parametrize(
    ("before", "now", "tokens"),
    [
        ({0: SlotWork(1, 10)}, {0: SlotWork(1, 25)}, 15),
        ({0: SlotWork(1, 10)}, {0: SlotWork(2, 4)}, 4),
        ({}, {0: SlotWork(1, 4), 1: SlotWork(2, 6)}, 10),
        ({0: SlotWork(1, 10)}, {}, 0),
        ({0: SlotWork(1, 10)}, {0: SlotWork(1, 3)}, 0),
    ],
)
def test_tokens_are_counted_by_request(
    before: dict[int, SlotWork], now: dict[int, SlotWork], tokens: int
) -> None:
    assert decoded_between(before, now) == tokens


# --- asked while it works -------------------------------------------------------------------------
class Engine:
    """Answers /slots on a Unix socket with what it is told to."""

    def __init__(self, path: Path) -> None:
        self.answer: Any = []
        self.asked = 0
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.asked += 1
                body = json.dumps(engine.answer).encode()
                self.send_response(200 if self.path == "/slots" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = UnixServer(str(path), Handler)  # type: ignore[arg-type]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def engine_of(
    deployment: Deployment, tmp_path: Path
) -> Iterator[tuple[Deployment, Engine]]:
    path = tmp_path / "engine.sock"
    running = Engine(path)
    Instance.objects.create(
        host=deployment.host,
        deployment=deployment,
        role="model",
        state="ready",
        pid=1,
        start_time=1.0,
        socket=str(path),
        generation=deployment.generation,
    )
    Deployment.objects.update(desired="running")
    yield Deployment.objects.get(), running
    running.server.shutdown()
    running.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def later(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_rate_is_what_came_between_two_looks(
    engine_of: tuple[Deployment, Engine], clock: Clock
) -> None:
    row, engine = engine_of
    reader = LiveReader(clock)
    assert reader.of([row])["small"] == LiveFigures(0, 0.0)
    engine.answer = [slot(0, 1, 10), slot(1, 2, 20), slot(2, 0, 0, busy=False)]
    clock.later(2.0)
    assert reader.of([row])["small"] == LiveFigures(2, 15.0)
    engine.answer = [slot(0, 1, 30), slot(1, 2, 60)]
    clock.later(2.0)
    assert reader.of([row])["small"] == LiveFigures(2, 30.0)


def test_however_many_look_an_engine_is_asked_twice_a_second_at_most(
    engine_of: tuple[Deployment, Engine], clock: Clock
) -> None:
    row, engine = engine_of
    reader = LiveReader(clock)
    for _ in range(5):
        reader.of([row])
    assert engine.asked == 1
    clock.later(FRESH_S)
    reader.of([row])
    assert engine.asked == 2


def test_the_first_look_at_work_in_progress_knows_no_rate_yet(
    engine_of: tuple[Deployment, Engine], clock: Clock
) -> None:
    row, engine = engine_of
    engine.answer = [slot(0, 1, 500)]
    reader = LiveReader(clock)
    assert reader.of([row])["small"] == LiveFigures(1, None)
    # Another process begins at nought again.
    Instance.objects.update(pid=2)
    clock.later(2.0)
    assert reader.of([Deployment.objects.get()])["small"] == LiveFigures(1, None)


def test_an_engine_that_says_nothing_of_use_has_no_figures(
    engine_of: tuple[Deployment, Engine], clock: Clock
) -> None:
    row, engine = engine_of
    reader = LiveReader(clock)
    engine.answer = {"error": "not now"}
    assert reader.of([row])["small"] == LiveFigures()
    engine.server.shutdown()
    engine.server.server_close()
    clock.later(2.0)
    assert reader.of([row])["small"] == LiveFigures()
    Instance.objects.update(state="loading")
    assert reader.of([Deployment.objects.get()]) == {}


def test_the_page_shows_them_and_asks_again(
    viewer: Client, engine_of: tuple[Deployment, Engine]
) -> None:
    _, engine = engine_of
    page = viewer.get("/answer/?pick=now").content.decode()
    assert 'hx-get="/answer/running/"' in page and engine.asked == 0
    engine.answer = [slot(0, 1, 10)]

    def figures() -> str:
        return " ".join(viewer.get("/answer/running/").content.decode().split())

    # A rate takes two looks, half a second apart.
    wait_until(lambda: "tokens/s" in figures(), 5)
    assert "1 request " in figures() and 'hx-trigger="every 2s"' in figures()
