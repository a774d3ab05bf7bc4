"""One question to several lanes: their streams run side by side and none disturbs another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from chat import generation, services
from chat.lanes import lane_add, lane_remove
from chat.models import Ballot, Conversation, Lane, Message
from chat.voting import blind_switch
from deployments.gateway.directory import forget_table
from deployments.models import Binding, Instance
from tests.chat.conftest import Opener
from tests.chat.page import Page
from tests.gateway.engine import make_deployment
from tests.gateway.fake_engine import FakeEngine
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db(transaction=True)
in_database = sync_to_async
HANDED_OVER = "prefill_ms=12,save_ms=3,restore_ms=2,bytes=1048576"
Start = Callable[..., Conversation]


@pytest.fixture
def start(transactional_db: None, operator_user: User) -> Iterator[Start]:
    """A conversation whose lanes a, b … are answered by engines that behave so."""
    engines: list[FakeEngine] = []

    def conversation(
        *behaviours: str, headers: dict[str, str] | None = None
    ) -> Conversation:
        engines.extend(FakeEngine(behaviour, headers) for behaviour in behaviours)
        made = [
            make_deployment("abcd"[n], engine.port) for n, engine in enumerate(engines)
        ]
        for n, deployment in enumerate(made):
            deployment.bindings.update(devices=[f"CUDA{n}"])
        forget_table()
        return services.conversation_create(
            owner=operator_user, deployment=made[0], beside=made[1:]
        )

    yield conversation
    for engine in engines:
        engine.close()


async def answers(conversation: Conversation) -> dict[str, Message]:
    """The newest of each lane, by the lane's name."""
    found = conversation.messages.filter(role="assistant").order_by("id")
    return {message.deployment_name: message async for message in found}


async def asked(page: Page, conversation: Conversation) -> dict[str, int]:
    """The answers to come, by the lane's name."""
    await page.send("send", text="Hello")
    await page.until(lambda: page.changes, "the question was not taken")
    return {name: message.pk for name, message in (await answers(conversation)).items()}


async def test_all_lanes_stream_at_the_same_time(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "takes_its_time")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.text) == 2, "not both lanes began")
    assert not page.states, "one lane waited for the other to end"
    await page.until(lambda: len(page.states) == 2, "not both lanes answered")
    assert set(page.states.values()) == {"done"} and page.gaps == 0
    kept = await answers(conversation)
    assert {name: page.text[pk] for name, pk in ids.items()} == {
        name: kept[name].content for name in ids
    }
    assert all(message.content == "word " * 10 for message in kept.values())


async def test_a_lane_that_fails_does_not_disturb_the_other(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "breaks_off")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.states) == 2, "not both lanes ended")
    assert (page.states[ids["a"]], page.states[ids["b"]]) == ("done", "failed")
    kept = await answers(conversation)
    assert kept["a"].content == "word " * 10 and not kept["a"].error
    assert kept["b"].content == "word word " and "broke off" in kept["b"].error


async def test_a_lane_that_is_not_ready_fails_alone(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "takes_its_time")
    await Instance.objects.filter(deployment__name="b").aupdate(
        state="failed", error="out of memory"
    )
    forget_table()
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.states) == 2, "not both lanes ended")
    assert page.states[ids["a"]] == "done"
    assert "out of memory" in page.html[ids["b"]] and "Retry" in page.html[ids["b"]]


async def test_one_lane_is_stopped_and_the_other_goes_on(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "begins_and_waits")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.text) == 2, "not both lanes began")
    await page.send("stop", message=ids["b"])
    assert await page.ended() == "stopped"
    assert list(page.states) == [ids["b"]]
    assert await page.ended(ids["a"]) == "done"


async def test_stop_without_a_message_stops_all(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)(
        "begins_and_waits", "begins_and_waits", "begins_and_waits"
    )
    page = await open_page(operator, conversation.pk)
    await asked(page, conversation)
    await page.until(lambda: len(page.text) == 3, "not all lanes began")
    await page.send("stop")
    await page.until(lambda: len(page.states) == 3, "not all lanes ended")
    assert set(page.states.values()) == {"stopped"}
    assert not generation.any_running()


async def test_others_answers_cannot_be_stopped(
    start: Start, operator: Client, admin: Client, admin_user: User, open_page: Opener
) -> None:
    conversation = await in_database(start)("begins_and_waits", "begins_and_waits")
    other = await Conversation.objects.acreate(owner=admin_user)
    page, stranger = (
        await open_page(operator, conversation.pk),
        await open_page(admin, other.pk),
    )
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.text) == 2, "not both lanes began")
    await stranger.send("stop", message=ids["a"])
    await asyncio.sleep(0.2)
    assert len(generation.running_in(conversation.pk)) == 2


