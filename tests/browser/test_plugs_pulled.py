"""Parts of the panel are taken away while its pages are open: each page says what is missing, none
shows old figures as if they were new, and all live on without a reload, with what was typed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, in_four_looks
from tests.fakes.nvml import build, rtx_5090, rtx_pro_6000, scenario
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
CARD = rtx_5090()
AGENT = "The agent of this machine does not report."
BROKER = "The broker does not answer."
SAMPLER = "The sampler does not report."
OLD = "No news from the agent; the numbers are old"
NOTE = "the disk is on order"
DATE = "2024-05-06T07:08"
FIRES = """
from deployments.alerts.rules import Limits
from deployments.services.alerting import rule_change
rule_change(code="disk", limits=Limits(1_000_000, 1_048_576, 0, 0))
"""
ADDRESSES = {
    "rig": "/rig/",
    "card": f"/cards/{CARD.uuid}/",
    "doctor": "/doctor/",
    "alerts": "/alerts/",
    "history": f"/history/?subject={CARD.uuid}",
}
# Those that say by themselves that nothing is measured.
TOLD = ("rig", "card", "doctor", "alerts", "history")


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningPanel]:
    build(tmp_path)
    known = os.environ.get("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{known}".rstrip(":"))
    monkeypatch.setenv("FAKE_NVML_SCENARIO", str(tmp_path / "cards.txt"))
    scenario(tmp_path / "cards.txt", rtx_pro_6000(), CARD)
    panel = RunningPanel(tmp_path / "home", is_prepared=True)
    panel.start()
    assert panel.manage("shell", "-v0", "-c", FIRES).returncode == 0
    yield panel
    panel.stop()


class Tabs:
    """The pages, open all the time, with what somebody types in them."""

    def __init__(self, panel: RunningPanel, context: BrowserContext) -> None:
        self.context = context
        self.pages: dict[str, Page] = {}
        for name, address in ADDRESSES.items():
            page = self.pages[name] = context.new_page()
            if name == "rig":
                log_in(page, panel.url)
            page.goto(f"{panel.url}{address}")
        self.live()
        note = self.pages["alerts"].get_by_role("textbox", name="Note")
        expect(note).to_be_visible()
        self.typed: dict[Locator, str] = {
            note: NOTE,
            self.pages["alerts"].get_by_label("Name"): "prometheus",
            self.pages["history"].get_by_label("From", exact=True): DATE,
        }
        for field, text in self.typed.items():
            field.fill(text)

    def say(self, text: str) -> None:
        for name in TOLD:
            notice = self.pages[name].locator("[data-telemetry-away]")
            expect(notice).to_contain_text(text, timeout=40_000)

    def live(self) -> None:
        """Nothing is missing any more, and what was typed is there."""
        for name in TOLD:
            notice = self.pages[name].locator("[data-telemetry-away]")
            expect(notice).to_have_count(0, timeout=60_000)
        expect(self.pages["rig"].locator("#live-note")).to_have_text("Live")
        expect(self.pages["history"].locator("#history-no-answer")).to_be_hidden()
        for page in self.pages.values():
            expect(page.locator("#link-lost")).to_be_hidden(timeout=60_000)
            expect(page.locator(".toast[data-kind=bad]")).to_have_count(0)

    def keep_text(self) -> None:
        for field, text in self.typed.items():
            expect(field).to_have_value(text)


@contextmanager
def nobody_restarts(panel: RunningPanel) -> Iterator[None]:
    """Whoever starts the parts again is held meanwhile."""
    assert panel.process
    panel.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        panel.process.send_signal(signal.SIGCONT)


def test_each_page_says_what_is_missing_and_lives_on(
    panel: RunningPanel, new_context: Callable[..., BrowserContext]
) -> None:
    tabs = Tabs(panel, new_context(viewport=SIZES["desk"]))
    rig, doctor = tabs.pages["rig"], tabs.pages["doctor"]
    wrong = []

    with nobody_restarts(panel):
        panel.child("agent").kill()
        tabs.say(AGENT)
        expect(rig.locator("#live-note")).to_have_text(OLD)
        expect(rig.locator(f'[data-card="{CARD.uuid}"]')).to_have_attribute(
            "data-stale", ""
        )
        for name in TOLD:
            wrong += in_four_looks(tabs.pages[name], f"away-agent-{name}")
    tabs.live()
    tabs.keep_text()

    with nobody_restarts(panel):
        panel.child("valkey-server").kill()
        tabs.say(BROKER)
        wrong += in_four_looks(doctor, "away-broker-doctor")
    tabs.live()
    tabs.keep_text()

    with nobody_restarts(panel):
        panel.child("serve").kill()
        for page in tabs.pages.values():
            expect(page.locator("#link-lost")).to_be_visible(timeout=60_000)
        history = tabs.pages["history"].locator("#history-no-answer")
        expect(history).to_be_visible(timeout=30_000)
        wrong += in_four_looks(tabs.pages["history"], "away-server-history")
    tabs.live()
    tabs.keep_text()

    tabs.context.set_offline(True)
    for page in tabs.pages.values():
        expect(page.locator("#link-lost")).to_be_visible(timeout=60_000)
    tabs.context.set_offline(False)
    tabs.live()
    tabs.keep_text()

    sampler = panel.child("sampler")
    sampler.suspend()
    tabs.say(SAMPLER)
    sampler.kill()
    wait_until(lambda: panel.child("sampler").pid != sampler.pid, 30, "no new sampler")
    tabs.live()
    tabs.keep_text()
    assert not wrong, "\n".join(wrong)
