"""Requests that are open, what becomes of those whose client leaves, and what is kept of them."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from django.conf import settings

from deployments.gateway.activity_link import ask_all
from tests import postgres
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.gateway.vanishing import STAGES, request_bytes, vanish_all
from tests.helpers import cases, wait_until

# `loading` never gets ready, and `narrow` has one slot.
MORE = """
from tests.gateway.engine import make_deployment
from deployments.models import Deployment
Deployment.objects.filter(name="faulty").update(settings={{"parallel": 4}})
make_deployment("loading", None, state="loading")
make_deployment("narrow", {port}, settings={{"parallel": 1}})
"""
ROWS = """
import json
from deployments.models import GatewayRequest
fields = ("asked_name", "deployment_name", "status", "error_code", "key_name", "surface",
          "is_stream", "completion_tokens", "first_token_ms", "queue_ms", "path", "pk")
print("ROWS", json.dumps(list(GatewayRequest.objects.order_by("pk").values(*fields))))
"""


@pytest.fixture(scope="module", params=["serve", "gateway"])
def server_command(request: pytest.FixtureRequest) -> str:
    """The panel's web server and the gateway's own: each ends what its clients left in its way."""
    return str(request.param)


@pytest.fixture(scope="module")
def watched(served: Served, broker: None) -> Iterator[FakeEngine]:
    """The misbehaving engine behind a gateway that has the tests' broker."""
    served.extra_env["OMNI_BROKER_URL"] = settings.CHANNEL_REDIS_URL
    fake, narrow = FakeEngine(), FakeEngine()
    served.prepare({"faulty": fake.port})
    served.shell(MORE.format(port=narrow.port))
    served.start()
    yield fake
    fake.close()
    narrow.close()


def rows(served: Served, after: int = 0) -> list[dict[str, Any]]:
    found = json.loads(served.shell(ROWS).split("ROWS ")[1])
    return [row for row in found if row["pk"] > after]


def last_row(served: Served) -> int:
    return max((row["pk"] for row in rows(served)), default=0)


def running() -> list[dict[str, Any]]:
    return [each for one in ask_all({"ask": "open"}).found for each in one["requests"]]


def is_idle() -> bool:
    return not running()


# --- clients that leave ---------------------------------------------------------------------------
def test_clients_that_vanish_leave_nothing_open_and_are_each_recorded(
    watched: FakeEngine, served: Served
) -> None:
    before, clients = last_row(served), cases(36, 500)
    asyncio.run(vanish_all(served, clients, seed=1))
    left_s = time.monotonic()
    wait_until(lambda: not watched.open_requests, 2, "the engine still works")
    assert time.monotonic() - left_s < 10
    wait_until(is_idle, 2, lambda: str(running()))

    wait_until(
        lambda: len(rows(served, before)) >= clients, 30, "some are not recorded"
    )
    found = rows(served, before)
    assert len(found) == clients
    assert {(row["status"], row["error_code"]) for row in found} == {
        (499, "client_left")
    }


@pytest.mark.parametrize(
    ("stage", "phase"),
    [
        ("load", "waiting for the model"),
        ("prompt", "reading the prompt"),
        ("queue", "queued"),
        ("answer", "answering"),
    ],
)
def test_a_client_that_leaves_is_recorded_at_whatever_stage_it_was(
    watched: FakeEngine, served: Served, stage: str, phase: str
) -> None:
    before = last_row(served)
    model, text = STAGES[stage]
    body = question(text, model, stream=True)
    with ExitStack() as clients:
        # Of two in the queue one is read already.
        for _ in range(2 if stage == "queue" else 1):
            client = clients.enter_context(
                socket.create_connection(("127.0.0.1", served.port), timeout=45)
            )
            client.sendall(request_bytes(served, body))
        place = 1 if stage in ("load", "queue") else 0
        sought = partial(in_phase, phase, place)
        found = wait_until(sought, 10, lambda: str(running()))
        assert found["deployment"] == model
    wait_until(is_idle, 2, lambda: str(running()))
    wait_until(lambda: not watched.open_requests, 2, "the engine still works")
    for row in wait_until(lambda: rows(served, before), 20):
        assert (row["status"], row["error_code"]) == (499, "client_left")
        assert row["deployment_name"] == model


# --- what runs ------------------------------------------------------------------------------------
@contextmanager
def asked(served: Served, text: str, model: str = "faulty") -> Iterator[httpx.Response]:
    """A stream that is open in the block."""
    body = question(text, model, stream=True)
    with (
        httpx.Client(timeout=60) as client,
        client.stream(
            "POST",
            f"{served.url}/v1/chat/completions",
            json=body,
            headers=served.headers,
        ) as answer,
    ):
        yield answer


def in_phase(phase: str, place: int = 0) -> dict[str, Any] | None:
    wanted = (phase, place)
    found = (each for each in running() if (each["phase"], each["place"]) == wanted)
    return next(found, None)