async def test_one_lane_answers_again_while_another_still_writes(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("writes_with_drafts", "begins_and_waits")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    assert await page.ended(ids["a"]) == "done"
    page.states.clear()
    await page.send("again", message=ids["a"])
    assert await page.ended() == "done"
    (second,) = page.states
    assert second not in ids.values() and "2/2" in page.html[second]
    await page.send("again", message=ids["b"])
    await page.until(
        lambda: page.errors, "an answer that is being written was begun again"
    )
    assert page.errors[0]["code"] == "still_answering"


async def test_a_reload_shows_every_lane_whole_and_once(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "takes_its_time")
    first = await open_page(operator, conversation.pk)
    ids = await asked(first, conversation)
    await first.until(lambda: len(first.text) == 2, "not both lanes began")
    await first.close()
    page = await open_page(operator, conversation.pk)
    await page.until(lambda: len(page.states) == 2, "not both lanes ended")
    assert page.gaps == 0
    assert [page.text[pk] for pk in ids.values()] == ["word " * 10] * 2


async def test_figures_of_each_lane_with_drafts_and_hand_over(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)(
        "writes_with_drafts",
        "writes_with_drafts",
        headers={"x-omni-handover": HANDED_OVER},
    )
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.states) == 2, "not both lanes ended")
    message = (await answers(conversation))["a"]
    assert message.timings["omni_handover"] == {
        "prefill_ms": 12,
        "save_ms": 3,
        "restore_ms": 2,
        "bytes": 1 << 20,
    }
    assert message.timings["draft_n"] == 60 and message.prefill_tps == pytest.approx(
        100
    )
    shown = squeezed(page.html[ids["a"]])
    for text in (
        "30 of 60 drafts accepted (50 %)",
        "KV handed over in 5 ms, 1 MiB; prompt read in 12 ms",
        "3 cached",
    ):
        assert text in shown
    told = page.figures()
    counts = [int(text.removesuffix(" tokens")) for text in told["tokens"]]
    assert counts and max(counts) <= 30, "chunks were counted, not tokens"
    assert all("tokens/s" in text for text in told["decode"])
    assert told["drafts"][-1].endswith("drafts accepted (50 %)")
    assert set(told["kv_transfer"]) == {
        "KV handed over in 5 ms, 1 MiB; prompt read in 12 ms"
    }


