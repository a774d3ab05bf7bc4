"""One thing done, one fetch of each part of the page that shows it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, WebSocket, expect

from tests.browser.test_main_job import ask, deployed, new_chat
from tests.panel import RunningPanel

pytestmark = pytest.mark.browser
# Asked by themselves, now and then, whatever a person does.
BY_ITSELF = {"/healthz", "/socket-token/"}


@contextmanager
def requests_of(page: Page) -> Iterator[Counter[str]]:
    """Method and path of what the page asks for."""
    found: Counter[str] = Counter()

    def note(request: Request) -> None:
        path = urlsplit(request.url).path
        if path not in BY_ITSELF and not path.startswith("/static/"):
            found[f"{request.method} {path}"] += 1

    page.on("request", note)
    try:
        yield found
    finally:
        page.remove_listener("request", note)


def test_a_question_is_asked_and_answered_without_another_request(
    page: Page, panel: RunningPanel
) -> None:
    deployed(page, panel)
    said: list[str] = []

    def listen(socket: WebSocket) -> None:
        if "/ws/chat/" in socket.url:
            socket.on("framesent", lambda frame: said.append(str(frame)))

    page.on("websocket", listen)
    new_chat(page, panel)
    expect(page.get_by_label("Message")).to_be_visible()

    for count in (1, 2):
        said.clear()
        with requests_of(page) as requests:
            ask(page, "Say hello.")
            done = page.locator('#thread article[data-role="assistant"][data-state="done"]')
            expect(done).to_have_count(count, timeout=60_000)
        print("CHAT", dict(requests), said)
        assert not requests
        assert [re.search(r'"type":"(\w+)"', frame)[1] for frame in said] == ["send"]  # type: ignore[index]
    expect(page.locator("#thread > section")).to_have_count(2)
