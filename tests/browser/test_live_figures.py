"""Watts and joules a token on the pages: the real engine, and cards that are the stand-in NVML's.

The packaged engine knows no such card, so the device that it runs on is said to be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import (
    begin_chat,
    choose_lanes,
    conversation_number,
    deployed,
    follow_figures,
    live_texts,
    own_panel,
    said,
    say,
)
from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, in_four_looks
from tests.fakes.nvml import build, rtx_pro_6000, scenario
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(300)]
NAMES = ["aurora", "borealis", "cirrus", "draco-with-a-long-name"]
DEPLOYMENT = """
  - name: {name}
    models: {{model: MODEL}}
    devices: {{model: [CPU]}}
    settings: {{context: 2048, batch: 64, ubatch: 64, parallel: 1}}
"""
RIG = "deployments:\n" + "".join(DEPLOYMENT.format(name=name) for name in NAMES)
WATTS = 410
ON_THE_CARD = """
import json
from gpus.models import Device, Gpu
moved = Device.objects.filter(name="CPU").update(gpu=Gpu.objects.get())
print("MOVED", json.dumps(moved))
"""
ENERGY = """
import json
from chat.models import Message
found = Message.objects.filter(conversation={pk}, role="assistant").order_by("id")
print("ENERGY", json.dumps([
    [m.completion_tokens, m.duration_ms, m.timings["omni_energy"]] for m in found]))
"""
LONG = "Count from one to five hundred, one number per line."


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    driver = tmp_path_factory.mktemp("driver")
    build(driver)
    cards = driver / "cards.txt"
    scenario(cards, rtx_pro_6000())
    environment = {"LD_LIBRARY_PATH": str(driver), "FAKE_NVML_SCENARIO": str(cards)}
    yield from own_panel(tmp_path_factory, "energy", **environment)


@pytest.fixture(scope="module")
def metered(panel: RunningPanel) -> RunningPanel:
    """With deployments on a device whose power is told."""
    deployed(panel, RIG, NAMES)
    assert said(panel, ON_THE_CARD, "MOVED") == 1
    return panel


def new_chat(page: Page, panel: RunningPanel, names: list[str], tokens: int) -> None:
    choose_lanes(page, panel, names)
    begin_chat(page, tokens)


def ended(page: Page, count: int, state: str = "done") -> None:
    found = page.locator(f'.turn-row [data-role=assistant][data-state="{state}"]')
    expect(found).to_have_count(count, timeout=90_000)


def test_an_answer_alone_on_its_card_has_watts_and_joules_a_token(
    page: Page, metered: RunningPanel
) -> None:
    new_chat(page, metered, NAMES[:1], 150)
    follow_figures(page)
    say(page, LONG)
    ended(page, 1)
    heard = live_texts(page)
    assert set(heard["watts"]) == {f"{WATTS} W"}
    assert all(text.endswith("/token") for text in heard["energy"])
    ((tokens, duration_ms, energy),) = said(
        metered, ENERGY.format(pk=conversation_number(page)), "ENERGY"
    )
    assert energy["joules"] == pytest.approx(WATTS * energy["seconds"], rel=0.01)
    assert energy["seconds"] == pytest.approx(duration_ms / 1000, abs=0.5)
    shown = page.locator("[data-figures]")
    expect(shown.locator("[data-figure=watts]")).to_have_text(f"{WATTS} W")
    said_each = shown.locator("[data-figure=energy]").inner_text()
    assert float(said_each.removesuffix(" J/token")) == pytest.approx(
        energy["joules"] / tokens, rel=0.05
    )
    expect(shown.locator("[data-figure=energy]")).to_have_attribute(
        "title", re.compile(r"of CPU, idle power included\.$")
    )


def test_lanes_on_one_card_share_its_energy_unless_one_waits_for_the_other(
    page: Page, metered: RunningPanel
) -> None:
    new_chat(page, metered, NAMES[:2], 80)
    follow_figures(page)
    say(page, LONG)
    ended(page, 2)
    assert set(live_texts(page)["energy"]) == {"Energy shared"}
    shown = page.locator("[data-figures] [data-figure=energy]")
    expect(shown).to_have_text(["Energy shared"] * 2)
    expect(shown.first).to_have_attribute(
        "title", f"CPU worked for {NAMES[1]} as well."
    )
    page.get_by_role("button", name="One after the other").click()
    expect(page.locator(".sharing")).to_contain_text("Lanes answer one after the other")
    say(page, LONG)
    ended(page, 4)
    last = page.locator(".turn-row").last.locator("[data-figures] [data-figure=energy]")
    expect(last).to_have_text([re.compile(r"^\s*[\d.]+ J/token\s*$")] * 2)


@pytest.mark.parametrize("count", [1, 4])
def test_figures_fit_while_answers_are_made_and_once_they_have_ended(
    count: int, new_context: Callable[..., BrowserContext], metered: RunningPanel
) -> None:
    page = new_context(viewport=SIZES["desk"]).new_page()
    log_in(page, metered.url)
    new_chat(page, metered, NAMES[:count], 1500)
    page.wait_for_load_state("networkidle")
    say(page, LONG)
    energy = page.locator("[data-live-figures] [data-figure=energy]")
    expect(energy).to_have_count(count)
    wrong = in_four_looks(page, f"figures-{count}-live")
    page.keyboard.press("Escape")
    expect(page.locator("[data-figures]")).to_have_count(count)
    wrong += in_four_looks(page, f"figures-{count}")
    assert not wrong, "\n".join(wrong)


def test_who_wants_no_motion_sees_whole_seconds(
    new_context: Callable[..., BrowserContext], metered: RunningPanel
) -> None:
    page = new_context(viewport=SIZES["desk"], reduced_motion="reduce").new_page()
    log_in(page, metered.url)
    new_chat(page, metered, NAMES[:1], 8)
    follow_figures(page)
    say(page, f"{'The sea is wide and deep. ' * 200} Say hello.")
    wait_until(
        lambda: len(live_texts(page).get("first_token", [])) > 2,
        30,
        "the time to the first token is not counted",
    )
    page.keyboard.press("Escape")
    counted = [
        text for text in live_texts(page)["first_token"] if text != "First token"
    ]
    assert all(re.fullmatch(r"First token \d+ s", text) for text in counted[:2])
