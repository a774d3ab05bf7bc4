"""A page that is drawn again loses nothing of whoever uses it: neither a question's answer nor the
keyboard's place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
DEPLOYMENT = """
deployments:
  - name: asked-about
    strategy: independent
    models: {model: smollm2-135m-instruct-q4_1}
    devices: {model: [RPC0]}
"""
SERVER = 'engines: [{name: elsewhere, flavour: external, path: "http://127.0.0.1:1"}]'


def apply(panel: RunningPanel, folder: Path, rig: str) -> None:
    path = folder / "rig.yaml"
    path.write_text(rig)
    applied = panel.manage("apply", str(path))
    assert applied.returncode == 0, applied.stderr


def settled(page: Page, address: str) -> None:
    """Open, and past the fetch that every live part makes once the page's socket is connected."""
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        page.goto(address)
    page.wait_for_load_state("networkidle")


def redraw(page: Page, live: str) -> None:
    """As when something happened to what the page shows."""
    old = page.locator(live).element_handle()
    assert old
    page.locator("body").dispatch_event("resync")
    old.wait_for_element_state("hidden")
    expect(page.locator(live)).to_be_attached()


@pytest.mark.parametrize(
    ("rig", "path", "live", "verb", "then"),
    [
        (
            DEPLOYMENT,
            "/deployments/asked-about/",
            "#deployment-live",
            "Delete",
            "/deployments/",
        ),
        (SERVER, "/servers/elsewhere/", "#server-live", "Remove", "/models/"),
    ],
)
def test_what_is_confirmed_after_the_page_was_redrawn_is_done(
    page: Page,
    panel: RunningPanel,
    tmp_path: Path,
    rig: str,
    path: str,
    live: str,
    verb: str,
    then: str,
) -> None:
    apply(panel, tmp_path, rig)
    settled(page, panel.url + path)
    page.get_by_role("button", name=verb).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    redraw(page, live)
    dialog.get_by_role("button", name=verb).click()
    page.wait_for_url(panel.url + then)
    assert page.goto(panel.url + path).status == 404  # type: ignore[union-attr]


def test_what_an_answer_says_is_told_although_the_page_was_redrawn_meanwhile(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    apply(panel, tmp_path, DEPLOYMENT)
    settled(page, f"{panel.url}/deployments/asked-about/")
    held: list[Route] = []
    page.route("**/start/", lambda route: held.append(route))
    page.get_by_role("button", name="Start").click()
    wait_until(lambda: page.wait_for_timeout(20) or held, 20, "nothing is asked")
    redraw(page, "#deployment-live")
    held[0].continue_(url=f"{panel.url}/deployments/not-there/start/")
    expect(page.locator("#toasts .toast[data-kind=bad]")).to_be_visible()


def test_the_keyboard_stays_where_it_was(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    apply(panel, tmp_path, DEPLOYMENT)
    settled(page, f"{panel.url}/deployments/")
    start = page.get_by_role("button", name="Start asked-about", exact=True)
    start.focus()
    redraw(page, "#deployments-live")
    expect(start).to_be_focused()
    page.get_by_role("link", name="asked-about", exact=True).focus()
    redraw(page, "#deployments-live")
    expect(page.get_by_role("link", name="asked-about", exact=True)).to_be_focused()


def test_a_button_is_clicked_even_if_it_is_replaced_under_the_pointer(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    apply(panel, tmp_path, DEPLOYMENT)
    settled(page, f"{panel.url}/deployments/asked-about/")
    box = page.get_by_role("button", name="Delete").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    with page.expect_response("**/deployments/asked-about/"):
        page.locator("body").dispatch_event("resync")
    page.wait_for_timeout(300)
    with page.expect_response("**/deployments/asked-about/"):
        page.mouse.up()
    expect(page.get_by_role("dialog")).to_contain_text("Delete asked-about?")


def test_what_happens_while_a_part_is_fetched_is_shown(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    """The answer that is on its way shows the state before."""
    apply(panel, tmp_path, DEPLOYMENT)
    settled(page, f"{panel.url}/deployments/")
    late: list[Route] = []

    def answer(route: Route) -> None:
        if late:
            return route.continue_()
        late.append(route)
        before = route.fetch()
        panel.ready("asked-about")
        return route.fulfill(response=before)

    page.route("**/deployments/", answer)
    page.locator("body").dispatch_event("resync")
    row = page.get_by_role("row").filter(has_text="asked-about")
    expect(row.locator(".badge")).to_have_text("ready", timeout=60_000)
    assert late


def test_the_news_since_the_page_was_made_is_asked_for_however_late_its_scripts_come(
    page: Page, panel: RunningPanel, tmp_path: Path
) -> None:
    """The socket may be open before the page is ready to hear of it."""
    apply(panel, tmp_path, DEPLOYMENT)

    def late(route: Route) -> None:
        time.sleep(1.5)
        route.continue_()

    page.route("**/js/log*.js", late)
    settled(page, f"{panel.url}/deployments/asked-about/")
