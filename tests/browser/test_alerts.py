"""An alert in a browser: it comes by itself, is acknowledged, told to a webhook, outlives the
agent, and clears."""

from __future__ import annotations

import re
from collections.abc import Iterator
from signal import SIGKILL

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.alerts.receiver import Receiver, receiving
from tests.browser.looks import in_four_looks
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
DESK = {"width": 1280, "height": 900}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def set_disk_rule(page: Page, panel: RunningPanel, fires: int, clears: int) -> None:
    page.set_viewport_size(DESK)
    page.goto(f"{panel.url}/alerts/rules/disk/")
    page.get_by_label("Fires at").fill(str(fires))
    page.get_by_label("Clears at").fill(str(clears))
    page.get_by_label("Fires after").fill("0")
    page.get_by_label("Clears after").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Disk nearly full is changed.")).to_be_visible()


def test_an_alert_comes_is_told_acknowledged_outlives_the_agent_and_clears(
    page: Page, panel: RunningPanel, receiver: Receiver
) -> None:
    page.goto(f"{panel.url}/alerts/")
    expect(page.get_by_text("Nothing fires")).to_be_visible()
    wrong = in_four_looks(page, "alerts-none")
    page.set_viewport_size(DESK)

    page.get_by_role("link", name="Add a channel").click()
    page.get_by_label("Name").fill("home")
    page.get_by_label("Address").fill(f"{receiver.url}/hook/s3cret")
    wrong += in_four_looks(page, "alert-channel")
    page.set_viewport_size(DESK)
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Send a test by home").click()
    expect(page.locator('[data-delivery="sent"]')).to_have_count(1)
    assert [got.body["event"] for got in receiver.taken] == ["test"]

    # No disk has so much room.
    receiver.statuses = [500, 500]
    page.goto(f"{panel.url}/alerts/rules/disk/")
    wrong += in_four_looks(page, "alert-rule")
    set_disk_rule(page, panel, 1_000_000, 1_048_576)
    page.goto(f"{panel.url}/models/")
    expect(page.locator("#alert-line")).to_contain_text("1 alert")
    wrong += in_four_looks(page, "alert-line")
    page.set_viewport_size(DESK)

    page.goto(f"{panel.url}/chat/")
    wrong += in_four_looks(page, "alert-line-chat", asks_axe=False)
    page.set_viewport_size(DESK)

    page.locator("#alert-line a").click()
    expect(page.get_by_role("heading", name="Disk nearly full")).to_be_visible()
    wrong += in_four_looks(page, "alerts-firing")
    page.set_viewport_size(DESK)
    note = page.get_by_role("textbox", name="Note")
    note.fill("the disk is on order")
    with page.expect_response(re.compile(r"/alerts/$")):
        page.evaluate("document.body.dispatchEvent(new CustomEvent('alerts-changed'))")
    expect(note).to_have_value("the disk is on order")
    expect(note).to_be_focused()
    page.get_by_role("button", name="Acknowledge").press("Enter")
    expect(page.get_by_text("Acknowledged by admin")).to_be_visible()
    expect(page.locator("#alert-line")).to_be_empty()

    [agent] = panel.processes_with("agent")
    agent.send_signal(SIGKILL)
    wait_until(lambda: panel.processes_with("agent") not in ([], [agent]), 60)
    expect(page.locator('[data-delivery="sent"]')).to_have_count(2, timeout=60_000)
    assert [got.body["event"] for got in receiver.taken] == ["test", "fired"]
    assert len(receiver.asked) == 4

    set_disk_rule(page, panel, 0, 1)
    expect(page.get_by_text("Nothing fires")).to_be_visible(timeout=60_000)
    row = page.get_by_role(
        "row", name=re.compile("Disk nearly full.*the disk is on order")
    )
    expect(row.first).to_be_visible()
    expect(page.locator('[data-delivery="sent"]')).to_have_count(3)
    assert [got.body["event"] for got in receiver.taken][2:] == ["cleared"]
    wrong += in_four_looks(page, "alerts-over")
    assert not wrong, "\n".join(wrong)


def test_a_scrape_token_is_made_shown_once_and_reads_metrics(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/alerts/")
    page.get_by_label("Name").fill("prometheus")
    page.get_by_role("button", name="Make a token").click()
    wrong = in_four_looks(page, "scrape-token", asks_axe=False)
    token = page.locator("#new-token").inner_text()
    bearer = {"authorization": f"Bearer {token}"}
    right = httpx.get(f"{panel.url}/metrics", headers=bearer)
    assert right.status_code == 200 and "omni_requests" in right.text
    refused = httpx.get(f"{panel.url}/metrics")
    assert refused.status_code == 401 and "scrape token" in refused.text
    assert not wrong, "\n".join(wrong)
