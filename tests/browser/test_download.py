"""A download from start to model in a real browser, from a hub on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, look
from tests.deployments.big_model import big_model
from tests.deployments.gguf_corpus import smollm2, write_with_package
from tests.deployments.local_hub import LocalHub, Repo
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
REPO = "some-org/Tiny-Model-GGUF"
SIZES_REPO = "some-org/Both-Sizes-GGUF"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_with_package(path)
    small = path.read_bytes()
    large = small + os.urandom(3_000_000)
    files = {
        "Tiny-Q4_K_M.gguf": large,
        "Tiny-Q8_0.gguf": large + b"more",
        "mmproj-Tiny-F16.gguf": small,
    }
    big = big_model(tmp_path_factory.mktemp("big") / "big-Q4_K_M.gguf")
    repos = {
        REPO: Repo(files),
        "some-org/Gated": Repo(files, gated="manual"),
        SIZES_REPO: Repo({"smol-Q8_0.gguf": smollm2(), big.name: big}),
    }
    with LocalHub(repos) as running:
        yield running


@pytest.fixture(autouse=True)
def hub_is_well(hub: LocalHub) -> None:
    """However the test before left it."""
    hub.rate_bps = 0
    hub.ranges = True


@pytest.fixture(scope="module")
def hub_panel(
    tmp_path_factory: pytest.TempPathFactory, hub: LocalHub
) -> Iterator[RunningPanel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HUB_OFFLINE", "0")
        running = RunningPanel(
            tmp_path_factory.mktemp("download-home"), is_prepared=True
        )
        running.start()
        yield running
        running.stop()


@pytest.fixture
def page(new_context: Callable[..., BrowserContext], hub_panel: RunningPanel) -> Page:
    page = new_context(viewport=SIZES["desk"]).new_page()
    log_in(page, hub_panel.url)
    return page


def done_bytes(page: Page) -> float:
    return float(page.locator("progress").first.get_attribute("value") or 0)


def test_from_a_name_to_a_model_with_a_pause_and_a_killed_agent(
    page: Page, hub: LocalHub, hub_panel: RunningPanel
) -> None:
    hub.rate_bps = 400_000
    page.goto(f"{hub_panel.url}/models/")
    page.get_by_role("link", name="Download").first.click()
    page.get_by_label("Name or address").fill(REPO)
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio")).to_have_count(2)
    page.get_by_role("radio", name=re.compile("Q4_K_M")).check()
    page.get_by_role("button", name="Download").click()
    row = page.locator("article.download")
    expect(row.locator(".badge")).to_have_text("Downloading")
    expect(row.locator("[data-progress]")).to_have_text(
        re.compile(r"of .* MiB, .*/s, .* left")
    )
    before = done_bytes(page)
    wait_until(
        lambda: done_bytes(page) > before, 10, "the bar does not move", interval_s=0.1
    )

    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".badge")).to_have_text("Paused")
    page.reload()
    expect(row.locator(".badge")).to_have_text("Paused")
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".badge")).to_have_text("Downloading")

    psutil.Process(hub_panel.child("agent").pid).kill()
    hub.rate_bps = 0
    expect(row.locator(".badge")).to_have_text("Done")
    assert hub.sent_bytes < sum(
        len(content) for content in hub.repos[REPO].files.values()
    )
    row.get_by_role("link", name="Show").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("tiny-q4_k_m")
    expect(page.locator(".badge").first).to_have_text("Ready")
    folder = Path(hub_panel.home, "models", *REPO.split("/"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "Tiny-Q4_K_M.gguf",
        "mmproj-Tiny-F16.gguf",
    ]


def test_a_gated_repository_fails_with_a_way_out_and_can_be_cancelled(
    page: Page, hub: LocalHub, hub_panel: RunningPanel
) -> None:
    page.goto(f"{hub_panel.url}/models/download/?repo=some-org/Gated")
    expect(page.locator("#hub-choices")).to_contain_text("Accept the terms")
    page.get_by_role("button", name="Download").click()
    row = page.locator("article.download").first
    expect(row.locator(".badge")).to_have_text("Failed")
    expect(row).to_contain_text("start Omni with HF_TOKEN")
    expect(row.get_by_role("button", name="Retry")).to_be_visible()
    row.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the download").click()
    expect(row.locator(".badge")).to_have_text("Cancelled")


def test_a_model_is_planned_before_its_download(
    page: Page, hub: LocalHub, hub_panel: RunningPanel
) -> None:
    hub.ranges = False
    page.goto(f"{hub_panel.url}/models/download/?repo={SIZES_REPO}")
    expect(page.get_by_role("button", name="Plan it Q8_0")).to_be_visible()
    # Its name is another one while it is at work.
    plan = page.locator(".plan-it").first
    shown = page.locator("#hub-plan-1")
    expect(shown).to_be_hidden()
    plan.focus()
    page.keyboard.press("Enter")
    expect(shown.get_by_role("alert")).to_contain_text("sends whole files only")

    hub.ranges = True
    hub.rate_bps = 400_000
    page.keyboard.press("Space")
    expect(plan.get_by_text("Reading its header…")).to_be_visible()
    hub.rate_bps = 0
    expect(shown.locator(".way").first).to_contain_text("fits")
    expect(shown.locator(".way").first).to_contain_text("tokens/s")
    expect(shown).to_contain_text("not downloaded")
    # The planner's word stands alone; the other row still has an estimate.
    expect(page.get_by_text("planned below").locator("visible=true")).to_have_count(1)
    planned = page.get_by_role("row").filter(has_text="Q8_0")
    expect(planned.locator(".estimate").locator("visible=true")).to_have_count(0)
    expect(page.locator(".estimate").locator("visible=true").first).to_be_visible()
    expect(plan.get_by_text("Reading its header…")).to_be_hidden()
    expect(plan).to_be_focused()

    before = hub.sent_bytes
    page.get_by_role("button", name="Plan it Q4_K_M").click()
    expect(page.locator("#hub-plan-2")).to_contain_text("Llama 3.3 70B")
    assert hub.sent_bytes - before < 16e6
    assert shown.locator(".way").count()
    page.goto(f"{hub_panel.url}/models/")
    expect(page.locator("main")).not_to_contain_text("Both-Sizes")


@pytest.mark.parametrize(("scheme", "size"), [("light", "desk"), ("dark", "phone")])
def test_the_page_fits_and_is_accessible(
    scheme: str,
    size: str,
    new_context: Callable[..., BrowserContext],
    hub_panel: RunningPanel,
    hub: LocalHub,
) -> None:
    page = new_context(viewport=SIZES[size], color_scheme=scheme).new_page()
    log_in(page, hub_panel.url)
    page.goto(f"{hub_panel.url}/models/download/?repo=some-org/Gated")
    wrong = look(page, f"download-{scheme}-{size}")
    page.goto(f"{hub_panel.url}/models/download/?repo={SIZES_REPO}")
    for number, part in enumerate(("Q8_0", "Q4_K_M"), start=1):
        page.get_by_role("button", name=f"Plan it {part}").click()
        expect(page.locator(f"#hub-plan-{number} .way").first).to_be_visible()
    wrong += look(page, f"download-planned-{scheme}-{size}")
    page.goto(f"{hub_panel.url}/models/")
    page.get_by_role("link", name="smollm2").first.click()
    wrong += look(page, f"model-facts-{scheme}-{size}")
    assert not wrong, "\n".join(wrong)
