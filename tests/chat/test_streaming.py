"""A conversation over its socket, with the real engine: streaming, stopping, reloading, several
pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from chat import generation, services
from chat.models import Conversation, Message
from deployments.gateway.directory import forget_table
from deployments.models import Instance
from omni.errors import OmniError
from tests.chat.conftest import Opener
from tests.chat.page import Page
from tests.gateway.engine import RealEngine, make_deployment
from tests.gateway.fake_engine import FakeEngine

pytestmark = [pytest.mark.real, pytest.mark.django_db(transaction=True)]
LONG = "Count from one to five hundred, one number per line."
in_database = sync_to_async


@pytest.fixture
def conversation(smol: Any, operator_user: User) -> Conversation:
    made = services.conversation_create(owner=operator_user, deployment=smol)
    Conversation.objects.filter(pk=made.pk).update(
        settings={"max_tokens": 700, "temperature": 0}
    )
    return made


@pytest.fixture
def short(conversation: Conversation) -> Conversation:
    Conversation.objects.filter(pk=conversation.pk).update(
        settings={"max_tokens": 12, "temperature": 0}
    )
    return conversation


async def stored(message: int) -> Message:
    return await Message.objects.aget(pk=message)


async def test_an_answer_comes_in_many_pieces_without_gaps_and_is_kept(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    await Conversation.objects.filter(pk=conversation.pk).aupdate(
        settings={"max_tokens": 80, "temperature": 0}
    )
    page = await open_page(operator, conversation.pk)
    await page.send("send", text=LONG)
    assert await page.ended() == "done"
    (message,) = page.text
    kept = await stored(message)
    assert page.text[message] == kept.content != ""
    assert page.gaps == 0 and page.deltas >= 3
    assert kept.state == "done" and kept.finish_reason in ("stop", "length")
    assert f'data-message="{message}"' in page.html[message]


async def test_an_answer_that_waits_for_a_slot_tells_its_place(
    transactional_db: None, operator_user: User, operator: Client, open_page: Opener
) -> None:
    fake = FakeEngine(always="waits_in_the_queue")
    deployment = await in_database(make_deployment)(
        "slow", fake.port, settings={"parallel": 1}
    )
    forget_table()
    pages = []
    for _ in range(2):
        made = await in_database(services.conversation_create)(
            owner=operator_user, deployment=deployment
        )
        pages.append(await open_page(operator, made.pk))
        await pages[-1].send("send", text="Say hello.")
        await pages[-1].until(
            lambda: fake.open_requests == len(pages), "the engine got no request"
        )
    await pages[1].until(
        lambda: "Waiting: place 1 in the queue of slow…" in pages[1].doing,
        "it does not tell its place",
    )
    again = await open_page(operator, made.pk)
    await again.until(
        lambda: "Waiting: place 1 in the queue of slow…" in again.doing,
        "a page that comes later is not told",
    )
    assert again.live[-1]["counting_ms"] > 0
    fake.ending.set()
    assert [await page.ended() for page in pages] == ["done", "done"]
    fake.close()


async def test_half_a_character_is_replaced_and_the_rest_is_kept(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say \ud800hello.\0")
    assert await page.ended() == "done"
    assert (
        await Message.objects.filter(
            role="user", content="Say \ufffdhello.\ufffd"
        ).acount()
        == 1
    )


async def test_a_refusal_with_half_a_character_ends_the_answer(
    short: Conversation,
    operator: Client,
    open_page: Opener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an engine or a server says of its own cannot always be written; the next question is
    answered."""

    def refuses(*_: object) -> None:
        raise OmniError("engine_refused", "half \ud800 and \0")

    page = await open_page(operator, short.pk)
    monkeypatch.setattr(generation, "open_answer", refuses)
    await page.send("send", text="Say hello.")
    assert await page.ended() == "failed"
    kept = await Message.objects.aget(role="assistant")
    assert kept.error.startswith("half \ufffd and \ufffd")


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 200_000,
        '{"type":' * 50_000,
        '{"type": "stop", "message": %s}' % ("9" * 4000),
    ],
)
async def test_hostile_json_is_an_error_and_the_socket_stays_open(
    short: Conversation, operator: Client, open_page: Opener, raw: str
) -> None:
    page = await open_page(operator, short.pk)
    await page.send_raw(raw)
    await page.send("send", text="Say hello.")
    assert await page.ended() == "done"


