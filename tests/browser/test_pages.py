"""Every page, light and dark, on a desk and on a phone: fits, is accessible, shows no error.

The pictures are kept in tests/artifacts for people to look at.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import say
from tests.browser.conftest import log_in
from tests.browser.looks import ARTIFACTS, SIZES, in_four_looks, look
from tests.browser.test_plan_page import MANY
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
RIG = """
deployments:
  - name: shown
    models: {model: MODEL}
    devices: {model: [RPC1]}
    settings: {context: 2048}
"""


@pytest.fixture(scope="module")
def furnished(panel: RunningPanel) -> dict[str, str]:
    """A panel with something on every page: path by name."""
    models = panel.document("scan")["models"]
    rig = panel.home / "shown.yaml"
    rig.write_text(RIG.replace("MODEL", models[0]["name"]))
    applied = panel.manage("apply", str(rig), "--start")
    assert applied.returncode == 0, applied.stderr
    panel.ready("shown")
    return {
        "home": "/",
        "rig": "/rig/",
        "card": "/cards/RPC0/",
        "models": "/models/",
        "model": f"/models/{models[0]['name']}/",
        "plan": "/plan/?device=RPC0&device=RPC1&device=CPU",
        "plan-too-much": f"/plan/?context=4000000&{MANY}",
        "plan-wrong": "/plan/?device=&context=much",
        "deployments": "/deployments/",
        "deployment": "/deployments/shown/",
        "routing": "/routing/",
        "connect": "/connect/",
        "new-deployment": "/deployments/new/",
        "chats": "/chat/",
        "standings": "/chat/standings/",
        "glossary": "/glossary/",
        "not-found": "/nothing-here/",
    }


def test_every_page_fits_and_is_accessible(
    new_context: Callable[..., BrowserContext],
    panel: RunningPanel,
    furnished: dict[str, str],
) -> None:
    page = new_context().new_page()
    page.goto(f"{panel.url}/login/")
    wrong = in_four_looks(page, "login", asks_axe=True)
    log_in(page, panel.url)
    for name, path in furnished.items():
        page.goto(panel.url + path)
        if name == "rig":
            expect(page.locator("#live-note")).to_contain_text("Live")
        if name == "home":
            expect(page.locator(".best-answer")).to_be_visible()
            expect(
                page.get_by_role("link", name=re.compile("^Open")).first
            ).to_be_visible()
        wrong += in_four_looks(page, name, asks_axe=True)
    wrong += _conversation(page, panel)
    assert not wrong, "\n".join(wrong)


def _conversation(page: Page, panel: RunningPanel) -> list[str]:
    """A conversation with an answer in it."""
    page.goto(f"{panel.url}/chat/")
    page.get_by_role("button", name="New chat").first.click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    say(page, "Write a long Python program with comments.")
    ended = page.locator('[data-role=assistant][data-state="done"]')
    answer = page.locator("[data-answer]").last
    expect(answer).to_be_attached()
    wait_until(
        lambda: ended.count() or len(answer.inner_text()) > 300,
        60,
        "no answer came",
        interval_s=0.1,
    )
    if not ended.count():
        page.keyboard.press("Escape")
    expect(page.locator("[data-figures]").last).to_be_visible()
    return in_four_looks(page, "conversation", asks_axe=True)


def test_pages_can_be_used_by_keyboard(
    page: Page, panel: RunningPanel, furnished: dict[str, str]
) -> None:
    page.goto(panel.url + "/deployments/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()


def test_on_a_phone_the_bar_has_the_main_pages_and_more_opens_all(
    page: Page, panel: RunningPanel
) -> None:
    page.set_viewport_size(SIZES["phone"])
    page.goto(f"{panel.url}/keys/")
    bar = page.get_by_role("navigation", name="Main")
    expect(bar.get_by_role("link")).to_have_count(4)
    more = bar.get_by_role("button", name="More")
    pages = page.get_by_role("navigation", name="Pages")
    expect(pages).to_have_count(0)

    more.press("Enter")
    expect(pages.get_by_role("link", name="Keys")).to_have_attribute(
        "aria-current", "page"
    )
    expect(page.get_by_role("button", name="Log out")).to_be_in_viewport()
    wrong = look(page, "more-light-phone", asks_axe=True)
    page.keyboard.press("Tab")
    expect(pages.get_by_role("link", name="Home")).to_be_focused()
    page.keyboard.press("Escape")
    expect(pages).to_have_count(0)
    expect(more).to_be_focused()

    more.click()
    pages.get_by_role("link", name="Activity").click()
    expect(page.get_by_role("heading", name="Activity")).to_be_visible()
    assert not wrong


def test_in_a_low_window_every_page_can_be_reached(
    page: Page, panel: RunningPanel
) -> None:
    page.set_viewport_size({"width": 1280, "height": 400})
    page.goto(f"{panel.url}/keys/")
    pages = page.get_by_role("navigation", name="Pages")
    expect(pages.get_by_role("link", name="Keys")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Log out")).to_be_in_viewport()
    pages.get_by_role("link", name="Home").focus()
    expect(pages.get_by_role("link", name="Home")).to_be_in_viewport()


def test_the_theme_switch_stays(page: Page, panel: RunningPanel) -> None:
    page.goto(panel.url)
    page.get_by_role("button", name="Light or dark").click()
    chosen = page.locator("html").get_attribute("data-theme")
    assert chosen == "dark"
    page.goto(f"{panel.url}/models/")
    assert page.locator("html").get_attribute("data-theme") == chosen


def test_deleting_asks_first_and_cancel_keeps_everything(
    page: Page, panel: RunningPanel, furnished: dict[str, str]
) -> None:
    page.goto(panel.url + furnished["deployment"])
    page.get_by_role("button", name="Delete").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="shown")).to_be_visible()


def test_the_administration_works_under_its_own_policy(
    panel: RunningPanel,
    new_context: Callable[..., BrowserContext],
    furnished: dict[str, str],
) -> None:
    page = new_context(viewport=SIZES["desk"]).new_page()
    log_in(page, panel.url)
    for path in (
        "",
        "gpus/device/",
        "deployments/engine/",
        "deployments/model/",
        "deployments/deployment/",
        "deployments/instance/",
        "gpus/historysubject/",
        "chat/conversation/",
        "chat/message/",
    ):
        answer = page.goto(f"{panel.url}/admin/{path}")
        assert answer and answer.status == 200, path
    page.screenshot(path=ARTIFACTS / "admin.png")
