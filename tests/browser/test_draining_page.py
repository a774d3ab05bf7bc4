"""A deployment that lets answers finish, is stopped at once, and is unloaded when nobody asks for
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks, look
from tests.panel import RunningPanel
from tests.streams import Streamed, all_begun, gateway_key

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
RIG = """
deployments:
  - name: leaving
    models: {model: MODEL}
    devices: {model: [CPU]}
    settings: {context: 4096, drain_s: 600, idle_unload_s: 3}
"""


@pytest.fixture
def leaving(panel: RunningPanel) -> Iterator[str]:
    rig = panel.home / "leaving.yaml"
    rig.write_text(RIG.replace("MODEL", panel.document("scan")["models"][0]["name"]))
    applied = panel.manage("apply", str(rig), "--start")
    assert applied.returncode == 0, applied.stderr
    yield "/deployments/leaving/"
    panel.manage("stop", "leaving", "--now", "--wait", "120")


def test_answers_finish_or_are_cut_and_an_idle_one_is_unloaded(
    page: Page,
    panel: RunningPanel,
    leaving: str,
    new_context: Callable[..., BrowserContext],
) -> None:
    page.goto(panel.url + leaving)
    badge = page.locator(".page-head .badge")
    expect(badge).to_have_text("ready")
    answer = Streamed(
        panel, gateway_key(panel), "leaving", max_tokens=3500, ignore_eos=True
    )
    all_begun([answer])
    page.get_by_role("button", name="Stop leaving").click()
    expect(badge).to_have_text("stopping")
    expect(page.get_by_text("Answers in progress may finish")).to_be_visible()
    assert not look(page, "draining-light-desk")
    page.get_by_role("button", name="Stop now").click()
    page.locator("#confirm-dialog").get_by_role("button", name="Stop now").click()
    expect(badge).to_have_text("stopped")
    assert answer.wait(10).error_code == "answer_cut"
    page.get_by_role("button", name="Start leaving").click()
    expect(badge).to_have_text("ready")
    expect(badge).to_have_text("unloaded")
    expect(page.get_by_text("The next request loads it again")).to_be_visible()
    shown = new_context().new_page()
    log_in(shown, panel.url)
    shown.goto(panel.url + leaving)
    assert not in_four_looks(shown, "unloaded")
    page.get_by_role("button", name="Load leaving").click()
    expect(badge).to_have_text("ready")
    # The panel is shared with other tests.
    page.get_by_role("button", name="Delete").click()
    page.locator("#confirm-dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/deployments/")
