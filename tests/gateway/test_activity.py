"""Requests that are open, what becomes of those whose client leaves, and what is kept of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from deployments.gateway.activity_link import ask_all
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served
from tests.gateway.vanishing import STAGES, vanish_all
from tests.helpers import cases, wait_until

# `loading` never gets ready, and `narrow` has one slot.
MORE = """
from tests.gateway.engine import make_deployment
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
    assert {row["deployment_name"] for row in found} == {
        model for model, _ in STAGES.values()
    }
