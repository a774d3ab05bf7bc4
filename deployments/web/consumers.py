"""Sockets of the deployment pages: what changed, and the end of a log."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from channels.db import database_sync_to_async

from deployments.instances.logs import Follower
from deployments.models import Instance
from omni.events import STATE_GROUP
from omni.sockets import NOT_FOUND, PageSocket

FIRST_LINES = 400
POLL_S = 0.25
# How many messages may wait for a slow browser; beyond that the oldest text is left out and said
# so.
QUEUE_MESSAGES = 64
MESSAGE_CHARACTERS = 32_768


class StateConsumer(PageSocket):
    """Tells pages what changed; what it is now they fetch themselves."""

    async def opened(self) -> None:
        await self.channel_layer.group_add(STATE_GROUP, self.channel_name)

    async def left(self) -> None:
        await self.channel_layer.group_discard(STATE_GROUP, self.channel_name)

    async def deployment_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def library_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def download_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def benchmark_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def keys_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def alerts_changed(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def download_progress(self, event: dict[str, Any]) -> None:
        await self.send_json(event)


class LogConsumer(PageSocket):
    """The last lines of an instance's log, then what is written from now on.

    A task of its own reads the file into a bounded queue and another one sends, so that a slow
    browser holds back neither this socket's close nor the reader.
    """

    async def opened(self) -> None:
        self.queue: asyncio.Queue[dict[str, str]] = asyncio.Queue(QUEUE_MESSAGES)
        self.tasks = [
            asyncio.create_task(self.follow()),
            asyncio.create_task(self.deliver()),
        ]

    async def left(self) -> None:
        others = [
            task
            for task in getattr(self, "tasks", [])
            if task is not asyncio.current_task()
        ]
        for task in others:
            task.cancel()
        for task in others:
            with suppress(asyncio.CancelledError):
                await task

    async def follow(self) -> None:
        path = await self.log_path()
        if path is None:
            return await self.end(NOT_FOUND)
        follower = await asyncio.to_thread(Follower, path, lines=FIRST_LINES)
        self.offer("reset", follower.first)
        while True:
            text = await asyncio.to_thread(follower.read)
            if text:
                for start in range(0, len(text), MESSAGE_CHARACTERS):
                    self.offer("append", text[start : start + MESSAGE_CHARACTERS])
            await asyncio.sleep(POLL_S)

    async def log_path(self) -> Path | None:
        """Waits for the log: a deployment that was just made has none yet.

        None: there is no such one.
        """
        names = self.scope["url_route"]["kwargs"]
        while True:
            found = await (
                find_log(**names) if "name" in names else find_device_log(**names)
            )
            if found is None or found:
                if found:
                    return Path(found)
                return None
            await asyncio.sleep(POLL_S * 2)

    def offer(self, kind: str, text: str) -> None:
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(
                {
                    "type": "append",
                    "text": "\n… lines left out: the connection is slow …\n",
                }
            )
        self.queue.put_nowait({"type": kind, "text": text})

    async def deliver(self) -> None:
        while True:
            await self.send_json(await self.queue.get())


@database_sync_to_async
def find_log(name: str, role: str, ordinal: int) -> str | None:
    """The path of the log; empty while there is none yet, None when there is no such deployment."""
    from deployments.models import Deployment

    instance = Instance.objects.filter(
        deployment__name=name, role=role, ordinal=ordinal
    ).first()
    if instance is not None:
        return instance.log_path
    if Deployment.objects.filter(name=name).exists():
        return ""
    return None


@database_sync_to_async
def find_device_log(device: str) -> str | None:
    """The same of the server behind one of this host's devices."""
    from django.conf import settings

    instance = Instance.objects.filter(
        device__name=device, host__name=settings.OMNI_HOST_NAME
    ).first()
    if instance:
        return instance.log_path
    return None
