"""The first five minutes: from an empty home to the first answer, to a measured row, with clicks
counted; then two layouts more, and the rig as it was."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.chats import say
from tests.browser.conftest import log_in_by_form
from tests.browser.looks import in_four_looks
from tests.panel import PASSWORD, RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]
# Strategy and places as a row has them.
LAYOUTS = (
    ("Independent", "on RPC0"),
    ("Layer split", "on RPC0 and RPC1"),
)


class Clicks:
    """Presses what a person would, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def on(self, place: Locator) -> None:
        self.count += 1
        place.click()


@pytest.fixture
def first_page(
    new_context: Callable[..., BrowserContext], fresh_panel: RunningPanel
) -> Page:
    fresh_panel.start()
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in_by_form(page, fresh_panel.url, "admin", PASSWORD)
    expect(page.locator(".best-answer")).to_be_visible()
    return page


def layout_id(page: Page, strategy: str, places: str) -> str:
    rows = page.locator(".scoreboard tbody tr").filter(
        has=page.get_by_role("link", name=strategy, exact=True)
    )
    return str(rows.filter(has_text=places).first.get_attribute("id"))


def is_as_before(panel: RunningPanel) -> None:
    """What was deployed runs, and nothing else is there."""
    panel.ready("chat")
    [only] = panel.document("status")["deployments"]
    assert (only["name"], only["state"]) == ("chat", "ready")


def measured_at_once(page: Page) -> None:
    """Two layouts more, which have to make room for each other and for what runs."""
    # By measuring the order changes, and with it the first that has these words.
    chosen = [page.locator(f"#{layout_id(page, *layout)}") for layout in LAYOUTS]
    for row in chosen:
        row.get_by_role("checkbox").check()
    page.get_by_role("button", name="Measure those ticked").first.click()
    page.wait_for_url("**/benchmarks/")
    done = page.locator('.badge[data-state="done"]')
    expect(done).to_have_count(1 + len(LAYOUTS), timeout=240_000)

    page.get_by_role("link", name="Home", exact=True).click()
    for row in chosen:
        predicted = row.locator("td").nth(1).locator("div").first
        expect(predicted).to_have_text(re.compile(r"^\d"))
        expect(row.locator(".measured").first).to_have_text(re.compile(r"\d"))


def test_three_clicks_to_the_first_answer_and_three_to_a_measured_row(
    first_page: Page, fresh_panel: RunningPanel
) -> None:
    page, clicks = first_page, Clicks()
    wrong = in_four_looks(page, "first-page-new")
    page.set_viewport_size({"width": 1280, "height": 900})

    clicks.on(page.locator(".best-answer").get_by_role("button", name="Deploy"))
    chat = page.locator(".page-head").get_by_role("button", name="Chat", exact=True)
    expect(chat).to_be_visible(timeout=60_000)
    clicks.on(chat)
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    say(page, "Say hello.")
    answer = page.locator("[data-role=assistant] [data-answer]")
    expect(answer).not_to_be_empty(timeout=60_000)
    assert clicks.count <= 3
    # A small model may go on for minutes.
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)

    clicks = Clicks()
    clicks.on(page.get_by_role("link", name="Home", exact=True))
    row = page.locator(".scoreboard tbody tr").first
    row = page.locator(f"#{row.get_attribute('id')}")
    clicks.on(row.get_by_role("button", name="Measure"))
    page.wait_for_url(re.compile(r"/benchmarks/\d+/"))
    expect(page.locator('.badge[data-state="done"]').first).to_be_visible(
        timeout=180_000
    )
    clicks.on(page.get_by_role("link", name="Home", exact=True))
    expect(row.locator(".measured").first).to_have_text(re.compile(r"\d"))
    assert clicks.count <= 3

    is_as_before(fresh_panel)
    # What runs says what it does at the moment.
    figures = page.locator("#running .running-figures")
    expect(figures).to_have_text(re.compile(r"0 requests\s+0 tokens/s"))
    wrong += in_four_looks(page, "first-page-measured")
    page.set_viewport_size({"width": 1280, "height": 900})

    measured_at_once(page)
    is_as_before(fresh_panel)
    assert not wrong, "\n".join(wrong)