async def test_who_was_ahead_is_said_once_all_have_ended(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("writes_with_drafts", "takes_its_time")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.ended(ids["a"])
    assert "Fastest decode" not in page.compared[ids["a"]]
    await page.ended(ids["b"])
    thread = await in_database(operator.get)(
        reverse("chat:thread", args=[conversation.pk])
    )
    assert (
        "First to answer" in page.compared[ids["b"]]
        and "First to answer" in thread.content.decode()
    )


async def test_lanes_that_shared_a_card_are_not_called_ahead_of_each_other(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("writes_with_drafts", "takes_its_time")
    await Binding.objects.aupdate(devices=["CUDA0"])
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    for name in ids:
        await page.ended(ids[name])
    said = "".join(page.compared.values())
    assert "a and b shared CUDA0" in said and "First to answer" not in said


async def test_a_lane_that_was_added_answers_the_last_question_when_asked(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("writes_with_drafts", "writes_with_drafts")
    await Lane.objects.filter(conversation=conversation, deployment_name="b").adelete()
    page = await open_page(operator, conversation.pk)
    await asked(page, conversation)
    await page.ended()
    b = await Instance.objects.select_related("deployment").aget(deployment__name="b")
    lane = await in_database(lane_add)(conversation=conversation, target=b.deployment)
    page.states.clear()
    await page.send("fill", lane=lane.pk)
    assert await page.ended() == "done"
    await page.send("fill", lane=lane.pk)
    await page.until(lambda: page.errors, "it was asked twice")
    (second,) = page.states
    assert (await answers(conversation))["b"].pk == second


async def test_removing_a_lane_that_writes_ends_its_answer_only(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "begins_and_waits")
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: len(page.text) == 2, "not both lanes began")
    lane = await conversation.lanes.aget(position=1)
    response = await in_database(operator.post)(
        reverse("chat:lane-remove", args=[conversation.pk, lane.pk])
    )
    assert response.status_code == 302
    assert await page.ended(ids["a"]) == "done"
    assert page.html[ids["b"]] == ""
    assert not generation.any_running() and set(await answers(conversation)) == {"a"}


async def test_a_lane_hears_its_own_answers_only(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "breaks_off")
    page = await open_page(operator, conversation.pk)
    await asked(page, conversation)
    await page.until(lambda: len(page.states) == 2, "not both lanes ended")
    for pk in await in_database(services.question_send)(
        conversation=conversation, text="And now?"
    ):
        message = await Message.objects.aget(pk=pk)
        body = await in_database(services.request_for)(pk)
        said = "word " * 10 if message.deployment_name == "a" else "word word "
        assert [m["content"] for m in body["messages"]] == ["Hello", said, "And now?"]


def test_positions_close_up_when_a_lane_goes(start: Start) -> None:
    conversation = start("takes_its_time", "takes_its_time", "takes_its_time")
    lane_remove(lane=conversation.lanes.get(position=0))
    assert list(conversation.lanes.values_list("position", "deployment_name")) == [
        (0, "b"),
        (1, "c"),
    ]


async def test_lanes_answer_one_after_the_other_where_that_is_wanted(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "takes_its_time")
    await Binding.objects.aupdate(devices=["CUDA0"])
    address = reverse("chat:in-turn", args=[conversation.pk])
    switched = await in_database(operator.post)(address, {"on": "yes"})
    assert switched.status_code == 302
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: ids["a"] in page.states, "the first lane did not end")
    assert ids["b"] not in page.text, "the second lane did not wait"
    assert "Waiting: the lane before it answers…" in page.doing
    await page.until(lambda: ids["b"] in page.states, "the second lane did not end")
    assert set(page.states.values()) == {"done"}
    kept = await answers(conversation)
    assert kept["a"].written_between and kept["b"].written_between
    assert kept["a"].written_between[1] <= kept["b"].written_between[0]
    said = page.compared[ids["b"]]
    assert "shared" not in said and "First to answer" in said


async def test_a_lane_that_waits_for_the_other_is_stopped_by_itself(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("begins_and_waits", "takes_its_time")
    await in_database(services.answer_in_turn)(conversation=conversation, on=True)
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    await page.until(lambda: ids["a"] in page.text, "the first lane did not begin")
    await page.send("stop", message=ids["b"])
    await page.until(lambda: ids["b"] in page.states, "it was not stopped")
    assert page.states == {ids["b"]: "stopped"}
    await page.send("stop")
    await page.until(lambda: ids["a"] in page.states, "the other was not stopped")
    assert not generation.any_running()


def test_what_lanes_share_is_said_above_them(start: Start, operator: Client) -> None:
    conversation = start("takes_its_time", "takes_its_time")
    address = reverse("chat:conversation", args=[conversation.pk])
    apart = operator.get(address).content.decode()
    assert "One after the other" not in apart
    Binding.objects.update(devices=["CUDA0"])
    together = squeezed(operator.get(address).content.decode())
    assert "a and b share CUDA0" in together and "One after the other" in together
    services.answer_in_turn(conversation=conversation, on=True)
    switched = squeezed(operator.get(address).content.decode())
    assert "Lanes answer one after the other" in switched


@pytest.mark.parametrize("behaviour", ["takes_its_time", "breaks_off"])
async def test_of_a_blind_turn_pages_hear_nothing_until_both_have_ended(
    start: Start, operator: Client, open_page: Opener, behaviour: str
) -> None:
    conversation = await in_database(start)("takes_its_time", behaviour)
    await in_database(blind_switch)(conversation=conversation, on=True)
    page = await open_page(operator, conversation.pk)
    ids = await asked(page, conversation)
    late = await open_page(operator, conversation.pk)
    for pk in ids.values():
        await late.send("resync", message=pk)
    await page.until(lambda: page.changes > 1, "the end was not told")
    kept = await answers(conversation)
    assert kept["a"].state == "done" and kept["b"].state in ("done", "failed")
    assert kept["a"].content == "word " * 10
    for one in (page, late):
        heard = (one.deltas, one.states, one.live, one.errors)
        assert heard == (0, {}, [], [])
    thread = await in_database(operator.get)(
        reverse("chat:thread", args=[conversation.pk])
    )
    assert ("data-vote" in thread.content.decode()) is (behaviour == "takes_its_time")


async def test_a_vote_over_the_socket_reveals_and_a_second_one_is_refused(
    start: Start, operator: Client, open_page: Opener
) -> None:
    conversation = await in_database(start)("takes_its_time", "takes_its_time")
    await in_database(blind_switch)(conversation=conversation, on=True)
    page = await open_page(operator, conversation.pk)
    await asked(page, conversation)
    await page.until(lambda: page.changes > 1, "the end was not told")
    question = await conversation.messages.aget(role="user")
    heard = page.changes
    await page.send("vote", message=question.pk, verdict="right")
    await page.until(lambda: page.changes > heard, "the vote was not told")
    await page.send("vote", message=question.pk, verdict="left")
    await page.until(lambda: page.errors, "a second vote was taken")
    assert page.errors[0]["code"] == "already_revealed"
    ballot = await Ballot.objects.aget(question=question)
    assert ballot.verdict == "right"
