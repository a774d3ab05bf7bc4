"""One thing done, one fetch of each part of the page that shows it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, WebSocket, expect

from tests.browser.chats import say
from tests.browser.test_main_job import deployed, new_chat
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
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer (tokens)").fill("8")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_label("Message")).to_be_visible()

    for count in (1, 2):
        said.clear()
        with requests_of(page) as requests:
            say(page, "Say hello.")
            done = page.locator(
                '#thread article[data-role="assistant"][data-state="done"]'
            )
            expect(done).to_have_count(count, timeout=60_000)
        assert not [
            one for one in requests if "/thread/" in one or one.startswith("POST")
        ]
        types = [re.search(r'"type":"(\w+)"', frame)[1] for frame in said]  # type: ignore[index]
        # The page greets when it connects, which may be after the first question was typed.
        assert [name for name in types if name != "hello"] == ["send"]
    expect(page.locator("#thread > section")).to_have_count(2)


# --- parts of pages that follow what happens ------------------------------------------------------
@pytest.fixture
def news(page: Page) -> list[str]:
    """What the state socket of the next page says, by its type and what it is about."""
    told: list[str] = []

    def note(text: str) -> None:
        message = json.loads(text)
        if message["type"] != "download.progress":
            told.append(f"{message['type']} {message.get('state', '')}".strip())

    def listen(socket: WebSocket) -> None:
        if "/ws/state/" in socket.url:
            socket.on("framereceived", lambda frame: note(str(frame)))

    page.on("websocket", listen)
    return told


NOTE_FETCHES = """
  window.fetched = [];
  document.addEventListener("htmx:beforeRequest", ({ detail: { elt, requestConfig } }) => {
    if (requestConfig.verb === "get") {
      window.fetched.push(`${elt.id} ${requestConfig.triggeringEvent?.type ?? "poll"}`);
    }
  });
"""


def settled(page: Page) -> None:
    """Longer than a page waits for news of what was done on it."""
    page.wait_for_timeout(2500)


def fetched(page: Page, part: str) -> list[str]:
    """What the part of the page was fetched for, save for polls while something is in transit."""
    found = [one.split() for one in page.evaluate("window.fetched")]
    return [why for where, why in found if where == part and "poll" not in why]


@pytest.mark.parametrize(
    ("path", "part", "tells"),
    [
        ("/deployments/", "deployments-live", "deployments-changed"),
        ("/", "quick-live", "deployments-changed"),
    ],
)
def test_start_and_stop_fetch_a_part_once_for_each_change(
    page: Page, panel: RunningPanel, news: list[str], path: str, part: str, tells: str
) -> None:
    deployed(page, panel)
    page.goto(f"{panel.url}/deployments/")
    page.get_by_role("button", name=re.compile("^Stop")).first.click()
    expect(page.locator('.badge[data-state="stopped"]').first).to_be_visible()
    page.goto(f"{panel.url}{path}")
    settled(page)

    news.clear()
    page.evaluate(NOTE_FETCHES)
    page.locator(f"#{part}").get_by_role(
        "button", name=re.compile("^Start")
    ).first.click()
    expect(page.locator(f'#{part} .badge[data-state="ready"]').first).to_be_visible()
    settled(page)

    why = fetched(page, part)
    assert why and set(why) == {tells}
    assert len(why) <= len(news)


def test_a_scan_fetches_the_models_once_for_each_word_of_the_library(
    page: Page, panel: RunningPanel, news: list[str]
) -> None:
    page.goto(f"{panel.url}/models/")
    settled(page)

    news.clear()
    page.evaluate(NOTE_FETCHES)
    page.get_by_role("button", name="Scan").first.click()
    expect(page.locator("#toasts")).to_contain_text("Scanning")
    settled(page)

    why = fetched(page, "models-live")
    assert len(why) <= len(news)


def test_what_was_done_is_fetched_although_no_news_of_it_come(
    page: Page, panel: RunningPanel
) -> None:
    """As when the broker is away: the answer's own word counts."""
    page.goto(f"{panel.url}/deployments/")
    settled(page)

    page.evaluate(NOTE_FETCHES)
    page.evaluate(
        "document.body.dispatchEvent("
        "new CustomEvent('acted', { detail: { news: ['deployments-changed'] } }))"
    )
    settled(page)

    assert fetched(page, "deployments-live") == ["deployments-changed"]
