"""A benchmark's report as people see it: light and dark, on a desk, on a phone and on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.bench.documents import BASE, SPEC, SPLIT, document_of, mixed_document
from tests.browser.conftest import log_in
from tests.browser.looks import ARTIFACTS, in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
LONG = "a-deployment-with-a-very-long-name-qwen2.5-coder-32b-instruct"
KEEP = """
import json
from pathlib import Path
from deployments.models import BenchmarkRun
from deployments.services.discovery import local_host
for state, document in json.loads(Path({path!r}).read_text()):
    row = BenchmarkRun.objects.create(host=local_host(), scenario=document["scenario"],
        names=[arm["deployment"] for arm in document["arms"]], concurrency=[1], most_rounds=12,
        gateway="http://127.0.0.1:1", state=state, document=document)
    print("RUN", row.pk)
"""
MANY = [
    replace(SPEC if n % 3 else SPLIT, name=f"{LONG[: 58 - 4 * n]}-{n}", token_ms=28 + n)
    for n in range(12)
]
WHOLE: dict[str, Any] = {"watched": True, "quality": True}
RUNS = {
    "two": ("done", document_of(**WHOLE)),
    "three": ("done", document_of((BASE, SPEC, SPLIT), (1, 4, 16))),
    "mixed": ("done", mixed_document()),
    "one": ("cancelled", document_of((replace(BASE, name=LONG),))),
    "disturbed": (
        "done",
        document_of(
            (replace(BASE, failing=0.2), SPEC), warnings=["CUDA0 was throttled."]
        ),
    ),
    "partial": ("running", document_of(rounds=2, judged=False)),
    "many": ("done", document_of(MANY, (1, 4, 16), rounds=6)),
}


@pytest.fixture(scope="module")
def runs(panel: RunningPanel) -> Iterator[dict[str, str]]:
    """The page of each run, by the name of its document."""
    path = panel.home / "benchmarks.json"
    path.write_text(json.dumps(list(RUNS.values())))
    done = panel.manage("shell", "-v0", "-c", KEEP.format(path=str(path)))
    assert done.returncode == 0, done.stderr
    numbers = [
        line.split()[1] for line in done.stdout.splitlines() if line[:3] == "RUN"
    ]
    yield {
        name: f"/benchmarks/{number}/"
        for name, number in zip(RUNS, numbers, strict=True)
    }
    forget = "from deployments.models import BenchmarkRun; BenchmarkRun.objects.all().delete()"
    panel.manage("shell", "-v0", "-c", forget)


def compared(runs: dict[str, str]) -> str:
    first, second = (runs[name].split("/")[2] for name in ("two", "three"))
    return f"/benchmarks/compared/?a={first}&b={second}"


def test_every_report_fits_and_is_accessible(
    page: Page, panel: RunningPanel, runs: dict[str, str]
) -> None:
    wrong = []
    for name, path in {**runs, "compared": compared(runs)}.items():
        page.goto(panel.url + path)
        for part in page.locator("details.report-more > summary").all():
            part.click()
        # It has the same parts as the others, only more of them.
        asks_axe = False if name == "many" else None
        wrong += in_four_looks(page, f"bench-{name}", asks_axe=asks_axe)
    assert not wrong, "\n".join(wrong)


def test_a_figure_is_explained_at_its_name_by_keyboard(
    page: Page, panel: RunningPanel, runs: dict[str, str]
) -> None:
    page.goto(panel.url + runs["two"])
    about = page.get_by_role("button", name="About time to first token").first
    about.focus()
    page.keyboard.press("Enter")
    text = page.locator("#about-first_token_ms")
    expect(text).to_be_visible()
    expect(text).to_contain_text("From sending the request to the first token")
    expect(text.get_by_role("link", name="In the glossary")).to_be_visible()
    page.keyboard.press("Escape")
    expect(text).not_to_be_visible()
    expect(about).to_be_focused()


def test_a_report_is_taken_along_and_compared(
    page: Page, panel: RunningPanel, runs: dict[str, str]
) -> None:
    page.goto(panel.url + runs["two"])
    with page.expect_download() as waiting:
        page.get_by_role("link", name="JSON").click()
    assert waiting.value.suggested_filename.endswith("-chat.json")
    assert json.loads(waiting.value.path().read_text()) == RUNS["two"][1]

    page.get_by_role("link", name="Compare with another run").click()
    page.get_by_label("B", exact=True).select_option(runs["three"].split("/")[2])
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("No verdict is given.")).to_be_visible()
    expect(page.get_by_role("heading", name="Figures")).to_be_visible()


def test_what_was_unfolded_stays_so_when_the_report_comes_again(
    page: Page, panel: RunningPanel, runs: dict[str, str]
) -> None:
    page.goto(panel.url + runs["two"])
    page.locator("#bench-environment > summary").click()
    page.locator("#spread-output_tps > summary").click()
    page.evaluate("document.querySelector('.report').dataset.old = 'yes'")
    page.evaluate(
        "path => htmx.ajax('GET', path, {target: '.report', select: '.report', swap: 'outerHTML'})",
        runs["two"],
    )
    expect(page.locator(".report[data-old]")).to_have_count(0)
    expect(page.locator("#bench-environment")).to_have_attribute("open", "")
    expect(page.locator("#spread-output_tps")).not_to_have_attribute("open", "")
    expect(page.locator("#spread-first_token_ms")).to_have_attribute("open", "")


def test_on_paper_a_dark_report_is_light_whole_and_without_navigation(
    new_context: Callable[..., BrowserContext],
    panel: RunningPanel,
    runs: dict[str, str],
) -> None:
    # The width that A4 leaves between its margins.
    page = new_context(
        viewport={"width": 703, "height": 1000}, color_scheme="dark"
    ).new_page()
    log_in(page, panel.url)
    page.goto(panel.url + runs["three"])
    page.emulate_media(media="print")
    for hidden in (".nav", ".report-actions", ".about"):
        expect(page.locator(hidden).first).to_be_hidden()
    expect(page.locator("#bench-environment dl").first).to_be_visible()
    text = page.locator(".report-sentence").first
    expect(text).to_have_css("color", "rgb(23, 26, 31)")
    wide = page.evaluate(
        "[...document.querySelectorAll('.report table')].filter(t => t.offsetWidth > 705).length"
    )
    assert wide == 0
    page.screenshot(path=ARTIFACTS / "bench-three-print.png", full_page=True)
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") <= 12
