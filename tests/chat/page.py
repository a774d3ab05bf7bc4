"""A chat page without a browser: it applies what its socket says by the same rules as the page's
script."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.test import Client

from tests.helpers import PATIENCE_S
from tests.page_socket import hello_of, knock


class Page:
    """Counts every character that came twice or with a gap before it."""

    def __init__(self, client: Client, conversation_id: int) -> None:
        self._client = client
        self._socket = knock(f"/ws/chat/{conversation_id}/", client)
        self.text: dict[int, str] = defaultdict(str)
        self.states: dict[int, str] = {}
        self.html: dict[int, str] = {}
        self.compared: dict[int, str] = {}
        self.live: list[dict[str, Any]] = []
        self.deltas = self.gaps = self.changes = 0
        self.errors: list[dict[str, Any]] = []
        self.version = ""
        self.closed_with: int | None = None

    @property
    def doing(self) -> list[str]:
        """What was said of answers while they had no text."""
        return [live["doing"] for live in self.live if live["doing"]]

    def figures(self) -> dict[str, list[str]]:
        """All that was said of each while answers were made."""
        found: dict[str, list[str]] = defaultdict(list)
        for live in self.live:
            for figure in live["figures"]:
                found[figure["name"]].append(figure["text"])
        return found

    async def open(self) -> Page:
        connected, _ = await self._socket.connect(timeout=PATIENCE_S)
        assert connected
        await self._socket.send_to(text_data=await hello_of(self._client))
        await self.until(
            lambda: self.version or self.closed_with, "neither a snapshot nor a close"
        )
        return self

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_json_to({"type": kind, **fields})

    async def send_raw(self, text: str) -> None:
        await self._socket.send_to(text_data=text)

    async def close(self) -> None:
        if not self._socket.future.done():
            await self._socket.disconnect()

    async def until(
        self, holds: Callable[[], Any], message: str, timeout_s: float = 30
    ) -> Any:
        """Takes what comes until it holds."""
        timeout_s = max(timeout_s, PATIENCE_S)
        deadline = time.monotonic() + timeout_s
        while not (found := holds()):
            left_s = deadline - time.monotonic()
            assert left_s > 0, (
                f"not within {timeout_s:g} s: {message}; {self.states}, {self.errors}"
            )
            await self._take(min(left_s, 0.5))
        return found

    async def answer(self) -> int:
        """The id of the answer that has text first."""
        return await self.until(
            lambda: next((m for m, text in self.text.items() if text), 0),
            "no text came",
        )

    async def ended(self, message: int = 0) -> str:
        """The final state of this answer, or of the first that ends."""

        def final() -> str:
            return next((s for m, s in self.states.items() if message in (0, m)), "")

        return await self.until(final, "the answer did not end")

    async def _take(self, timeout_s: float) -> None:
        try:
            event = await asyncio.wait_for(self._socket.output_queue.get(), timeout_s)
        except TimeoutError:
            if self._socket.future.done():
                self._socket.future.result()  # raises what ended the consumer
            return
        if event["type"] == "websocket.close":
            self.closed_with = event.get("code")
        elif event["type"] == "websocket.send":
            self._apply(json.loads(event["text"]))

    def _apply(self, data: dict[str, Any]) -> None:
        kind = data["type"]
        if kind == "snapshot":
            self.version = data["version"]
        elif kind == "error":
            self.errors.append(data)
        elif kind == "chat.delta" and data["track"] == "content":
            self._append(data["message"], data["offset"], data["text"])
        elif kind == "chat.state" and data["state"] == "changed":
            self.changes += 1
        elif kind == "chat.state" and data["state"] != "streaming":
            self.states[data["message"]] = data["state"]
            self.html[data["message"]] = data["data"].get("html", "")
            self.compared[data["message"]] = data["data"].get("compared", "")
        elif kind == "chat.state" and "live" in data["data"]:
            self.live.append(data["data"]["live"])

    def _append(self, message: int, offset: int, text: str) -> None:
        self.deltas += 1
        have = len(self.text[message])
        if offset > have:
            self.gaps += 1
        else:
            self.text[message] += text[have - offset :]