def test_a_request_that_runs_is_told_with_who_asked_and_how_far_it_is(
    watched: FakeEngine, served: Served
) -> None:
    before = last_row(served)
    with asked(served, "begins_and_waits"):
        found = wait_until(partial(in_phase, "answering"), 10)
        assert found["tokens"] == 1 and found["first_token_ms"] is not None
        assert found["key"] == served.key.partition(".")[0]
        assert found["address"] == "127.0.0.1" and found["asked"] == "faulty"
    wait_until(is_idle, 10, lambda: str(running()))
    wait_until(lambda: rows(served, before), 20)


# --- the end that somebody wants ------------------------------------------------------------------
def test_a_request_that_is_cancelled_ends_with_an_error_that_says_by_whom(
    watched: FakeEngine, served: Served
) -> None:
    before = last_row(served)
    with asked(served, "begins_and_waits") as answer:
        found = wait_until(partial(in_phase, "answering"), 10)
        question = {"ask": "cancel", "number": found["number"], "by": "ada"}
        assert ask_all(question).found == [{"found": True}]
        last = answer.read().decode().split("data: ")[-1]
    error = json.loads(last)["error"]
    assert error["code"] == "request_cancelled" and "ada" in error["message"]
    wait_until(lambda: not watched.open_requests, 5, "the engine still works")
    assert ask_all(question).found == [{"found": False}]
    [row] = wait_until(lambda: rows(served, before), 20)
    assert (row["status"], row["error_code"]) == (499, "request_cancelled")
    assert row["first_token_ms"] is not None and row["key_name"] == "tests"


def test_a_request_that_waits_for_its_model_can_be_cancelled(
    watched: FakeEngine, served: Served
) -> None:
    before = last_row(served)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.post, question("says_nothing", "loading"))
        found = wait_until(partial(in_phase, "waiting for the model", 1), 10)
        ask_all({"ask": "cancel", "number": found["number"], "by": "ada"})
        assert answer.result().status_code == 499
        assert answer.result().json()["error"]["code"] == "request_cancelled"
    wait_until(lambda: rows(served, before), 20)


# --- what is kept ---------------------------------------------------------------------------------
def test_what_an_answer_cost_is_kept_as_the_engine_counted_it(
    watched: FakeEngine, served: Served
) -> None:
    before = last_row(served)
    with asked(served, "writes_with_drafts") as answer:
        answer.read()
    served.post(question("finds_it_too_long", "faulty"))
    served.post(question("anything", "not-there"))
    wait_until(lambda: len(rows(served, before)) == 3, 20)
    drafted, refused, unknown = rows(served, before)
    assert drafted["status"] == 200, served.log.read_text()[-3000:]
    assert drafted["completion_tokens"] == 30
    assert drafted["is_stream"] and drafted["surface"] == "gateway"
    assert (refused["status"], refused["error_code"]) == (400, "engine_refused")
    assert (unknown["status"], unknown["error_code"]) == (404, "model_not_found")
    assert unknown["asked_name"] == "not-there" and unknown["deployment_name"] == ""


LOCK = """
import os, sqlite3, sys, time
database = sqlite3.connect(sys.argv[1])
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(bool(postgres.URL), reason="one lock for all writers is SQLite's")
def test_a_locked_database_holds_up_no_request_and_loses_none(
    watched: FakeEngine, served: Served
) -> None:
    before = last_row(served)
    argv = [sys.executable, "-c", LOCK, str(served.home.database)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as locker:
        assert locker.stdout and locker.stdin
        assert locker.stdout.readline() == b"locked\n"
        for _ in range(5):
            assert (
                served.post(question("finds_it_too_long", "faulty")).status_code == 400
            )
        locker.stdin.close()
    wait_until(lambda: len(rows(served, before)) == 5, 60)


def test_without_a_broker_requests_run_and_are_kept(own_served: Served) -> None:
    fake = FakeEngine()
    own_served.prepare({"faulty": fake.port})
    own_served.start()
    with asked(own_served, "writes_with_drafts") as answer:
        assert answer.read()
    wait_until(lambda: len(rows(own_served)) == 1, 20)
    fake.close()


KEEP = """
from django.contrib.auth.models import User
from deployments.services.request_retention import keep_bodies
keep_bodies(hours={hours}, user=None)
"""
BODIES = """
import json
from deployments.models import KeptBody
print("BODIES", json.dumps(list(KeptBody.objects.values("asked", "answered"))))
"""


def bodies(served: Served) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(served.shell(BODIES).split("BODIES ")[1])
    return found


def test_bodies_are_kept_from_the_moment_on_that_it_is_wanted(
    watched: FakeEngine, served: Served
) -> None:
    with asked(served, "writes_with_drafts") as answer:
        answer.read()
    assert not bodies(served)
    served.shell(KEEP.format(hours=1))
    with asked(served, "writes_with_drafts") as answer:
        answer.read()
    [kept] = wait_until(lambda: bodies(served), 20)
    assert "writes_with_drafts" in kept["asked"] and "word" in kept["answered"]
    served.shell(KEEP.format(hours=0))
    assert not bodies(served)
