"""Keys at the real gateway: scopes, limits over two processes, and a key that is revoked."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from django.conf import settings

from tests import postgres
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until

MAKE = """
from deployments.gateway.keys import create_key, prefix_of
from deployments.models import ApiKey
key = create_key({name!r})
ApiKey.objects.filter(prefix=prefix_of(key)).update(**{fields!r})
print("KEY", key)
"""
REVOKE = """
from deployments.models import ApiKey
ApiKey.objects.filter(name={!r}).update(revoked=True)
"""
# Twelve tokens of the prompt, thirty of the answer.
TOKENS = "writes_with_drafts"
TOKENS_LEFT = "x-ratelimit-remaining-tokens"


@pytest.fixture(scope="module")
def fake(served: Served) -> Iterator[FakeEngine]:
    """Behind `smol` and `other`, and route `public` to `smol`; with the broker of the tests."""
    engine, other = FakeEngine(), FakeEngine()
    served.extra_env = {"OMNI_BROKER_URL": settings.CHANNEL_REDIS_URL}
    served.prepare({"smol": engine.port, "other": other.port}, {"public": "smol"})
    served.start()
    yield engine
    for each in (engine, other):
        each.close()


@pytest.fixture(scope="module")
def second(served: Served, fake: FakeEngine) -> Iterator[Served]:
    """Another process of the same gateway."""
    beside = Served(served.home.root)
    beside.database, beside.extra_env = served.database, served.extra_env
    beside.start()
    yield beside
    beside.stop()


def key(served: Served, name: str, **fields: object) -> dict[str, str]:
    made = served.shell(MAKE.format(name=name, fields=fields))
    return {"authorization": f"Bearer {made.split('KEY ')[1].strip()}"}


def ask(
    served: Served, headers: dict[str, str], model: str = "smol", how: str = TOKENS
) -> httpx.Response:
    return served.post(question(how, model, stream=True), headers=headers)


def test_a_key_asks_for_what_its_scope_names(fake: FakeEngine, served: Served) -> None:
    headers = key(served, "scoped", allowed_names=["public"])
    models = httpx.get(f"{served.url}/v1/models", headers=headers).json()["data"]
    assert [each["id"] for each in models] == ["public"]
    assert ask(served, headers, "public").headers["x-omni-deployment"] == "smol"
    for model in ("smol", "other", "auto"):
        answer = ask(served, headers, model)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (403, "model_not_allowed")
        assert "It may ask for: public." in error["message"]
    url = f"{served.url}/v1/models/other"
    assert httpx.get(url, headers=headers).status_code == 404


def test_two_processes_keep_one_limit(
    fake: FakeEngine, served: Served, second: Served
) -> None:
    headers = key(served, "limited", requests_per_minute=3)
    wait_until(lambda: time.time() % 60 < 40, 25, "the minute is nearly over")
    answers = [ask(each, headers) for each in (served, second, served, second, served)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
    left = [each.headers["x-ratelimit-remaining-requests"] for each in answers]
    assert left == ["2", "1", "0", "0", "0"]
    refused = answers[-1]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    error = refused.json()["error"]
    assert (
        error["code"] == "rate_limit_exceeded" and error["type"] == "rate_limit_error"
    )
    assert "3 requests a minute" in error["message"]


def test_tokens_of_an_answer_count(
    fake: FakeEngine, served: Served, second: Served
) -> None:
    headers = key(served, "sparing", tokens_per_minute=80)
    wait_until(lambda: time.time() % 60 < 40, 25, "the minute is nearly over")
    assert ask(served, headers).status_code == 200
    seen = [ask(second, headers) for _ in range(3)][-1]
    assert seen.status_code == 429 and "tokens a minute" in seen.text
    assert seen.headers["x-ratelimit-limit-tokens"] == "80"


def test_an_answer_that_its_client_breaks_off_counts_as_far_as_it_came(
    fake: FakeEngine, served: Served
) -> None:
    headers = key(served, "breaking off", tokens_per_minute=100_000)
    wait_until(lambda: time.time() % 60 < 40, 25, "the minute is nearly over")
    with httpx.stream(
        "POST",
        f"{served.url}/v1/chat/completions",
        json=question("floods", stream=True),
        headers=headers,
        timeout=60,
    ) as answer:
        came = 0
        for part in answer.iter_raw():
            came += part.count(b"\n\n")
            if came > 2000:
                break

    # Each of these costs 42 itself.
    left = [int(ask(served, headers).headers[TOKENS_LEFT]) for _ in range(10)]

    assert min(left) < 100_000 - 2000


def test_requests_at_a_time_count_until_their_answers_end(
    fake: FakeEngine, served: Served, second: Served
) -> None:
    headers = key(served, "one at a time", concurrent_requests=1)
    with httpx.stream(
        "POST",
        f"{served.url}/v1/chat/completions",
        json=question("begins_and_waits", stream=True),
        headers=headers,
        timeout=60,
    ) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        refused = ask(second, headers)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "2"
        assert "1 request running at a time" in refused.json()["error"]["message"]
    wait_until(
        lambda: ask(second, headers).status_code == 200, 10, "its place is not free"
    )


def test_a_revoked_key_ends_its_open_stream(fake: FakeEngine, served: Served) -> None:
    headers = key(served, "to be revoked")
    began, said = threading.Event(), list[bytes]()

    def read() -> None:
        with httpx.stream(
            "POST",
            f"{served.url}/v1/chat/completions",
            json=question("begins_and_waits", stream=True),
            headers=headers,
            timeout=60,
        ) as answer:
            for chunk in answer.iter_raw():
                said.append(chunk)
                began.set()

    reading = threading.Thread(target=read)
    reading.start()
    assert began.wait(30)
    served.shell(REVOKE.format("to be revoked"))
    reading.join(30)
    assert not reading.is_alive() and b"invalid_api_key" in b"".join(said)
    assert ask(served, headers).status_code == 401


@pytest.mark.skipif(bool(postgres.URL), reason="takes a table of SQLite away")
def test_keys_are_known_while_the_database_is_away(
    fake: FakeEngine, served: Served
) -> None:
    headers = key(served, "known")

    def goes_on() -> bool:
        return ask(served, headers).status_code == 200

    assert goes_on()
    database = sqlite3.connect(served.home.database, timeout=30)
    database.execute("ALTER TABLE deployments_apikey RENAME TO taken_away")
    try:
        wait_until(
            lambda: goes_on() and "API keys could not be" in served.log.read_text(), 10
        )
        assert all(goes_on() for _ in range(3))
        unknown = ask(served, {"authorization": "Bearer nobody.knows"})
        assert unknown.status_code == 503
        assert unknown.json()["error"]["code"] == "database_unavailable"
    finally:
        database.execute("ALTER TABLE taken_away RENAME TO deployments_apikey")
        database.close()
    assert goes_on()
