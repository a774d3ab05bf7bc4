"""The rig file in a browser: typed, chosen, previewed, refused, applied; by keyboard, on a phone,
in the dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
RIG = """\
deployments:
  - name: from-page
    models: MODEL
    devices: CPU
    settings:
      context: 2048
"""


@pytest.fixture(scope="module")
def rig(panel: RunningPanel) -> Iterator[str]:
    yield RIG.replace("MODEL", panel.document("scan")["models"][0]["name"])


def open_page(page: Page, panel: RunningPanel) -> None:
    page.goto(f"{panel.url}/deployments/")
    page.get_by_role("link", name="Rig file").click()
    # Its script is at work.
    expect(page.get_by_role("button", name="Take what there is now")).to_be_visible()


def names(panel: RunningPanel) -> set[str]:
    return {
        deployment["name"] for deployment in panel.document("status")["deployments"]
    }


def test_a_file_is_previewed_and_applied_by_keyboard_alone(
    page: Page, panel: RunningPanel, rig: str
) -> None:
    open_page(page, panel)
    page.get_by_label("The file", exact=True).focus()
    page.keyboard.insert_text(rig)
    page.get_by_role("button", name="Preview").focus()
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("heading", name="Applying it makes 1 change")
    ).to_be_visible()
    expect(page.get_by_text("deployment from-page added")).to_be_visible()
    expect(page.locator(".diff ins").filter(has_text="name: from-page")).to_be_visible()
    assert "from-page" not in names(panel)
    page.get_by_role("button", name="Apply", exact=True).focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#confirm-dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    assert "from-page" not in names(panel)
    page.get_by_role("button", name="Apply", exact=True).click()
    dialog.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("Applied: deployment from-page added.")).to_be_visible()
    expect(page.locator("#rig-now")).to_contain_text("from-page")
    assert "from-page" in names(panel)


def test_a_changed_text_must_be_previewed_again(
    page: Page, panel: RunningPanel, rig: str
) -> None:
    open_page(page, panel)
    page.get_by_label("The file", exact=True).fill(rig.replace("from-page", "twice"))
    page.get_by_role("button", name="Preview").click()
    button = page.get_by_role("button", name="Apply", exact=True)
    expect(button).to_be_enabled()
    page.get_by_label("The file", exact=True).press("x")
    expect(button).to_be_disabled()
    expect(page.get_by_text("The text is another now")).to_be_visible()
    page.get_by_label("The file", exact=True).press("Backspace")
    expect(button).to_be_enabled()


def test_mistakes_stand_at_their_lines_and_lead_there(
    page: Page, panel: RunningPanel, rig: str
) -> None:
    open_page(page, panel)
    bad = rig.replace("context: 2048", "context: 12") + "    colour: red\n"
    page.get_by_label("The file", exact=True).fill(bad)
    page.get_by_role("button", name="Preview").click()
    expect(
        page.get_by_role("heading", name="2 mistakes; nothing was changed")
    ).to_be_visible()
    field = page.get_by_label("The file", exact=True)
    expect(field).to_have_value(bad)
    expect(page.locator("[data-gutter] b")).to_have_text(
        [re.compile("6"), re.compile("7")]
    )
    page.get_by_role("button", name="Go to line 6").click()
    expect(field).to_be_focused()
    selected = "e => e.value.slice(e.selectionStart, e.selectionEnd)"
    assert field.evaluate(selected) == "      context: 12"


def test_a_chosen_file_goes_into_the_text_and_can_be_taken_back(
    page: Page, panel: RunningPanel, rig: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(rig.replace("\n", "\r\n").encode())
    open_page(page, panel)
    field = page.get_by_label("The file", exact=True)
    field.fill("# mine\n")
    page.get_by_label("Or choose a file").set_input_files(file)
    expect(field).to_have_value(rig)
    field.press("Control+z")
    expect(field).to_have_value("# mine\n")
    page.get_by_role("button", name="Take what there is now").click()
    expect(field).to_have_value(re.compile("^engines:"))
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="Nothing to change")).to_be_visible()


def test_it_can_be_downloaded_and_copied(page: Page, panel: RunningPanel) -> None:
    open_page(page, panel)
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    assert Path(started.value.path()).read_text() == panel.manage("export").stdout
    assert started.value.suggested_filename == "testhost-rig.yaml"


def test_it_fits_and_is_accessible(page: Page, panel: RunningPanel, rig: str) -> None:
    wrong = []
    for name, text in (
        ("changes", rig.replace("from-page", "looked-at")),
        ("mistakes", rig.replace("2048", "12")),
    ):
        page.goto(f"{panel.url}/rig-file/")
        page.get_by_label("The file", exact=True).fill(text)
        page.get_by_role("button", name="Preview").click()
        expect(page.locator("#result h3")).to_be_visible()
        wrong += in_four_looks(page, f"rig-file-{name}")
    assert not wrong, "\n".join(wrong)
