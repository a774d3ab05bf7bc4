"""The form of a deployment in a browser: a strategy brings its own fields, and what was typed
stays."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def open_form(page: Page, panel: RunningPanel, strategy: str) -> None:
    page.goto(f"{panel.url}/deployments/new/")
    page.get_by_label("Context (tokens)").fill("3000")
    page.get_by_label("Strategy", exact=True).focus()
    page.get_by_label("Strategy", exact=True).select_option(label=strategy)


def test_a_strategy_brings_its_fields_and_keeps_what_was_typed(
    page: Page, panel: RunningPanel
) -> None:
    open_form(page, panel, "Prefill–decode")
    decode = page.get_by_role("group", name="Devices that write answers")
    expect(decode).to_be_visible()
    expect(page.get_by_label("Context (tokens)")).to_have_value("3000")
    expect(page.get_by_label("Strategy", exact=True)).to_be_focused()
    expect(page.get_by_label("Hand over from (tokens)")).to_be_visible()
    page.get_by_label("Strategy", exact=True).select_option(
        label="Speculative decoding"
    )
    expect(page.get_by_label("Draft model")).to_be_visible()
    expect(decode).to_have_count(0)
    expect(page.get_by_label("Context (tokens)")).to_have_value("3000")


def test_what_is_missing_is_said_and_then_it_is_made(
    page: Page, panel: RunningPanel
) -> None:
    open_form(page, panel, "Prefill–decode")
    expect(page.get_by_role("group", name="Devices that write answers")).to_be_visible()
    page.get_by_label("Name").fill("by-hand")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Choose at least one; CPU is one too.")).to_be_visible()
    page.get_by_role("group", name="Devices that write answers").get_by_role(
        "checkbox", name=re.compile("RPC1")
    ).check()
    page.get_by_role("button", name="Create", exact=True).click()
    page.wait_for_url("**/deployments/by-hand/")
    expect(page.get_by_text("Prefill–decode").first).to_be_visible()
    page.goto(f"{panel.url}/deployments/by-hand/change/")
    expect(page.get_by_label("Context (tokens)")).to_have_value("3000")
    page.goto(f"{panel.url}/deployments/by-hand/")
    page.get_by_role("button", name="Delete").click()
    page.locator("#confirm-dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/deployments/")


def test_it_fits_and_is_accessible(page: Page, panel: RunningPanel) -> None:
    open_form(page, panel, "Speculative decoding")
    expect(page.get_by_label("Draft model")).to_be_visible()
    assert not in_four_looks(page, "form-speculative")
