"""The history in a browser: a span is chosen, zoomed, compared with another, and marks are seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks
from tests.gateway.served import Served
from tests.helpers import wait_until
from tests.panel import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PREPARE = """
import math, time
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from gpus.buckets import save_buckets
from gpus.discovery import save_rig
from gpus.marks import mark
from gpus.models import HistoryMark, Host
from gpus.rollup import Bucket
from gpus.sample import CardIdentity, NvmlState
if not User.objects.filter(username="admin").exists():
    User.objects.create_superuser("admin", password={password!r})
host = Host.objects.get_or_create(name="testhost")[0]
save_rig(host, NvmlState("ok"), (CardIdentity(0, "GPU-1", "NVIDIA GeForce RTX 5090"),))
end = time.time() // 60 * 60
def waves(key, metric, middle, swing, titles=None):
    save_buckets(host, [
        Bucket(key, metric, int(end - 60 * n), value - swing / 9, value, value + swing / 9, 120)
        for n in range(3000) if not 400 < n < 520
        for value in [middle + swing * math.sin(n / 170) * math.cos(n / 33)]
    ], titles)
waves("GPU-1", "utilisation_percent", 55, 40)
waves("GPU-1", "memory_used_bytes", 20e9, 8e9)
waves("GPU-1", "power_watts", 380, 150)
waves("host", "cpu_percent", 30, 20)
waves("deployment:1", "output_tps", 90, 60, {{"deployment:1": "coder"}})
waves("deployment:1", "first_token_ms", 400, 200)
for age_h, kind, subject, text in (
    (7, "started", "deployment:1", "coder (model) is ready"),
    (5, "run", "", "Benchmark 3: chat of coder began"),
    (4.5, "run", "", "Benchmark 3: chat of coder ended (done)"),
    (2, "crashed", "deployment:1", "coder (model) crashed: killed by signal 9"),
    (0.5, "stopped", "deployment:2", "writer (model) stopped"),
):
    mark(host, HistoryMark.Kind(kind), text, subject, at=timezone.now() - timedelta(hours=age_h))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("history"))
    running.prepare({})
    running.shell(PREPARE.format(password=PASSWORD))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def page(new_context: Callable[..., BrowserContext], served: Served) -> Page:
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in(page, served.url)
    return page


def shown_span_s(page: Page) -> int:
    return int(parse_qs(urlsplit(page.url).query)["span"][0])


def plot(page: Page, metric: str = "power_watts") -> Locator:
    return page.locator(f"figure[data-metric={metric}] .u-over")


def test_a_span_is_chosen_zoomed_moved_and_compared(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/history/?subject=GPU-1")
    expect(page.get_by_role("heading", name="NVIDIA GeForce RTX 5090")).to_be_visible()
    expect(plot(page)).to_be_visible()
    expect(page.locator("#history-missing")).to_have_text(
        "N/A in this span: Temperature, Core clock"
    )
    page.get_by_role("button", name="24 h", exact=True).click()
    expect(page.locator("#history-span")).to_contain_text("a point every 5 min")
    marks = page.locator("#history-mark-rows tr")
    expect(marks).to_have_count(5)
    expect(marks.first).to_contain_text("writer (model) stopped")
    expect(page.locator(".history-key")).to_contain_text("✕Crashed")

    plot(page).scroll_into_view_if_needed()
    box = plot(page).bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
    page.mouse.up()
    expect(page.locator("#history-span")).to_contain_text("a point every 1 min")
    assert abs(shown_span_s(page) - 6 * 3600) < 600
    expect(page.get_by_role("button", name="24 h", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )

    page.locator("#history-charts").focus()
    page.keyboard.press("-")
    wait_until(lambda: abs(shown_span_s(page) - 12 * 3600) < 1200, 5, "no zoom by key")
    begin = page.get_by_label("From", exact=True).input_value()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("From", exact=True)).not_to_have_value(begin)

    page.get_by_role("button", name="Live").click()
    page.get_by_label("Compare with").select_option("86400")
    power = page.locator("figure[data-metric=power_watts]")
    expect(power.locator(".u-legend")).to_contain_text("mean before")
    page.get_by_text("The charts as a table").click()
    expect(page.locator("#history-table thead")).to_contain_text("Change")
    expect(page.locator("#history-rows tr").first.locator("td")).to_have_count(5)
    expect(page.locator("#history-rows")).to_contain_text(re.compile(r"[+-]?\d+\.\d %"))


def test_dates_are_typed_and_kept_in_the_address(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/history/?subject=GPU-1&span=3600")
    expect(plot(page)).to_be_visible()
    page.get_by_label("From", exact=True).fill("2020-01-01T00:00")
    page.get_by_label("To", exact=True).fill("2020-01-02T00:00")
    page.get_by_role("button", name="Show").last.click()
    expect(page.get_by_text("Nothing kept of this span")).to_be_visible()
    assert shown_span_s(page) == 24 * 3600
    page.reload()
    expect(page.get_by_label("From", exact=True)).to_have_value("2020-01-01T00:00")
    page.get_by_label("To", exact=True).fill("2019-01-01T00:00")
    page.get_by_role("button", name="Show").last.click()
    expect(page.locator("#history-bad")).to_be_visible()


def test_the_file_has_the_span_that_is_shown(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/history/?subject=host&span=86400")
    expect(plot(page, "cpu_percent")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0] == "time,metric,minimum,mean,maximum,samples" and len(lines) > 200


def test_another_subject_keeps_the_span(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/history/?subject=GPU-1&span=86400")
    expect(plot(page)).to_be_visible()
    page.get_by_label("History of").select_option("deployment:1")
    expect(page.get_by_role("heading", name="coder")).to_be_visible()
    expect(plot(page, "output_tps")).to_be_visible()
    assert shown_span_s(page) == 86400
    expect(page.locator("#history-mark-rows tr")).to_have_count(4)


def test_a_cards_page_has_the_same_charts(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/cards/GPU-1/")
    expect(plot(page)).to_be_visible()


def test_it_looks_right_everywhere(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/history/?subject=GPU-1&span=86400&compare=86400")
    expect(plot(page)).to_be_visible()
    wrong = in_four_looks(page, "history-card")
    page.goto(f"{served.url}/history/?subject=deployment:1&span=86400")
    expect(plot(page, "output_tps")).to_be_visible()
    wrong += in_four_looks(page, "history-deployment")
    page.goto(f"{served.url}/history/?subject=nobody")
    wrong += in_four_looks(page, "history-empty")
    assert not wrong
