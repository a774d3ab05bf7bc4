"""The main job end to end: log in, deploy, chat, with the real engine and the real model."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import say
from tests.browser.conftest import log_in, log_in_by_form
from tests.helpers import lives, wait_until
from tests.panel import PASSWORD, RunningPanel

pytestmark = pytest.mark.browser
LONG = (
    "Write a very long story about a lighthouse keeper. Use many paragraphs and never"
    " stop early."
)


def engine_slots(panel: RunningPanel) -> list[dict[str, object]]:
    """The slots of the only engine, asked of the engine itself."""
    (engine,) = panel.engines()
    argv = engine.cmdline()
    socket = argv[argv.index("--host") + 1]
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=10) as client:
        return client.get("http://localhost/slots").json()


def busy(panel: RunningPanel) -> bool:
    return any(slot["is_processing"] for slot in engine_slots(panel))


def deployed(page: Page, panel: RunningPanel) -> None:
    """At most two clicks from the first page; afterwards something is ready."""
    status = panel.document("status")
    if not any(d["state"] == "ready" for d in status["deployments"]):
        page.goto(panel.url)
        page.get_by_role("button", name=re.compile("Deploy|Start")).first.click()
        expect(page.locator('.badge[data-state="ready"]').first).to_be_visible(
            timeout=30_000
        )


def new_chat(page: Page, panel: RunningPanel) -> None:
    page.goto(f"{panel.url}/chat/")
    page.get_by_role("button", name="New chat").first.click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))


def answer(page: Page, n: int = -1) -> str:
    return page.locator("[data-role=assistant] [data-answer]").nth(n).inner_text()


def test_from_log_in_to_a_running_model_in_two_clicks_without_reload(
    new_context: Callable[..., BrowserContext], fresh_panel: RunningPanel
) -> None:
    panel = fresh_panel
    panel.start()
    page = new_context().new_page()
    log_in_by_form(page, panel.url, "admin", PASSWORD)
    page.get_by_role("button", name=re.compile("^Deploy")).first.click()
    expect(page).to_have_url(re.compile("/deployments/"))
    page.evaluate("window.stillTheSamePage = true")
    expect(page.locator('.badge[data-state="ready"]').first).to_be_visible(
        timeout=30_000
    )
    assert page.evaluate("window.stillTheSamePage")
    assert len(panel.engines()) == 1


def test_an_answer_grows_in_steps_and_its_figures_appear(
    page: Page, panel: RunningPanel
) -> None:
    deployed(page, panel)
    new_chat(page, panel)
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer (tokens)").fill("120")
    # The same answer each time: one by chance may be short.
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Save settings").click()
    say(page, LONG)
    lengths: set[int] = set()

    def grown() -> bool:
        if page.locator("[data-role=assistant] [data-answer]").count():
            lengths.add(len(answer(page)))
        return page.locator('[data-role=assistant][data-state="done"]').count() > 0

    wait_until(grown, 60, "the answer did not end", interval_s=0.03)
    assert len(lengths - {0}) >= 5, (
        f"the answer was seen at these lengths only: {sorted(lengths)}"
    )
    figures = page.locator("[data-role=assistant] [data-figures]").last
    for pattern in (r"first token .*\d+ m?s", r"\d tokens/s", r"\d+ tokens"):
        expect(figures).to_contain_text(re.compile(pattern, re.I))


def test_stop_frees_the_engine_within_a_second_and_keeps_the_text(
    page: Page, panel: RunningPanel
) -> None:
    deployed(page, panel)
    new_chat(page, panel)
    say(page, LONG)
    wait_until(
        lambda: page.locator("[data-answer]").count() and len(answer(page)) > 40,
        30,
        "no answer began",
    )
    assert busy(panel)
    page.get_by_role("button", name="Stop").click()
    wait_until(lambda: not busy(panel), 1, "the slot is still busy 1 s after Stop")
    expect(page.locator('[data-role=assistant][data-state="stopped"]')).to_be_visible()
    kept = answer(page)
    page.reload()
    assert answer(page).strip() == kept.strip()


def test_a_reload_and_a_second_tab_show_the_same_answer_once(
    page: Page, panel: RunningPanel, new_context: Callable[..., BrowserContext]
) -> None:
    deployed(page, panel)
    new_chat(page, panel)
    other = page.context.new_page()
    other.goto(page.url)
    say(page, LONG)
    wait_until(
        lambda: page.locator("[data-answer]").count() and len(answer(page)) > 60,
        30,
        "no answer began",
    )
    page.reload()
    wait_until(
        lambda: page.locator("[data-answer]").count() and len(answer(page)) > 200,
        30,
        "nothing after the reload",
    )
    assert busy(panel), "the reload ended the generation"
    other.get_by_role("button", name="Stop").click()
    for tab in (page, other):
        expect(
            tab.locator('[data-role=assistant][data-state="stopped"]')
        ).to_be_visible()
    stored = page.reload() and answer(page)
    assert stored.strip() == answer(other).strip()
    assert len(stored) > 200
    # A doubled or lost stretch would show as a repetition the engine never sent: the stored text is
    # what the server received, and both tabs equal it.
    assert page.locator("[data-role=assistant]").count() == 1


def test_a_viewer_sees_everything_and_can_start_nothing(
    page: Page, panel: RunningPanel, new_context: Callable[..., BrowserContext]
) -> None:
    deployed(page, panel)
    made = panel.manage("shell", "-c", VIEWER)
    assert made.returncode == 0, made.stderr
    seen = new_context().new_page()
    log_in(seen, panel.url, "vera", "vera-only-looks-on")
    for path in ("/", "/models/", "/deployments/"):
        seen.goto(panel.url + path)
        expect(
            seen.get_by_role("button", name=re.compile("^(Deploy|Start|Stop|Delete)"))
        ).to_have_count(0)


VIEWER = """
from django.contrib.auth.models import Group, User
user, made = User.objects.get_or_create(username="vera")
user.set_password("vera-only-looks-on"); user.save()
user.groups.add(Group.objects.get(name="viewer"))
"""


def test_stop_on_the_page_leaves_no_engine(page: Page, panel: RunningPanel) -> None:
    deployed(page, panel)
    (engine,) = panel.engines()
    page.goto(f"{panel.url}/deployments/")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="Stop"))
    name = row.get_by_role("link").first.inner_text()
    row.get_by_role("button", name="Stop").click()
    stopped = (
        page.get_by_role("row")
        .filter(has_text=name)
        .locator('.badge[data-state="stopped"]')
    )
    expect(stopped.first).to_be_visible(timeout=15_000)
    assert not lives(engine)
    assert panel.engines() == []
