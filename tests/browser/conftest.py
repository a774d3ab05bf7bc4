"""A real Chromium against a real panel.

Playwright's sync API keeps an event loop running, beside which the ORM refuses to work: these tests
speak to the panel by its pages, its commands and its gateway only.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.helpers import PATIENCE_S
from tests.panel import PASSWORD, RunningPanel

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
COMPLAINT = re.compile("Content Security Policy|htmx:(syntax:error|evalDisallowed)")
expect.set_options(timeout=PATIENCE_S * 1000)


def chromium_path() -> str:
    for name in (
        os.environ.get("OMNI_TEST_CHROMIUM", ""),
        # The same without windows: half of the processor's time for a page.
        "chromium-headless-shell",
        "chromium",
        "google-chrome",
        "chromium-browser",
    ):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError(
        "Chromium is needed for the browser tests; `make test` installs it."
    )


@pytest.fixture(scope="session")
def one_chromium() -> Iterator[Browser]:
    """Started with the first test that needs it; each start would take two seconds of a core."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=QUIET
        )
        loop = asyncio.get_running_loop()
        yield browser
        asyncio._set_running_loop(loop)
        browser.close()


@pytest.fixture(scope="module")
def chromium(one_chromium: Browser) -> Iterator[Browser]:
    """The one that files share. Between them Playwright's loop does not count as running: other
    tests of this process use the ORM, and loops of their own."""
    asyncio._set_running_loop(one_chromium._loop)
    yield one_chromium
    asyncio._set_running_loop(None)


# Of who has logged in at a panel before: its address and the name.
_cookies: dict[tuple[str, str], list[Any]] = {}


def log_in(page: Page, url: str, name: str = "admin", password: str = PASSWORD) -> None:
    """No page is open afterwards. The session of last time serves where it still holds: the form,
    the hash of the password and the first page take more than many a test."""
    if kept := _cookies.get((url, name)):
        page.context.add_cookies(kept)
        if page.request.get(f"{url}/socket-token/").status == 200:
            return
    log_in_by_form(page, url, name, password)
    _cookies[url, name] = page.context.cookies()
    page.goto("about:blank")


def log_in_by_form(page: Page, url: str, name: str, password: str) -> None:
    page.goto(f"{url}/login/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/")


@pytest.fixture
def new_context(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Makes contexts; a script error, a breach of the content security policy or an attribute that
    htmx cannot read fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: object) -> BrowserContext:
        context = chromium.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(2 * PATIENCE_S * 1000)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if COMPLAINT.search(message.text)
                else None
            ),
        )
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert not complaints, complaints


@pytest.fixture
def page(new_context: Callable[..., BrowserContext], panel: RunningPanel) -> Page:
    """A page of the session's panel, the administrator logged in."""
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in(page, panel.url)
    return page