async def test_a_question_that_was_too_long_is_not_sent_along_with_the_next(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="word " * 3000)
    assert await page.ended() == "failed"
    (too_long,) = page.states
    await page.send("send", text="hi")
    await page.until(
        lambda: len(page.states) == 2, "the second question was not answered"
    )
    (second,) = set(page.states) - {too_long}
    assert (
        page.states[second] == "done"
        and ((await stored(second)).prompt_tokens or 0) < 200
    )


async def test_figures_are_the_engines_own(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say hello.")
    await page.ended()
    kept = await stored(await page.answer())
    assert kept.completion_tokens == kept.timings["predicted_n"]
    assert kept.prompt_tokens == kept.timings["prompt_n"] + kept.timings["cache_n"]
    assert kept.cached_tokens == kept.timings["cache_n"]
    assert (
        kept.ttft_ms
        and kept.duration_ms
        and kept.timings["prompt_ms"] <= kept.ttft_ms < kept.duration_ms
    )
    assert kept.decode_tps and "tokens/s" in page.html[kept.pk]


async def test_stop_frees_the_slot_and_keeps_the_text(
    conversation: Conversation, operator: Client, open_page: Opener, engine: RealEngine
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send("send", text=LONG)
    message = await page.answer()
    await page.send("stop")
    assert await page.ended(message) == "stopped"
    while await in_database(engine.busy)():
        await asyncio.sleep(0.01)
    kept = await stored(message)
    assert kept.content == page.text[message] != ""
    assert kept.completion_tokens, "a stopped answer has figures too"


async def test_stop_before_the_first_token_ends_as_stopped(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send("send", text="word " * 700)
    await page.until(lambda: page.changes, "the question was not taken")
    await page.send("stop")
    assert await page.ended() == "stopped"


async def test_a_reload_in_the_middle_shows_the_whole_answer_once(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    first = await open_page(operator, conversation.pk)
    await first.send("send", text=LONG)
    message = await first.answer()
    await first.until(lambda: len(first.text[message]) > 25, "the answer did not grow")
    await first.close()
    reloaded = await open_page(operator, conversation.pk)
    await reloaded.until(
        lambda: len(reloaded.text[message]) > 70, "nothing more came after the reload"
    )
    await reloaded.send("stop")
    await reloaded.ended(message)
    assert reloaded.gaps == 0
    assert reloaded.text[message] == (await stored(message)).content


async def test_an_answer_is_finished_when_nobody_looks(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say hello.")
    message = await page.answer()
    await page.close()
    while generation.any_running():
        await asyncio.sleep(0.02)
    assert (await stored(message)).state == "done"


async def test_text_is_saved_while_it_streams(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send("send", text=LONG)
    message = await page.answer()
    while not (kept := await stored(message)).content:
        await asyncio.sleep(0.05)
    assert kept.state == "streaming"


async def test_two_pages_show_the_same_and_either_can_stop(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    one, other = [await open_page(operator, conversation.pk) for _ in range(2)]
    await one.send("send", text=LONG)
    message = await other.answer()
    assert other.changes == 1, "the other page was not told of the new question"
    await other.until(lambda: len(other.text[message]) > 40, "the answer did not grow")
    await other.send("stop")
    await asyncio.gather(one.ended(message), other.ended(message))
    assert one.text == other.text
    assert one.html == other.html


async def test_the_thread_shows_the_question_sent_from_the_other_page(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="A question with <b>markup</b>.")
    await page.until(lambda: page.changes, "the question was not taken")
    answer = await in_database(operator.get)(reverse("chat:thread", args=[short.pk]))
    assert "A question with &lt;b&gt;markup&lt;/b&gt;." in answer.content.decode()
    assert 'data-state="streaming"' in answer.content.decode()
    await page.ended()


async def test_a_page_that_missed_something_gets_the_rest(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send("send", text=LONG)
    message = await page.answer()
    await page.until(lambda: len(page.text[message]) > 40, "the answer did not grow")
    page.text[message] = page.text[message][:10]
    await page.send("resync", message=message, have=10)
    await page.until(
        lambda: len(page.text[message]) > 40, "the missing text did not come"
    )
    await page.send("stop")
    await page.ended(message)
    # Deltas that came before the answer to resync are counted as gaps and were left out.
    assert page.text[message] == (await stored(message)).content


async def test_a_late_resync_gets_the_finished_message(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say hello.")
    message = await page.answer()
    await page.ended(message)
    page.states.clear()
    await page.send("resync", message=message, have=3)
    assert await page.ended(message) == "done"
    assert "data-figures" in page.html[message]


async def test_regenerating_keeps_the_earlier_answer_and_one_can_go_back(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say hello.")
    first = await page.answer()
    await page.ended(first)
    page.states.clear()
    await page.send("again", message=first)
    await page.ended()
    (second,) = page.states
    assert second != first
    assert "2/2" in page.html[second]
    assert [(await stored(m)).is_active for m in (first, second)] == [False, True]
    changes = page.changes
    await page.send("select", message=first)
    await page.until(lambda: page.changes > changes, "the choice was not told")
    assert [(await stored(m)).is_active for m in (first, second)] == [True, False]


async def test_the_last_question_can_be_asked_in_other_words(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="First words.")
    await page.ended()
    question = await Message.objects.aget(role="user")
    page.states.clear()
    await page.send("edit", message=question.pk, text="Other words.")
    await page.ended()
    (answer,) = page.states
    body = await in_database(services.request_for)(answer)
    assert body["messages"] == [{"role": "user", "content": "Other words."}]
    assert await Message.objects.filter(role="user").acount() == 2


async def test_two_questions_at_once_give_one_answer_and_one_refusal(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    one, other = [await open_page(operator, conversation.pk) for _ in range(2)]
    await asyncio.gather(one.send("send", text=LONG), other.send("send", text=LONG))
    await one.until(lambda: one.changes, "no question was taken")
    loser = one if await _has_error(one) else other
    await loser.until(lambda: loser.errors, "nobody was refused")
    assert loser.errors[0]["code"] == "still_answering"
    assert await Message.objects.filter(role="assistant").acount() == 1


async def _has_error(page: Page) -> bool:
    for _ in range(5):
        await page._take(0.05)
    return bool(page.errors)


async def test_a_deployment_that_is_not_ready_fails_with_the_cause_and_can_be_retried(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    await Instance.objects.aupdate(state="failed", error="out of memory")
    forget_table()
    page = await open_page(operator, short.pk)
    await page.send("send", text="Say hello.")
    assert await page.ended() == "failed"
    (message,) = page.states
    assert "out of memory" in (await stored(message)).error
    assert "out of memory" in page.html[message] and "Retry" in page.html[message]
    await Instance.objects.aupdate(state="ready", error="")
    forget_table()
    page.states.clear()
    await page.send("again", message=message)
    assert await page.ended() == "done"


async def test_an_engine_that_dies_leaves_the_text_and_a_cause(
    operator: Client,
    open_page: Opener,
    operator_user: User,
    tmp_path_factory: pytest.TempPathFactory,
    smol: Any,
) -> None:
    from django.conf import settings

    doomed = await in_database(RealEngine)(
        tmp_path_factory.mktemp("doomed"), settings.OMNI_HOME.secret_path("engine")
    )
    deployment = await in_database(make_deployment)("doomed", doomed.port)
    forget_table()
    made = await in_database(services.conversation_create)(
        owner=operator_user, deployment=deployment
    )
    await Conversation.objects.filter(pk=made.pk).aupdate(
        settings={"max_tokens": 700, "temperature": 0}
    )
    page = await open_page(operator, made.pk)
    await page.send("send", text=LONG)
    message = await page.answer()
    doomed.kill()
    assert await page.ended(message) == "failed"
    kept = await stored(message)
    assert kept.content and "broke off" in kept.error


async def test_a_server_that_goes_saves_what_it_has(
    conversation: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, conversation.pk)
    await page.send("send", text=LONG)
    message = await page.answer()
    await generation.interrupt_all()
    kept = await stored(message)
    assert kept.state == "interrupted" and kept.content and kept.error
    assert not generation.any_running()


async def test_earlier_turns_are_sent_along(
    short: Conversation, operator: Client, open_page: Opener
) -> None:
    page = await open_page(operator, short.pk)
    await page.send("send", text="My name is Ada.")
    await page.ended()
    first = await stored(await page.answer())
    page.states.clear()
    await page.send("send", text="And now?")
    await page.ended()
    (second,) = page.states
    body = await in_database(services.request_for)(second)
    assert [m["content"] for m in body["messages"]] == [
        "My name is Ada.",
        first.content,
        "And now?",
    ]
    assert (await stored(second)).cached_tokens, (
        "the engine did not recognise the beginning of the conversation"
    )
