"""The administration in a browser: its theme works under a policy without inline scripts, and a key
is shown once."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


def test_lists_forms_and_menus_work_without_inline_scripts(
    page: Page, panel: RunningPanel
) -> None:
    answer = page.goto(f"{panel.url}/admin/")
    assert answer
    policy = answer.headers["content-security-policy"]
    scripts = next(
        part for part in policy.split(";") if part.strip().startswith("script-src")
    )
    assert "unsafe-inline" not in scripts and "unsafe-eval" in scripts

    for path in (
        "auth/user/",
        "auth/group/add/",
        "deployments/engine/",
        "deployments/route/add/",
        "gpus/device/",
    ):
        page.goto(f"{panel.url}/admin/{path}")
        expect(page.locator("h1, h2").first).to_be_visible()

    # Alpine's own doing: the menu of the account opens.
    page.goto(f"{panel.url}/admin/")
    page.evaluate(
        "() => { if (!window.Alpine) throw new Error('Alpine did not start') }"
    )


def test_a_new_key_is_made_shown_once_and_works(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/admin/deployments/apikey/add/")
    page.locator("#id_name").fill("browser")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.get_by_text("shown this once").locator("code").inner_text()
    assert re.fullmatch(r"\S{20,}", key)

    answer = page.request.get(
        f"{panel.url}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.status == 200
    for cookie in page.context.cookies():
        assert key not in str(cookie)
    page.goto(f"{panel.url}/admin/deployments/apikey/")
    expect(page.get_by_text(key)).to_have_count(0)
    expect(page.get_by_text("browser")).not_to_have_count(0)


def test_a_person_changes_the_own_password_from_the_menu(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(panel.url)
    page.get_by_role("link", name="admin", exact=True).click()
    expect(page.get_by_role("heading", name="Change password")).to_be_visible()
    page.get_by_label("Old password").fill("wrong")
    page.get_by_label("New password", exact=True).fill("one long new password")
    page.get_by_label("New password confirmation").fill("one long new password")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert").first).to_contain_text("entered incorrectly")
