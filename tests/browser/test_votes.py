"""Blind votes on the real engine: nothing leaks before the vote, the vote reveals, standings count
it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Response,
    WebSocket,
    expect,
)

from tests.browser.chats import (
    conversation_number,
    deployed,
    emptied,
    limit,
    said,
    say,
)
from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, in_four_looks, look
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(240)]
NAMES = ["aurora", "borealis"]
RIG = """
deployments:
  - name: aurora
    models: {model: MODEL}
    devices: {model: [CPU]}
    settings: {context: 1024}
  - name: borealis
    strategy: speculative
    models: {target: MODEL, draft: MODEL}
    devices: {target: [CPU], draft: [CPU]}
    settings: {context: 1024}
"""
# What only figures are called; "drafts" would tell the speculative one by itself.
FIGURES = re.compile(
    r"tokens/s|First token|Decode|Prefill|drafts|\d ms\b|_tps|ttft|timings|prompt_tokens"
    r"|Speculative|Independent|[Ee]nergy|joules|J/token|\d W\b"
)
BALLOTS = """
import json
from chat.models import Ballot
print("BALLOTS", json.dumps([
    [b.left_lane.name, b.right_lane.name, b.verdict, b.is_blind,
     [m.lane.name for m in b.question.answers.filter(role="assistant").order_by("id")]]
    for b in Ballot.objects.filter(question__conversation={pk}).order_by("id")]))
"""
# Enough votes for ratings, and one deployment that has too few.
MADE_UP = """
from chat.contestants import contestant_of
from chat.models import Ballot
names = ("aurora", "borealis", "gone-with-a-rather-long-name")
aurora, borealis, gone = [contestant_of(name) for name in names]
verdicts = ["left", "left", "right", "tie", "left", "both_bad"] * 4
for number, verdict in enumerate(verdicts):
    Ballot.objects.create(conversation_number=10_000 + number // 2, is_blind=True,
        left=aurora, right=borealis, verdict=verdict)
for number in range(3):
    Ballot.objects.create(conversation_number=11_000, is_blind=True,
        left=gone, right=borealis, verdict="left")
"""


@pytest.fixture(scope="module")
def panel(panel: RunningPanel) -> Iterator[RunningPanel]:
    """Its votes are counted."""
    yield emptied(panel)
    emptied(panel)


@pytest.fixture(scope="module")
def two(panel: RunningPanel) -> RunningPanel:
    """Two deployments that are ready."""
    return deployed(panel, RIG, NAMES)


@dataclass
class Heard:
    """All that the panel tells a page: bodies by path, and the frames of the chat's socket."""

    bodies: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        page.on("websocket", self._socket)
        page.on("response", lambda response: self.responses.append(response))

    def _socket(self, socket: WebSocket) -> None:
        if "/ws/chat/" in socket.url:
            socket.on("framereceived", lambda frame: self.frames.append(str(frame)))

    def read(self) -> None:
        """Before the page goes: the browser forgets the bodies then."""
        for response in self.responses:
            if "/chat/" in response.url and response.ok:
                head = json.dumps(response.headers)
                self.bodies.append(f"{head}\n{response.text()}")
        self.responses.clear()

    def of_the_chat(self) -> list[str]:
        """Beside the conversation its page lists chats and deployments, whoever stands where."""
        bodies = [body.partition('id="chat"')[2] or body for body in self.bodies]
        return bodies + self.frames


def new_blind_chat(page: Page, panel: RunningPanel, tokens: int = 24) -> int:
    page.goto(f"{panel.url}/chat/")
    page.get_by_label("Deployment", exact=True).select_option(NAMES[0])
    page.get_by_text("Compare side by side").click()
    blind = page.get_by_label("Blind, for two")
    expect(blind).to_be_disabled()
    page.get_by_role("checkbox", name=NAMES[1]).check()
    blind.check()
    assert not look(page, "votes-new")
    page.get_by_role("button", name="New chat").click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    limit(page, tokens)
    return conversation_number(page)


def ask(page: Page, text: str) -> None:
    turns = page.locator(".turn-row").count()
    say(page, text)
    expect(page.locator(".turn-row")).to_have_count(turns + 1)
    last = page.locator(".turn-row").last
    expect(last.locator('[data-role=assistant][data-state="done"]')).to_have_count(
        2, timeout=60_000
    )


def ballots(panel: RunningPanel, pk: int) -> list[list[Any]]:
    return said(panel, BALLOTS.format(pk=pk), "BALLOTS")


