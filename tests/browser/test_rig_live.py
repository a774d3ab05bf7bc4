"""The Rig page as it lives: numbers, charts and states change without a reload."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import own_panel
from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks
from tests.fakes.nvml import FakeCard, build, rtx_5090, rtx_pro_6000, scenario
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
BIG, SMALL = rtx_pro_6000(), rtx_5090()


def value(page: Page, card: str, name: str) -> str:
    return page.locator(f'[data-card="{card}"] [data-value="{name}"]').inner_text()


def is_live(page: Page) -> None:
    expect(page.locator("#live-note")).to_have_text("Live")


@pytest.fixture
def page(page: Page, panel: RunningPanel) -> Page:
    page.goto(f"{panel.url}/rig/")
    return page


def test_stand_ins_and_host_report_live(page: Page) -> None:
    is_live(page)
    for name in ("RPC0", "RPC1"):
        expect(page.locator(f'[data-card="{name}"]')).to_contain_text(
            "CPU-backed stand-in"
        )
        memory = page.locator(f'[data-card="{name}"] [data-value="memory"]')
        expect(memory).to_have_text(re.compile(r"^\d+(\.\d)? [MG]iB$"))
        assert (
            value(page, name, "temperature")
            == value(page, name, "power")
            == value(page, name, "link")
            == "N/A"
        )
    assert re.fullmatch(r"\d+ %", value(page, "host", "utilisation"))
    expect(page.locator("figure[data-metric=utilisation] .u-value").last).to_have_text(
        re.compile(r"^\d")
    )
    expect(page.locator("figure[data-metric=power]")).to_be_hidden()


def test_who_comes_later_sees_the_minutes_before(
    page: Page, new_context: Callable[..., BrowserContext]
) -> None:
    is_live(page)
    history: list[str] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived", lambda text: history.append(str(text))
        ),
    )
    page.reload()
    is_live(page)
    [first] = [text for text in history if '"type":"history"' in text]
    assert first.count("RPC0") > 3


def test_charts_can_be_read_as_a_table_and_follow_the_time_shown(page: Page) -> None:
    is_live(page)
    page.get_by_text("The charts as a table").click()
    rows = page.locator("#chart-table tr")
    expect(rows).to_have_count(3)
    expect(rows.last).to_contain_text(re.compile(r"Host\s*\d+ %"))
    page.get_by_role("button", name="1 min", exact=True).click()
    expect(page.get_by_role("button", name="1 min", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.get_by_role("button", name="5 min", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )


def test_charts_follow_theme_and_width(page: Page) -> None:
    is_live(page)
    figure = page.locator("figure[data-metric=utilisation]")
    expect(figure.locator("canvas")).to_have_count(1)
    marker = figure.locator(".u-marker").nth(1)
    light = marker.evaluate(
        "element => element.style.border || element.style.borderColor"
    )
    page.get_by_role("button", name="Light or dark").click()
    expect(figure.locator("canvas")).to_have_count(1)
    border = "element => element.style.border || element.style.borderColor"
    wait_until(
        lambda: marker.evaluate(border) != light,
        5,
        "the chart keeps the colours of the other theme",
    )
    page.set_viewport_size({"width": 390, "height": 844})
    plot, uplot = figure.locator(".plot"), figure.locator(".uplot")
    # Not wait_for_function: it evaluates text in the page, which the content security policy
    # forbids.
    width = "() => document.querySelector('.u-wrap').clientWidth"
    wait_until(lambda: page.evaluate(width) < 380, 10, "the chart keeps its old width")
    assert uplot.bounding_box()["width"] <= plot.bounding_box()["width"] + 1  # type: ignore[index]


def test_a_chart_outlives_a_box_that_is_narrower_than_its_axes(page: Page) -> None:
    is_live(page)
    figure = page.locator("figure[data-metric=utilisation]")
    box, chart = figure.locator(".plot"), figure.locator(".u-wrap")
    width = "element => element.clientWidth"
    before = chart.evaluate(width)
    box.evaluate("element => { element.style.width = '20px'; }")
    wait_until(lambda: chart.evaluate(width) < before, 5, "it keeps its old width")
    # It is made again with the other colours, in the narrow box; an error there fails the test.
    page.get_by_role("button", name="Light or dark").click()
    box.evaluate("element => { element.style.width = ''; }")
    wait_until(lambda: chart.evaluate(width) == before, 5, "it stays narrow")


def test_numbers_that_are_old_look_old(page: Page, panel: RunningPanel) -> None:
    is_live(page)
    [sampler] = panel.processes_with("sampler")
    sampler.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("#live-note")).to_have_text(
            "No news from the agent; the numbers are old"
        )
        expect(page.locator('[data-card="host"]')).to_have_attribute("data-stale", "")
    finally:
        sampler.send_signal(signal.SIGCONT)
    is_live(page)
    expect(page.locator('[data-card="host"]')).not_to_have_attribute("data-stale", "")


# --- a machine with cards -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    build(folder)
    scenario(folder / "scenario.txt", BIG, SMALL)
    return folder


@pytest.fixture(scope="module")
def card_panel(
    tmp_path_factory: pytest.TempPathFactory, driver: Path
) -> Iterator[RunningPanel]:
    before = os.environ.get("LD_LIBRARY_PATH", "")
    yield from own_panel(
        tmp_path_factory,
        "cards",
        LD_LIBRARY_PATH=f"{driver}:{before}".rstrip(":"),
        FAKE_NVML_SCENARIO=str(driver / "scenario.txt"),
    )


@pytest.fixture
def cards(driver: Path) -> Callable[..., None]:
    def write(*present: FakeCard) -> None:
        scenario(driver / "scenario.txt", *present)

    write(BIG, SMALL)
    return write


@pytest.fixture
def card_page(
    cards: Callable[..., None],
    card_panel: RunningPanel,
    new_context: Callable[..., BrowserContext],
) -> Iterator[Page]:
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in(page, card_panel.url)
    page.goto(f"{card_panel.url}/rig/")
    is_live(page)
    yield page
    page.close()


def test_two_unequal_cards_report_live_and_one_may_be_lost(
    card_page: Page, cards: Callable[..., None]
) -> None:
    big, small = (
        card_page.locator(f'[data-card="{card.uuid}"]') for card in (BIG, SMALL)
    )
    expect(big.locator('[data-value="power"]')).to_have_text("410 / 600 W")
    expect(big.locator('[data-value="link"]')).to_have_text("Gen 5 × 16")
    expect(big.locator('[data-value="memory-total"]')).to_have_text("95.6 GiB")
    expect(small.locator('[data-value="temperature"]')).to_have_text("36 °C")
    expect(small.locator('[data-value="link"]')).to_have_text("Gen 1 × 16 (of 5 × 16)")
    expect(card_page.locator("figure[data-metric=power]")).to_be_visible()
    expect(card_page.locator(".stand-in")).to_have_count(0)

    cards(
        rtx_pro_6000(facts={**BIG.facts, "power": 123_000}),
        rtx_5090(lines=("fail * 15",)),
    )
    expect(small.get_by_role("alert")).to_contain_text("fell off its bus")
    expect(small.locator('[data-value="temperature"]')).to_have_text("N/A")
    expect(big.locator('[data-value="power"]')).to_have_text("123 / 600 W")
    expect(big.locator("[data-problem]")).to_be_hidden()

    cards(BIG, rtx_5090(facts={**SMALL.facts, "reasons": 0x40}))
    expect(small.locator("[data-problem]")).to_be_hidden(timeout=20_000)
    expect(small.locator("[data-slowed]")).to_have_text(
        "Clocks held down by: temperature (hardware)"
    )


def test_a_point_without_neighbours_is_drawn_by_itself(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(panel.url)
    alone = (
        "([values]) => import('/static/js/chart.js').then(({ alone }) => alone(values))"
    )
    for values, places in (
        ([5], [0]),
        ([None, 5, None], [1]),
        ([5, 6], []),
        ([5, None, 6, 7, None, 8], [0, 5]),
        ([], []),
    ):
        assert page.evaluate(alone, [values]) == places, values


def test_a_cards_page_follows_the_card_and_says_why_a_figure_is_missing(
    card_page: Page, cards: Callable[..., None]
) -> None:
    lines = (f"process {os.getpid()} {7 << 30}", f"drawing 1 {3 << 30}")
    cards(BIG, rtx_5090(used_mib=12_000, lines=lines))
    card_page.goto(re.sub("/rig/$", f"/cards/{SMALL.uuid}/", card_page.url))
    now = card_page.locator("#card-now")
    expect(now).to_contain_text("210 of 3090 MHz")
    ecc = now.locator("dt:text-is('ECC') + dd")
    expect(ecc).to_contain_text("not supported by card or driver")
    processes = card_page.locator("#card-processes")
    expect(processes).to_contain_text("7 GiB", timeout=20_000)
    expect(processes).to_contain_text("Other")
    facts = {**SMALL.facts, "clock": 2400, "reasons": 0x40}
    cards(BIG, rtx_5090(used_mib=12_000, lines=lines, facts=facts))
    expect(now).to_contain_text("2400 of 3090 MHz", timeout=10_000)
    expect(now).to_contain_text("temperature (hardware)")
    assert in_four_looks(card_page, "card-now") == []
