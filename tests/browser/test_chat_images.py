"""Images in the chat: attached, shown small, sent, answered by the real engine, kept."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.chats import begin_chat, choose_lanes, say, scripts_have_run
from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks, in_two_looks
from tests.chat.pictures import ZIP, photo
from tests.panel import RunningPanel
from tests.vision_models import Eye, png, write_projector

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(240)]
RIG = """
deployments:
  - name: seer
    models: {model: MODEL, projector: EYES}
    devices: {model: [CPU]}
    settings: {context: 2048}
  - name: texts
    models: {model: MODEL}
    devices: {model: [CPU]}
    settings: {context: 2048}
"""
# As from the clipboard or from another window: a picture, with nothing beside it.
HAND_OVER = """([kind, name, encoded, type]) => {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    const target = document.getElementById("composer");
    target.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
# A WebP as a browser makes it.
WEBP = """() => new Promise((done) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
    canvas.toBlob((blob) => blob.arrayBuffer().then((all) =>
        done(btoa(String.fromCharCode(...new Uint8Array(all))))), "image/webp");
})"""
IS_SHOWN = "(image) => image.complete && image.naturalWidth > 0"


@pytest.fixture(scope="module")
def two(panel: RunningPanel, tmp_path_factory: pytest.TempPathFactory) -> RunningPanel:
    """One deployment that sees and one that does not."""
    folder = tmp_path_factory.mktemp("eyes")
    write_projector(folder / "mmproj-eyes.gguf", Eye())
    models = panel.document("scan")["models"]
    (eyes,) = panel.document("scan", str(folder))["models"]
    rig = RIG.replace("MODEL", models[0]["name"]).replace("EYES", eyes["name"])
    path = panel.home / "eyes.yaml"
    path.write_text(rig)
    applied = panel.manage("apply", str(path), "--start")
    assert applied.returncode == 0, applied.stderr
    for name in ("seer", "texts"):
        panel.ready(name)
    return panel


def new_chat(page: Page, panel: RunningPanel, *names: str) -> None:
    choose_lanes(page, panel, names)
    begin_chat(page, 8)
    scripts_have_run(page)


def attach(page: Page, *files: tuple[str, bytes]) -> None:
    page.get_by_label("Attach images").set_input_files(
        [
            {"name": name, "mimeType": "image/png", "buffer": data}
            for name, data in files
        ]
    )


def hand_over(page: Page, kind: str, name: str, data: bytes, sort: str) -> None:
    encoded = base64.b64encode(data).decode()
    page.evaluate(HAND_OVER, [kind, name, encoded, sort])


def waiting(page: Page) -> Locator:
    return page.get_by_role("list", name="Images to be sent").get_by_role("img")


def sent(page: Page) -> Locator:
    return page.get_by_role("list", name="Attached images").get_by_role("img")


def answer(page: Page, state: str = "done") -> Locator:
    return page.locator(f'[data-role=assistant][data-state="{state}"]')


def test_images_are_attached_removed_sent_answered_and_kept(
    page: Page, two: RunningPanel
) -> None:
    new_chat(page, two, "seer")
    page.get_by_label("Message").fill("What is it?")
    attach(page, ("cat.png", png(64, 48)), ("dog.png", png(48, 64)))
    expect(waiting(page)).to_have_count(2)
    hand_over(page, "paste", "pasted.png", png(80, 80), "image/png")
    expect(waiting(page)).to_have_count(3)
    webp = base64.b64decode(page.evaluate(WEBP))
    hand_over(page, "drop", "dropped.webp", webp, "image/webp")
    expect(waiting(page)).to_have_count(4)
    assert waiting(page).last.evaluate(IS_SHOWN)

    # By keyboard, and focus goes to the next.
    page.get_by_role("button", name="Remove dog.png").focus()
    page.keyboard.press("Enter")
    expect(waiting(page)).to_have_count(3)
    expect(page.get_by_role("button", name="Remove pasted.png")).to_be_focused()

    # Nothing is lost by a reload.
    page.reload()
    expect(waiting(page)).to_have_count(3)
    expect(page.get_by_label("Message")).to_have_value("What is it?")
    scripts_have_run(page)

    other = page.context.new_page()
    other.goto(page.url)
    scripts_have_run(other)
    page.get_by_label("Message").press("Enter")
    expect(answer(page)).to_have_count(1)
    expect(waiting(page)).to_have_count(0)
    for each in (page, other):
        expect(sent(each)).to_have_count(3)
        assert sent(each).first.evaluate(IS_SHOWN)
    expect(sent(page).first).to_have_attribute(
        "alt", "Attached image 1: PNG, 64 × 48, opens full size"
    )
    other.close()

    page.reload()
    expect(sent(page)).to_have_count(3)
    assert not in_two_looks(page, "chat-images-thread")
    # The images go along with the next question, and an edited one keeps them.
    say(page, "And its colour?")
    expect(answer(page)).to_have_count(2)
    expect(page.locator(".notice[data-kind=bad]")).to_have_count(0)


def test_an_image_alone_is_sent_and_its_question_edited(
    page: Page, two: RunningPanel
) -> None:
    new_chat(page, two, "seer")
    attach(page, ("cat.png", png()))
    expect(waiting(page)).to_have_count(1)
    page.get_by_label("Message").press("Enter")
    expect(answer(page)).to_have_count(1)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Your text, to be sent again").fill("Who is it?")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("[data-said]")).to_have_text("Who is it?")
    expect(sent(page)).to_have_count(1)
    expect(answer(page)).to_have_count(1)


def test_what_is_refused_is_said_and_nothing_else_is_lost(
    page: Page, two: RunningPanel
) -> None:
    new_chat(page, two, "seer")
    page.get_by_label("Message").fill("What is it?")
    note = page.locator("[data-attach-note]")
    attach(page, ("cat.png", png()), ("packed.png", ZIP), ("cut.png", png()[:40]))
    expect(note).to_contain_text("packed.png: The file is no image that can be sent.")
    expect(note).to_contain_text("cut.png: The PNG file is cut off or broken.")
    expect(waiting(page)).to_have_count(1)
    attach(page, ("large.png", ZIP + bytes(5 << 20)))
    expect(note).to_have_text("large.png: it has 5.0 MiB; an image may have 5 MiB.")
    attach(page, *[(f"{n}.png", png()) for n in range(100)])
    expect(note).to_have_text("A message has at most 4 images; 97 left out.")
    expect(waiting(page)).to_have_count(4)
    expect(page.get_by_label("Message")).to_have_value("What is it?")


def test_while_the_panel_is_away_it_is_said_and_the_text_stays(
    page: Page, two: RunningPanel
) -> None:
    new_chat(page, two, "seer")
    page.get_by_label("Message").fill("What is it?")
    page.context.set_offline(True)
    attach(page, ("cat.png", png()))
    note = page.locator("[data-attach-note]")
    expect(note).to_have_text(
        "cat.png: the panel could not be reached. Attach it again."
    )
    expect(waiting(page)).to_have_count(0)
    page.context.set_offline(False)
    attach(page, ("cat.png", png()))
    expect(waiting(page)).to_have_count(1)
    expect(note).to_have_text("")
    expect(page.get_by_label("Message")).to_have_value("What is it?")


def test_a_photo_that_is_too_large_is_made_smaller_and_that_is_said(
    page: Page, two: RunningPanel
) -> None:
    new_chat(page, two, "seer")
    attach(page, ("photo.png", photo()))
    note = page.locator("[data-attach-note]")
    expect(note).to_have_text(
        "photo.png: it was made smaller, from 2304 × 1024 pixels."
    )
    page.get_by_label("Message").press("Enter")
    expect(sent(page)).to_have_attribute("alt", re.compile(r"JPEG, 2048 × 910"))
    expect(answer(page)).to_have_count(1)


def test_a_lane_without_vision_is_told_before_and_fails_alone(
    new_context: Callable[..., BrowserContext], two: RunningPanel, tmp_path: Path
) -> None:
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in(page, two.url)
    new_chat(page, two, "seer", "texts")
    warning = page.get_by_text("texts takes no images and will answer with an error.")
    expect(warning).to_be_hidden()
    page.get_by_label("Message").fill("What is it?")
    attach(page, ("a.png", png(320, 200)), ("b.png", png(200, 320)))
    expect(waiting(page)).to_have_count(2)
    expect(warning).to_be_visible()
    wrong = in_four_looks(page, "chat-images-attached")
    page.get_by_label("Message").press("Enter")
    expect(answer(page)).to_have_count(1)
    expect(answer(page, "failed")).to_contain_text(
        "Deployment 'texts' takes no images. These do: seer."
    )
    expect(sent(page)).to_have_count(2)
    wrong += in_four_looks(page, "chat-images-sent")
    assert not wrong, wrong


def test_where_nothing_sees_the_button_says_why(page: Page, two: RunningPanel) -> None:
    new_chat(page, two, "texts")
    button = page.get_by_role("button", name="Attach images")
    expect(button).to_have_attribute("aria-disabled", "true")
    why = "This lane takes no images. These deployments do: seer."
    expect(button).to_have_accessible_description(why)
    button.press("Enter")
    expect(page.locator("[data-attach-note]")).to_have_text(why)
    hand_over(page, "paste", "pasted.png", png(), "image/png")
    expect(waiting(page)).to_have_count(0)
    assert not in_two_looks(page, "chat-images-none")
