"""The gateway before external servers: their own name and key, nothing followed, no
page passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from chat import services as chat_services
from chat.models import Message
from deployments.gateway.directory import forget_table, read_table
from deployments.gateway.external import refuse_own
from deployments.gateway.relay import open_answer
from deployments.models import Deployment, Instance, Measurement
from deployments.services import servers
from deployments.services.discovery import local_host
from omni.errors import OmniError
from tests.chat.conftest import Opener, open_page  # noqa: F401 (a fixture)
from tests.fakes.external_server import MODELS, Answer, FakeExternalServer

pytestmark = pytest.mark.django_db(transaction=True)
CHAT = "/v1/chat/completions"
KEY = "key-of-somebody-else"
ASKED: dict[str, Any] = {
    "model": "remote",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
}


def event(**fields: Any) -> bytes:
    # As servers built on sse-starlette end their lines.
    return b"data: " + json.dumps(fields).encode() + b"\r\n\r\n"


STREAM: Answer = (
    200,
    "text/event-stream",
    event(choices=[{"delta": {"role": "assistant", "content": "Good "}}])
    + event(choices=[{"delta": {"content": "day."}}])
    + event(choices=[{"delta": {}, "finish_reason": "stop"}])
    + event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2})
    + b"data: [DONE]\r\n\r\n",
)


@pytest.fixture
def external() -> Iterator[FakeExternalServer]:
    running = FakeExternalServer({"/v1/models": MODELS, CHAT: STREAM})
    yield running
    running.close()


@pytest.fixture
def remote(external: FakeExternalServer) -> Deployment:
    """Offered and ready, as the agent would have written it."""
    engine = servers.server_add(
        host=local_host(), name="other", address=external.address, key=KEY
    )
    made = servers.model_offer(engine=engine, model="org/Big-1", name="remote")
    Instance.objects.create(
        host=engine.host,
        deployment=made,
        role="model",
        state="ready",
        address=engine.path,
        generation=made.generation,
    )
    forget_table()
    external.seen.clear()
    return made


async def answered(body: dict[str, Any], path: str = CHAT) -> bytes:
    async with open_answer(path, body) as upstream:
        return b"".join([part async for part in upstream.events()])


async def test_a_request_goes_out_under_the_servers_own_name_and_key(
    remote: Deployment, external: FakeExternalServer
) -> None:
    body = await answered(
        {**ASKED, "temperature": 0.5, "chat_parser": "x", "n_discard": -1}
    )
    assert body == STREAM[2]
    ((path, headers, sent),) = external.seen
    assert (path, headers["authorization"]) == (CHAT, f"Bearer {KEY}")
    assert settings.OMNI_HOME.secret("engine") not in json.dumps([headers, sent])
    assert sent == {**ASKED, "model": "org/Big-1", "temperature": 0.5}


async def test_what_only_llama_server_knows_is_left_out_and_named(
    remote: Deployment, external: FakeExternalServer
) -> None:
    async with open_answer(
        CHAT, {**ASKED, "timings_per_token": True, "return_progress": True}
    ) as upstream:
        assert upstream.dropped == ["return_progress", "timings_per_token"]
    assert not {"timings_per_token", "return_progress"} & set(external.seen[-1][2])


async def test_external_llama_server_is_asked_for_its_timings(
    remote: Deployment, external: FakeExternalServer
) -> None:
    remote.engine.build = "llamacpp"
    await remote.engine.asave()
    forget_table()
    async with open_answer(CHAT, {**ASKED, "timings_per_token": True}) as upstream:
        assert upstream.dropped == []
    assert external.seen[-1][2]["timings_per_token"] is True


async def test_a_server_without_a_key_gets_none(
    remote: Deployment, external: FakeExternalServer
) -> None:
    await _in_thread(servers.server_set_key, engine=remote.engine, key="")
    external.seen.clear()
    await answered(ASKED)
    assert "authorization" not in external.seen[-1][1]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
async def test_what_a_server_does_not_have_is_said_with_its_name(
    remote: Deployment, external: FakeExternalServer, path: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(OmniError, match=f"'remote' has no {path}") as refused:
        await answered({"model": "remote", **fields}, path)
    assert refused.value.code == "endpoint_missing"
    external.answers[path] = (200, "application/json", b'{"id": "x"}')
    assert await answered({"model": "remote", **fields}, path) == b""


async def _in_thread(call: Any, **arguments: Any) -> Any:
    from asgiref.sync import sync_to_async

    return await sync_to_async(call)(**arguments)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, "application/json", b"{}"), "refused the key it was given"),
        ((403, "text/plain", b""), "refused the key it was given"),
        ((200, "text/html", b"<script>alert(1)</script>"), "neither JSON nor events"),
        ((404, "text/html", b"no such page"), "neither JSON nor events"),
    ],
)
async def test_answers_that_are_not_for_the_client(
    remote: Deployment, external: FakeExternalServer, answer: Answer, says: str
) -> None:
    external.answers[CHAT] = answer
    with pytest.raises(OmniError, match=says) as refused:
        await answered(ASKED)
    assert (
        refused.value.code == "engine_refused"
        and refused.value.fix
        and KEY not in str(refused.value)
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed(
    remote: Deployment, external: FakeExternalServer, status: int
) -> None:
    thief = FakeExternalServer({CHAT: STREAM})
    external.answers[CHAT] = (status, f"{thief.address}{CHAT}", b"")
    with pytest.raises(OmniError, match="follows nobody"):
        await answered(ASKED)
    assert thief.seen == []
    thief.close()


async def test_a_panel_knows_a_request_of_its_own(
    remote: Deployment, external: FakeExternalServer
) -> None:
    """Its own address as that of an external server would send a request round and round."""
    await answered(ASKED)
    sent = [
        (name.encode(), value.encode()) for name, value in external.seen[-1][1].items()
    ]
    with pytest.raises(OmniError, match="its own address"):
        refuse_own(sent)
    refuse_own([(b"x-omni-from", b"another panel"), (b"accept", b"*/*")])


async def test_the_servers_own_error_is_passed_on(
    remote: Deployment, external: FakeExternalServer
) -> None:
    external.answers[CHAT] = (
        400,
        "application/json",
        b'{"error":{"message":"too long"}}',
    )
    async with open_answer(CHAT, ASKED) as upstream:
        assert (upstream.status, await upstream.body()) == (
            400,
            b'{"error":{"message":"too long"}}',
        )


def test_stop_holds_at_once(remote: Deployment) -> None:
    assert read_table().deployments["remote"].is_ready
    Deployment.objects.update(desired="stopped")
    assert not read_table().deployments["remote"].is_ready


async def test_chat_shows_what_is_known_and_says_not_available_for_the_rest(
    remote: Deployment,
    operator_user: User,
    operator: Client,
    open_page: Opener,  # noqa: F811 (the fixture)
) -> None:
    made = await _in_thread(
        chat_services.conversation_create, owner=operator_user, deployment=remote
    )
    page = await open_page(operator, made.pk)
    await page.send("send", text="Hi")
    assert await page.ended() == "done"
    kept = await Message.objects.aget(pk=await page.answer())
    assert (kept.content, kept.deployment_name, kept.finish_reason) == (
        "Good day.",
        "remote",
        "stop",
    )
    assert (
        kept.ttft_ms
        and kept.duration_ms
        and kept.prefill_tps is None
        and kept.timings
        == {"omni_energy": {"why": "What its server draws is not known here."}}
    )
    assert (kept.prompt_tokens, kept.completion_tokens) == (5, 2)
    assert "First token" in page.html[kept.pk]
    assert not await Measurement.objects.aexists()


async def test_two_lanes_compare_what_is_known_of_them(
    remote: Deployment,
    operator_user: User,
    operator: Client,
    open_page: Opener,  # noqa: F811 (the fixture)
) -> None:
    second = await _in_thread(
        servers.model_offer, engine=remote.engine, model="org/Big-1", name="second"
    )
    await Instance.objects.acreate(
        host=remote.host,
        deployment=second,
        role="model",
        state="ready",
        address=remote.engine.path,
    )
    forget_table()
    made = await _in_thread(
        chat_services.conversation_create,
        owner=operator_user,
        deployment=remote,
        beside=[second],
    )
    page = await open_page(operator, made.pk)
    await page.send("send", text="Hi")
    await page.until(lambda: len(page.states) == 2, "not both lanes answered")
    assert set(page.states.values()) == {"done"}
    shown = await _in_thread(operator.get, path=f"/chat/{made.pk}/")
    text = shown.content.decode()
    assert (
        shown.status_code == 200
        and text.count("Good day.") >= 2
        and text.count("First token") == 2
    )


async def test_a_stream_that_is_no_json_fails_the_answer_and_nothing_else(
    remote: Deployment,
    external: FakeExternalServer,
    operator_user: User,
    operator: Client,
    open_page: Opener,  # noqa: F811 (the fixture)
) -> None:
    external.answers[CHAT] = (200, "text/event-stream", b"data: {nonsense\r\n\r\n")
    made = await _in_thread(
        chat_services.conversation_create, owner=operator_user, deployment=remote
    )
    page = await open_page(operator, made.pk)
    await page.send("send", text="Hi")
    assert await page.ended() == "failed"
    kept = await Message.objects.aget(role="assistant")
    assert "no event" in kept.error
