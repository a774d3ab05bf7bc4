"""API keys in a browser: one is made, copied, used, kept to its limits, and revoked."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def models_status(page: Page, panel: RunningPanel, key: str) -> int:
    answer = page.request.get(
        f"{panel.url}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    return answer.status


def test_a_key_is_made_copied_used_and_revoked(page: Page, panel: RunningPanel) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(panel.url)
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("link", name="New API key").first.click()
    page.get_by_label("Name").fill("editor on the laptop")
    page.get_by_label("Last day").fill("2999-12-31")
    page.get_by_label("auto").check()
    page.get_by_label("coding").check()
    page.get_by_label("Requests per minute").fill("60")
    page.get_by_label("Tokens per minute").fill("100000")
    page.get_by_label("Concurrent requests").fill("2")
    wrong = in_four_looks(page, "key-form")
    page.get_by_role("button", name="Make the key").click()

    shown = page.locator("#new-key").inner_text()
    assert re.fullmatch(r"\S{20,}", shown)
    wrong += in_four_looks(page, "key-made")
    page.get_by_role("button", name="Copy the key").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    key = page.evaluate("navigator.clipboard.readText()")
    assert key == shown
    assert models_status(page, panel, key) == 200
    page.get_by_role("link", name="I have copied it").click()

    row = page.get_by_role("row", name=re.compile("editor on the laptop"))
    expect(row).to_contain_text("all for coding")
    expect(row).to_contain_text("of 60 requests/min")
    expect(page.get_by_text(key)).to_have_count(0)
    wrong += in_four_looks(page, "keys")
    page.set_viewport_size({"width": 1280, "height": 900})

    row.get_by_role("link", name="Change").click()
    page.get_by_label("Name").fill("editor")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The key editor is changed.")).to_be_visible()

    row = page.get_by_role("row", name=re.compile("editor"))
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_contain_text("This cannot be undone")
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_text("The key editor is revoked.")).to_be_visible()
    assert models_status(page, panel, key) == 401
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("The key editor is deleted.")).to_be_visible()
    expect(row).to_have_count(0)
    assert not wrong
