"""The telemetry socket: the last minutes at once, then the newest frame, to whom is logged in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User

from gpus.consumers import TelemetryConsumer
from gpus.recent import RecentWriter
from omni.broadcast import publish_async
from omni.events import telemetry_group
from omni.sockets import NOT_LOGGED_IN
from tests.page_socket import closed_with, members, page_socket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("empty_groups"),
]
PATH = "/ws/telemetry/"
GROUP = telemetry_group(settings.OMNI_HOST_NAME)


@pytest.fixture(autouse=True)
def writer() -> RecentWriter:
    writer = RecentWriter(settings.OMNI_HOST_NAME)
    redis.Redis.from_url(settings.CHANNEL_REDIS_URL).delete(writer.points, writer.frame)
    return writer


def frame(at: int) -> dict[str, Any]:
    return {
        "type": "telemetry.frame",
        "sequence": at,
        "frame": json.dumps({"type": "frame", "at": at}),
    }


async def test_a_stranger_is_told_to_log_in() -> None:
    async with page_socket(PATH, None) as caller:
        assert await closed_with(caller) == NOT_LOGGED_IN


async def test_who_opens_the_page_sees_the_last_minutes_at_once(
    viewer_user: User, writer: RecentWriter
) -> None:
    for at in (1, 2, 3):
        writer.add(
            json.dumps({"type": "frame", "at": at}),
            json.dumps([at, 5.0, 100, {"RPC0": [1, 2, None, None]}]),
        )
    async with page_socket(PATH, viewer_user) as caller:
        history = await caller.receive_json_from(5)
    assert history["type"] == "history"
    assert [point[0] for point in history["points"]] == [1, 2, 3]
    assert history["points"][0][3] == {"RPC0": [1, 2, None, None]}
    assert history["frame"] == {"type": "frame", "at": 3}


async def test_without_a_sampler_the_history_is_empty(viewer_user: User) -> None:
    async with page_socket(PATH, viewer_user) as caller:
        assert await caller.receive_json_from(5) == {
            "type": "history",
            "points": [],
            "frame": None,
        }


async def test_frames_reach_every_viewer(viewer_user: User, admin_user: User) -> None:
    async with (
        page_socket(PATH, viewer_user) as one,
        page_socket(PATH, admin_user) as two,
    ):
        for caller in (one, two):
            await caller.receive_json_from(5)
        assert await publish_async(GROUP, frame(7))
        assert [(await caller.receive_json_from(5))["at"] for caller in (one, two)] == [
            7,
            7,
        ]


async def test_a_viewer_that_reads_slowly_gets_the_newest_frame_and_no_old_ones() -> (
    None
):
    sent: list[str] = []
    is_free = asyncio.Event()
    consumer = TelemetryConsumer()
    consumer.newest, consumer.has_news = "", asyncio.Event()

    async def send(text_data: str) -> None:
        sent.append(text_data)
        await is_free.wait()

    consumer.send = send  # type: ignore[method-assign,assignment]
    sending = asyncio.create_task(consumer._send())
    while not sent:
        await asyncio.sleep(0)
    for at in range(50):
        consumer.show(frame(at)["frame"])
    is_free.set()
    while len(sent) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    sending.cancel()
    assert [json.loads(text).get("at") for text in sent] == [None, 49]


async def test_nothing_a_viewer_says_disturbs(viewer_user: User) -> None:
    async with page_socket(PATH, viewer_user) as caller:
        await caller.receive_json_from(5)
        await caller.send_to(text_data="{ not json")
        await caller.send_to(bytes_data=b"\x00\xff")
        await publish_async(GROUP, frame(9))
        assert (await caller.receive_json_from(5))["at"] == 9


async def test_a_viewer_that_left_gets_nothing_more_sent(viewer_user: User) -> None:
    async with page_socket(PATH, viewer_user) as caller:
        await caller.receive_json_from(5)
    await members(GROUP, 0)


def test_only_the_last_quarter_of_an_hour_is_kept(writer: RecentWriter) -> None:
    writer.limit = 10
    for at in range(25):
        writer.add("{}", json.dumps([at]))
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)
    assert [
        json.loads(point)[0] for point in client.lrange(writer.points, 0, -1)
    ] == list(range(15, 25))  # type: ignore[union-attr]


async def test_viewers_of_one_process_are_one_listener(
    viewer_user: User, admin_user: User
) -> None:
    async with (
        page_socket(PATH, viewer_user) as one,
        page_socket(PATH, admin_user) as two,
    ):
        for caller in (one, two):
            await caller.receive_json_from(5)
        await members(GROUP, 1)
    await members(GROUP, 0)


async def test_frames_come_again_after_the_broker_forgot_who_listens(
    viewer_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpus.frames.REJOIN_S", 0.1)
    async with page_socket(PATH, viewer_user) as caller:
        await caller.receive_json_from(5)
        redis.Redis.from_url(settings.CHANNEL_REDIS_URL).delete(f"omni:group:{GROUP}")
        await members(GROUP, 1)
        await publish_async(GROUP, frame(11))
        assert (await caller.receive_json_from(5))["at"] == 11