def test_nothing_tells_who_stands_where_before_the_vote_and_then_all_is_shown(
    page: Page, two: RunningPanel
) -> None:
    pk = new_blind_chat(page, two)
    page.wait_for_load_state("networkidle")
    heard = Heard()
    heard.follow(page)
    page.reload()
    ask(page, "Say something about the sea.")
    last = page.locator(".turn-row").last
    expect(last.get_by_role("button", name="Tie")).to_be_visible()
    page.wait_for_load_state("networkidle")
    heard.read()
    page.reload()
    expect(last.get_by_role("button", name="Tie")).to_be_visible()
    page.wait_for_load_state("networkidle")
    heard.read()
    told = [*heard.of_the_chat(), page.locator("#chat").evaluate("e => e.outerHTML")]
    assert len(heard.bodies) >= 3 and any("changed" in f for f in heard.frames)
    for text in told:
        assert not [name for name in NAMES if name in text], text
        assert not FIGURES.search(text), FIGURES.search(text)
    kinds = {json.loads(frame)["type"] for frame in heard.frames}
    assert "chat.delta" not in kinds, "the pace of the text tells them apart"
    ended = [f for f in map(json.loads, heard.frames) if f.get("message")]
    assert not ended, "which one ends first tells them apart"

    page.keyboard.press("Alt+Shift+1")
    verdict = last.locator("[data-verdict]")
    expect(verdict).to_contain_text("Left was")
    expect(verdict).to_be_focused()
    ((left, right, kept, is_blind, by_id),) = ballots(two, pk)
    assert (kept, is_blind, by_id) == ("left", True, [left, right])
    assert sorted([left, right]) == NAMES
    expect(verdict).to_contain_text(f"Your vote: {left} is better")
    expect(verdict).to_contain_text(f"Left was {left}, right was {right}.")
    for cell, name in zip(last.locator(".cell").all(), (left, right), strict=True):
        expect(cell.locator(".turn-head")).to_have_text(name)
        expect(cell.locator("[data-figures]")).to_contain_text("First token")
    page.reload()
    expect(verdict).to_contain_text(f"Left was {left}, right was {right}.")
    expect(page.locator("[data-vote]")).to_have_count(0)
    verdict.get_by_role("link", name="standings").click()
    row = page.get_by_role("row", name=re.compile(left))
    expect(row).to_contain_text("Too few votes: 1 of 10")


def test_a_turn_is_revealed_without_a_vote_or_by_switching_blind_mode_off(
    page: Page, two: RunningPanel
) -> None:
    pk = new_blind_chat(page, two, tokens=120)
    ask(page, "Say hello.")
    page.get_by_role("button", name="Regenerate both").click()
    expect(page.locator('[data-role=assistant][data-state="streaming"]')).to_have_count(
        2
    )
    assert not look(page, "votes-held")
    page.get_by_role("button", name="Reveal without a vote").click()
    expect(page.locator("[data-verdict]")).to_contain_text("It does not count.")
    # Only the one that was looked at while it was made had to be long.
    limit(page, 12)
    ask(page, "And again.")
    expect(page.get_by_role("button", name="Both bad")).to_have_count(1)
    page.get_by_role("button", name="Blind").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Turns without a vote are revealed")
    dialog.get_by_role("button", name="Switch off").click()
    expect(page.locator(".lane-head h2")).to_have_text(NAMES)
    page.get_by_role("button", name="One after the other").click()
    expect(page.locator(".sharing")).to_contain_text("Lanes answer one after the other")
    ask(page, "Without blind mode.")
    expect(page.get_by_role("button", name="Tie", exact=True)).to_be_visible()
    assert not look(page, "votes-open")
    page.get_by_role("button", name="Tie", exact=True).click()
    # The turns before have one too, which says the same.
    expect(page.locator("[data-verdict]")).to_have_count(3)
    expect(page.locator("[data-verdict]").last).to_contain_text("does not count")
    found = [(verdict, is_blind) for _, _, verdict, is_blind, _ in ballots(two, pk)]
    assert found == [("none", True), ("none", True), ("tie", False)]


@pytest.fixture(scope="module")
def shown(chromium: Browser, two: RunningPanel) -> str:
    """The address of a blind chat: one turn that was voted on, one that asks for it."""
    page = chromium.new_context(viewport=SIZES["desk"]).new_page()
    log_in(page, two.url)
    new_blind_chat(page, two, tokens=60)
    ask(page, "Why is the sea salty?")
    page.get_by_role("button", name="Right").click()
    expect(page.locator("[data-verdict]")).to_have_count(1)
    ask(page, "Tell me about lighthouses.")
    page.context.close()
    made = two.manage("shell", "-v0", "-c", MADE_UP)
    assert made.returncode == 0, made.stderr
    return page.url


@pytest.mark.parametrize("size", SIZES)
def test_a_conversation_opens_where_its_votes_are(
    size: str,
    new_context: Callable[..., BrowserContext],
    two: RunningPanel,
    shown: str,
) -> None:
    page = new_context(viewport=SIZES[size], has_touch=size == "phone").new_page()
    log_in(page, two.url)
    page.goto(shown)
    expect(page.get_by_role("button", name="Both bad")).to_be_in_viewport()
    verdict = page.locator("[data-verdict]")
    verdict.evaluate("verdict => verdict.scrollIntoView({ block: 'center' })")
    expect(verdict).to_be_in_viewport(ratio=1)


def test_votes_and_standings_fit_and_are_accessible(
    page: Page, two: RunningPanel, shown: str
) -> None:
    page.goto(shown)
    expect(page.get_by_role("button", name="Both bad")).to_be_in_viewport()
    wrong = in_four_looks(page, "votes-blind")
    verdict = page.locator("[data-verdict]")
    verdict.evaluate("verdict => verdict.scrollIntoView({ block: 'center' })")
    wrong += in_four_looks(page, "votes-revealed")
    page.get_by_role("link", name="Differences word by word").first.click()
    expect(page.locator(".difference")).to_contain_text("sea")
    wrong += in_four_looks(page, "votes-differences")
    page.goto(f"{two.url}/chat/standings/")
    expect(page.get_by_role("row", name=re.compile("aurora")).first).to_be_visible()
    wrong += in_four_looks(page, "votes-standings")
    assert not wrong, "\n".join(wrong)
