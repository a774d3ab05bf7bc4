"""The sockets of the deployment pages, through the panel's own ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User

from deployments.models import Deployment, Instance
from deployments.web.consumers import QUEUE_MESSAGES, LogConsumer
from omni.broadcast import publish_async
from omni.events import STATE_GROUP
from tests.page_socket import closed_with, members
from tests.page_socket import page_socket as socket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("empty_groups"),
]
STATE = "/ws/state/"
LOG = "/ws/deployments/small/log/model-0/"
DEVICE_LOG = "/ws/devices/CPU/log/"


@pytest.fixture
def log_of(deployment: Deployment, tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path = tmp_path / "small.log"
        path.touch()
        values = {"host": deployment.host, "log_path": str(path)}
        Instance.objects.update_or_create(
            deployment=deployment, role="model", ordinal=0, defaults=values
        )
        return path

    return make


@pytest.mark.parametrize("path", [STATE, LOG, DEVICE_LOG])
async def test_nobody_listens_without_log_in(deployment: Deployment, path: str) -> None:
    async with socket(path, None) as made:
        assert await closed_with(made) == 4401


@pytest.mark.parametrize("path", [STATE, LOG])
@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_a_page_from_elsewhere_is_refused(
    deployment: Deployment, viewer_user: User, path: str, origin: str
) -> None:
    async with socket(path, viewer_user, origin=origin) as made:
        assert not made.accepted  # type: ignore[attr-defined]


async def test_a_change_reaches_every_page(viewer_user: User) -> None:
    changed = {
        "type": "deployment.changed",
        "deployment": 3,
        "name": "small",
        "state": "ready",
    }
    async with socket(STATE, viewer_user) as one, socket(STATE, viewer_user) as two:
        await members(STATE_GROUP, 2)
        await publish_async(STATE_GROUP, changed)
        await publish_async(STATE_GROUP, {"type": "library.changed"})
        for made in (one, two):
            assert await made.receive_json_from(5) == changed
            assert await made.receive_json_from(5) == {"type": "library.changed"}


async def test_what_a_page_sends_is_ignored(viewer_user: User) -> None:
    async with socket(STATE, viewer_user) as made:
        await members(STATE_GROUP, 1)
        await made.send_json_to({"type": "deployment.changed", "state": "ready"})
        assert await made.receive_nothing(0.1)


async def text_until(made: WebsocketCommunicator, wanted: str) -> str:
    seen = ""
    while wanted not in seen:
        message = await made.receive_json_from(5)
        seen = message["text"] if message["type"] == "reset" else seen + message["text"]
    return seen


async def test_a_log_begins_with_its_last_lines_and_goes_on(
    log_of: Callable[[], Path], viewer_user: User
) -> None:
    path = await sync_to_async(log_of)()
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    async with socket(LOG, viewer_user) as made:
        first = await text_until(made, "line 999")
        assert "line 0\n" not in first and first.splitlines()[0] == "line 600"
        with path.open("a") as log:
            log.write("and on\n")
        assert "and on" in await text_until(made, "and on")


async def test_a_log_is_followed_across_rotation(
    log_of: Callable[[], Path], viewer_user: User
) -> None:
    path = await sync_to_async(log_of)()
    async with socket(LOG, viewer_user) as made:
        await text_until(made, "")
        with path.open("a") as log:
            log.write("before\n")
        await text_until(made, "before")
        with path.open("a") as log:
            log.write("at the end\n")
        path.rename(path.with_name(f"{path.name}.1"))
        path.write_text("after\n")
        seen = await text_until(made, "after")
        assert seen.index("at the end") < seen.index("after")
        assert "before" not in seen, "nothing is sent twice"


async def test_a_log_that_is_not_there_yet_is_waited_for(
    deployment: Deployment, log_of: Callable[[], Path], viewer_user: User
) -> None:
    async with socket(LOG, viewer_user) as made:
        assert await made.receive_nothing(0.1)
        path = await sync_to_async(log_of)()
        path.write_text("at last\n")
        await text_until(made, "at last")


async def test_a_log_of_nothing_is_refused(viewer_user: User) -> None:
    async with socket("/ws/deployments/nope/log/model-0/", viewer_user) as made:
        assert await closed_with(made) == 4404


async def test_a_slow_reader_loses_old_text_and_is_told() -> None:
    import asyncio

    consumer: Any = LogConsumer()
    consumer.queue = asyncio.Queue(QUEUE_MESSAGES)
    for number in range(QUEUE_MESSAGES * 3):
        consumer.offer("append", str(number))
    kept = [consumer.queue.get_nowait()["text"] for _ in range(consumer.queue.qsize())]
    assert len(kept) <= QUEUE_MESSAGES
    assert "left out" in kept[0]
    assert kept[-1] == str(QUEUE_MESSAGES * 3 - 1)


async def test_the_log_of_a_devices_server_is_followed(
    deployment: Deployment, viewer_user: User, tmp_path: Path
) -> None:
    path = tmp_path / "device.log"
    path.write_text("Starting RPC server\n")
    device = await deployment.host.devices.aget(name="CPU")
    await Instance.objects.acreate(
        host=deployment.host, device=device, role="rpc", log_path=str(path)
    )
    async with socket(DEVICE_LOG, viewer_user) as made:
        first = await made.receive_json_from(10)
        assert first["type"] == "reset" and "Starting RPC server" in first["text"]
    async with socket("/ws/devices/CUDA9/log/", viewer_user) as made:
        assert await closed_with(made) == 4404
