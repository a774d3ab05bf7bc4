"""The first page of a machine without a GPU: the model runs on the CPU, and stand-ins are a
button."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.panel import RunningPanel

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"
SIZES = {"desk": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    running = RunningPanel(
        tmp_path_factory.mktemp("no-gpu") / "home", stand_ins=0, is_prepared=True
    )
    running.start()
    assert running.manage("scan").returncode == 0
    yield running
    running.stop()


def rig(
    panel: RunningPanel, new_context: Callable[..., BrowserContext], **options: object
) -> Page:
    page = new_context(**options).new_page()
    log_in(page, panel.url)
    page.goto(f"{panel.url}/rig/")
    expect(page.locator("#stand-ins")).to_be_visible()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_rig_page_offers_stand_ins_and_says_what_they_are(
    panel: RunningPanel,
    new_context: Callable[..., BrowserContext],
    size: str,
    scheme: str,
) -> None:
    page = rig(panel, new_context, viewport=SIZES[size], color_scheme=scheme)
    expect(page.locator("#stand-ins")).to_contain_text(
        "No GPU was found: models run on the CPU"
    )
    expect(page.get_by_role("button", name="Add two stand-ins")).to_be_visible()
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(
        path=str(ARTIFACTS / f"rig-without-gpu-{size}-{scheme}.png"), full_page=True
    )


def test_one_click_runs_the_model_on_the_cpu_and_another_adds_stand_ins(
    panel: RunningPanel, new_context: Callable[..., BrowserContext]
) -> None:
    page = rig(panel, new_context)
    page.goto(panel.url)
    page.get_by_role("button", name="Deploy").first.click()
    page.wait_for_url("**/deployments/*/")
    page.goto(f"{panel.url}/rig/")
    page.get_by_role("button", name="Add two stand-ins").click()
    expect(page.locator('[data-card="RPC1"]')).to_contain_text("CPU-backed stand-in")
    expect(page.locator('[data-card="RPC1"] [data-value="memory"]')).to_contain_text(
        "iB", timeout=30_000
    )
    [name] = [row["name"] for row in panel.document("status")["deployments"]]
    panel.ready(name)
    assert "--device none" in " ".join(panel.engines()[0].cmdline())
