"""What a page does when something is lost on the way: the way back, the session, the link."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, TimeoutError, expect

from tests.browser.chats import say, scripts_have_run
from tests.browser.conftest import log_in
from tests.fakes.link import Link
from tests.panel import PASSWORD, RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
TYPED = "What I had typed for a long time"


# --- the way back ---------------------------------------------------------------------------------
def test_back_to_a_filtered_list_shows_the_whole_page(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/models/")
    with page.expect_response(lambda answer: "q=smol" in answer.url):
        page.get_by_label("Search").fill("smol")
    page.get_by_role("link", name=re.compile("^smollm2")).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("smollm2")
    page.go_back()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("^smollm2")).first).to_be_visible()


# --- the session ----------------------------------------------------------------------------------
def end_session(page: Page) -> None:
    """As after two weeks, or a log-out in another browser: the cookie means nothing any more."""
    page.context.clear_cookies(name=re.compile("^omni_session"))


# A part of the page may fetch itself before the test does anything: then the log-in is there already.
SOON_MS = 5_000


def fetch_a_part(page: Page) -> None:
    with contextlib.suppress(TimeoutError):
        page.get_by_label("Search").fill("smol", timeout=SOON_MS)


def send_the_form(page: Page) -> None:
    with contextlib.suppress(TimeoutError):
        page.get_by_role("button", name="Add folder").click(timeout=SOON_MS)


def log_in_again(page: Page) -> None:
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages")).to_have_count(0)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_a_part_that_fetches_itself_leads_to_the_log_in_and_back_with_the_text(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/models/")
    page.get_by_label("Add a folder").fill(f"/data/{TYPED}")
    end_session(page)
    fetch_a_part(page)
    log_in_again(page)
    page.wait_for_url(re.compile("/models/"))
    expect(page.get_by_label("Add a folder")).to_have_value(f"/data/{TYPED}")
    expect(page.get_by_text("What you had typed is back")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Add a folder")).to_have_value("")


def test_a_form_that_was_sent_too_late_comes_back_with_its_text(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/models/")
    page.get_by_label("Add a folder").fill(f"/data/{TYPED}")
    end_session(page)
    send_the_form(page)
    log_in_again(page)
    page.wait_for_url(f"{panel.url}/models/")
    expect(page.get_by_label("Add a folder")).to_have_value(f"/data/{TYPED}")


def test_a_question_that_was_asked_too_late_stands_in_the_composer_after_the_log_in(
    page: Page, panel: RunningPanel, chat: str
) -> None:
    page.goto(chat)
    scripts_have_run(page)
    page.get_by_label("Message").fill(TYPED)
    end_session(page)
    # What was read of the session when the socket opened holds until the next question.
    panel.manage(
        "shell",
        "-v0",
        "-c",
        "from django.contrib.sessions.models import Session as S; S.objects.all().delete()",
    )
    page.keyboard.press("Enter")
    log_in_again(page)
    page.wait_for_url(chat)
    expect(page.get_by_label("Message")).to_have_value(TYPED)
    expect(page.locator(".toast[data-kind=bad]")).to_have_count(0)


def test_another_person_does_not_get_the_text(page: Page, panel: RunningPanel) -> None:
    made = panel.manage(
        "shell",
        "-v0",
        "-c",
        "from django.contrib.auth.models import User as"
        " U;U.objects.filter(username='eve').exists() or U.objects.create_superuser('eve',"
        f" password={PASSWORD!r})",
    )
    assert made.returncode == 0, made.stderr
    page.goto(f"{panel.url}/models/")
    page.get_by_label("Add a folder").fill(TYPED)
    end_session(page)
    fetch_a_part(page)
    expect(page.get_by_label("Password")).to_be_visible()
    page.get_by_label("Name").fill("eve")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(re.compile("/models/"))
    expect(page.get_by_label("Add a folder")).to_have_value("")


@pytest.fixture
def chat(page: Page, panel: RunningPanel) -> str:
    """The address of a conversation; nothing answers in it."""
    model = panel.document("scan")["models"][0]["name"]
    rig = panel.home / "quiet.yaml"
    rig.write_text(
        f"deployments:\n  - {{name: quiet, models: {{model: {model}}}, devices: {{model:"
        " [CPU]}}\n"
    )
    assert panel.manage("apply", str(rig)).returncode == 0
    made = panel.manage(
        "shell",
        "-v0",
        "-c",
        "from django.contrib.auth.models import User; from chat.services import"
        " conversation_create;from deployments.models import Deployment; quiet ="
        " Deployment.objects.get(name='quiet');print(conversation_create(owner=User.objects.get(username='admin'),"
        " deployment=quiet).pk)",
    )
    assert made.returncode == 0, made.stderr
    return f"{panel.url}/chat/{made.stdout.split()[-1]}/"


# --- the link -------------------------------------------------------------------------------------
@pytest.fixture
def link(panel: RunningPanel) -> Iterator[Link]:
    link = Link(panel.port)
    yield link
    link.close()


def test_a_link_that_loses_packets_without_closing_is_told_and_the_page_lives_on_after_it(
    new_context: Callable[..., BrowserContext], link: Link
) -> None:
    page = new_context().new_page()
    url = f"http://127.0.0.1:{link.port}"
    log_in(page, url)
    page.goto(f"{url}/deployments/")
    expect(page.locator("#link-lost")).to_be_hidden()
    link.broken.set()
    expect(page.locator("#link-lost")).to_be_visible(timeout=60_000)
    link.broken.clear()
    expect(page.locator("#link-lost")).to_be_hidden(timeout=60_000)


def test_a_question_that_a_lost_link_swallowed_is_given_back(
    new_context: Callable[..., BrowserContext], link: Link, chat: str
) -> None:
    page = new_context().new_page()
    url = f"http://127.0.0.1:{link.port}"
    log_in(page, url)
    page.goto(f"{url}/chat/{chat.rstrip('/').rpartition('/')[2]}/")
    scripts_have_run(page)
    link.forgets = True
    link.broken.set()
    say(page, TYPED)
    expect(page.get_by_label("Message")).to_have_value("")
    expect(page.locator("#link-lost")).to_be_visible(timeout=60_000)
    link.broken.clear()
    expect(page.get_by_label("Message")).to_have_value(TYPED, timeout=60_000)


# --- a small window -------------------------------------------------------------------------------
def test_at_200_percent_most_of_the_window_is_left_for_the_answer(
    page: Page, chat: str
) -> None:
    page.set_viewport_size({"width": 640, "height": 400})
    page.goto(chat)
    height = page.locator("[data-scroller]").evaluate("box => box.clientHeight")
    assert height >= 200
