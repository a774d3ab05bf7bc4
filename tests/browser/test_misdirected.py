"""A proxy whose settings, or whose panel's settings, are not complete: the page says what is
missing. And what a page without TLS can do all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chats import own_panel
from tests.browser.conftest import QUIET, chromium_path, log_in, log_in_by_form
from tests.browser.looks import in_four_looks
from tests.panel import PASSWORD, RunningPanel
from tests.proxies import Proxy, nginx

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
NewContext = Callable[..., BrowserContext]
LINES = "OMNI_TRUSTED_PROXIES=127.0.0.1 and OMNI_BEHIND_TLS=1"


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    """It knows its prefix, and neither that TLS is before it nor whom to believe."""
    yield from own_panel(
        tmp_path_factory,
        "misdirected",
        OMNI_PATH_PREFIX="/omni",
        OMNI_ALLOWED_HOSTS="omni.test",
    )


@pytest.fixture
def proxy(panel: RunningPanel, tmp_path: Path) -> Iterator[Proxy]:
    with nginx(tmp_path / "nginx", panel.port) as running:
        yield running


@pytest.fixture
def page(new_context: NewContext, panel: RunningPanel) -> Page:
    """Logged in at the panel itself, past the proxy; cookies are for every port of a host."""
    page = new_context(ignore_https_errors=True).new_page()
    log_in(page, f"{panel.url}/omni")
    return page


def test_a_log_in_through_a_proxy_that_is_not_trusted_names_the_settings(
    new_context: NewContext, proxy: Proxy
) -> None:
    page = new_context(ignore_https_errors=True).new_page()
    page.goto(f"{proxy.root}/login/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("main")).to_contain_text(LINES)


def test_a_page_whose_sockets_are_refused_names_the_settings(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    page.goto(f"{proxy.root}/")
    expect(page.locator("#link-lost")).to_contain_text(LINES)
    log = (panel.home / "logs" / "web-server.log").read_text()
    assert "set OMNI_TRUSTED_PROXIES=127.0.0.1" in log


def test_a_proxy_that_passes_no_sockets_on_is_told_from_a_panel_that_is_away(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    forgotten = ("proxy_set_header Upgrade", "proxy_set_header X-Forwarded")
    with nginx(tmp_path / "a", panel.port, leaves_out=forgotten, tls=False) as proxy:
        page.goto(f"{proxy.root}/")
        lost = page.locator("#link-lost")
        expect(lost).to_contain_text("WebSockets do not reach it")
        expect(lost).to_contain_text("Upgrade and Connection")


def test_without_a_deployment_the_page_of_programs_fits_too(
    new_context: NewContext, panel: RunningPanel
) -> None:
    page = new_context().new_page()
    log_in(page, f"{panel.url}/omni")
    page.goto(f"{panel.url}/omni/connect/")
    expect(page.locator("main")).to_contain_text("Nothing answers yet")
    assert not in_four_looks(page, "connect-empty")


@pytest.fixture
def far_off(chromium: Browser) -> Iterator[Page]:
    """A page to which omni.test is this machine: by that name browsers do not know it."""
    browser = chromium.browser_type.launch(
        executable_path=chromium_path(),
        args=[*QUIET, "--host-resolver-rules=MAP omni.test 127.0.0.1"],
    )
    yield browser.new_page()
    browser.close()


def test_without_tls_a_copy_button_copies_all_the_same(
    far_off: Page, panel: RunningPanel
) -> None:
    """There pages are given no clipboard, except for what is selected."""
    root = f"http://omni.test:{panel.port}/omni"
    log_in_by_form(far_off, root, "admin", PASSWORD)
    far_off.goto(f"{root}/connect/")
    assert far_off.evaluate("navigator.clipboard === undefined")
    far_off.locator('[data-copy="#connect-address"]').click()
    expect(far_off.locator("#toasts")).to_contain_text("Copied.")

    far_off.goto(f"{root}/routing/")
    far_off.get_by_label("Prompt", exact=True).press("Control+v")
    assert far_off.get_by_label("Prompt", exact=True).input_value() == f"{root}/v1"
