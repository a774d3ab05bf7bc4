"""An external server from its address to a chat, in a browser; and how its pages look on a desk
and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import say
from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks, look
from tests.gateway.engine import RealEngine
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(300)]
KEY = "key-of-somebody-far-away"
PAGES = {
    "models": "/models/",
    "server": "/servers/other/",
    "server-add": "/servers/add/",
    "deployments": "/deployments/",
    "deployment": "/deployments/remote/",
    "change": "/deployments/remote/external/",
    "new-deployment": "/deployments/new/",
}


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    folder = tmp_path_factory.mktemp("external")
    (folder / "external.key").write_text(KEY)
    running = RealEngine(folder, folder / "external.key")
    yield running
    running.kill()


def state_is(page: Page, panel: RunningPanel, state: str) -> None:
    page.goto(f"{panel.url}/deployments/remote/")
    expect(page.locator(f'.page-head .badge[data-state="{state}"]')).to_be_visible(
        timeout=30_000
    )


def test_from_an_address_to_a_chat_and_how_its_pages_look(
    new_context: Callable[..., BrowserContext],
    page: Page,
    panel: RunningPanel,
    external: RealEngine,
) -> None:
    page.goto(f"{panel.url}/models/")
    page.get_by_role("link", name="Add external server").click()
    page.get_by_label("Name", exact=True).fill("other")
    page.get_by_label("Address").fill("http://127.0.0.1:1")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Ask and add").click()
    expect(page.get_by_text("cannot be reached")).to_be_visible()
    assert page.get_by_label("API key").input_value() == ""
    page.get_by_label("Address").fill(f"http://127.0.0.1:{external.port}/v1")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Ask and add").click()
    page.get_by_label("Model", exact=True).select_option("smol-alias")
    page.get_by_label("Name", exact=True).fill("remote")
    page.get_by_role("button", name="Create and start").click()
    expect(page.locator('.page-head .badge[data-state="ready"]')).to_be_visible(
        timeout=30_000
    )
    page.get_by_role("button", name="Chat").click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer (tokens)").fill("40")
    page.get_by_role("button", name="Save settings").click()
    say(page, "Say hello.")
    expect(page.locator("[data-figures]").last).to_contain_text(
        "First token", timeout=60_000
    )
    _pages_while_it_answers_and_while_it_is_away(new_context, page, panel, external)


def _pages_while_it_answers_and_while_it_is_away(
    new_context: Callable[..., BrowserContext],
    page: Page,
    panel: RunningPanel,
    external: RealEngine,
) -> None:
    wrong = look(page, "external-chat")
    state_is(page, panel, "ready")
    wrong += shown(new_context, panel, PAGES, "ready")
    external.kill()
    state_is(page, panel, "unhealthy")
    expect(page.get_by_text("cannot be reached").first).to_be_visible()
    some = {
        name: PAGES[name] for name in ("server", "deployment", "deployments", "models")
    }
    wrong += shown(new_context, panel, some, "away")
    page.get_by_role("button", name="Delete").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "The server itself is left alone"
    )
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("/deployments/$"))
    expect(page.get_by_role("link", name="remote", exact=True)).to_have_count(0)
    page.goto(f"{panel.url}/servers/other/")
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("left alone")).to_be_visible()
    assert not wrong, "\n".join(wrong)


def shown(
    new_context: Callable[..., BrowserContext],
    panel: RunningPanel,
    pages: dict[str, str],
    when: str,
) -> list[str]:
    page = new_context().new_page()
    log_in(page, panel.url)
    wrong = []
    for name, path in pages.items():
        page.goto(panel.url + path)
        wrong += in_four_looks(page, f"external-{name}-{when}")
    return wrong
