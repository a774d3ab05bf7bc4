"""Chat side by side on the real engine: three deployments, one prompt, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.chats import (
    begin_chat,
    choose_lanes,
    conversation_number,
    deployed,
    follow_figures,
    live_texts,
    said,
    say,
)
from tests.browser.conftest import log_in
from tests.browser.looks import ARTIFACTS, SIZES, look
from tests.helpers import wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(240)]
NAMES = ["alone", "drafted", "split"]
RIG = """
deployments:
  - name: alone
    models: {model: MODEL}
    devices: {model: [CPU]}
    settings: {context: 2048, batch: 64, ubatch: 64}
  - name: drafted
    strategy: speculative
    models: {target: MODEL, draft: MODEL}
    devices: {target: [CPU], draft: [CPU]}
    settings: {context: 2048}
  - name: split
    strategy: prefill_decode
    models: {prefill: MODEL, decode: MODEL}
    devices: {prefill: [RPC0], decode: [RPC1]}
    settings: {context: 2048, handover_min: 16}
"""
LONG = "Write a very long story about a lighthouse keeper. Use many paragraphs and never stop early."
CODE = (
    "Write a Python function that adds the numbers of a list, with one very long comment, then say"
    " what it does."
)
STORED = """
import json
from chat.models import Message
found = Message.objects.filter(conversation={pk}, role="assistant").order_by("id")
print("STORED", json.dumps([
    [m.deployment_name, m.decode_tps, m.prefill_tps, m.completion_tokens, m.prompt_tokens, m.timings]
    for m in found]))
"""
# What a small model does not do on demand: a lane that failed, one that still lacks an answer, all
# figures.
MIXED = """
from django.contrib.auth.models import User
from chat.models import Conversation, Lane, Message
from deployments.models import Deployment
talk = Conversation.objects.create(owner=User.objects.get(username="admin"), title="How do lanes differ?")
lanes = [Lane.objects.create(conversation=talk, position=n, deployment=Deployment.objects.filter(name=name).first(),
    deployment_name=name) for n, name in enumerate(["alone", "drafted", "split", "gone-with-a-long-name"])]
asked = Message.objects.create(conversation=talk, role="user", content="How do lanes differ? " * 9)
given = dict(conversation=talk, parent=asked, role="assistant", ttft_ms=812.5, decode_tps=31.25, prefill_tps=640.0,
    prompt_tokens=4096, cached_tokens=1024, completion_tokens=512, duration_ms=17_300.0)
table = "| strategy | what it does |\\n| --- | --- |\\n| drafting | guesses ahead, checks in one pass |\\n\\n"
code = "```python\\nanswer = [lane.answer(question, temperature=0, top_p=1) for lane in talk.lanes.all()]\\n```\\n"
Message.objects.create(**given, lane=lanes[0], deployment_name="alone", content="By strategy.\\n\\n" + table + code)
Message.objects.create(**given | {"decode_tps": 62.5}, lane=lanes[1], deployment_name="before", content=code + "Short.",
    timings={"draft_n": 60, "draft_n_accepted": 41,
    "omni_handover": {"save_ms": 3, "restore_ms": 2, "bytes": 13_900_000}})
Message.objects.create(**given, lane=lanes[2], deployment_name="split", state="failed",
    error="The connection to the engine of deployment 'split' broke off.", content="By what they")
print("MADE", talk.pk)
"""


@pytest.fixture(scope="module")
def three(panel: RunningPanel) -> RunningPanel:
    """Three deployments that are ready, each of another strategy."""
    return deployed(panel, RIG, NAMES)


def new_chat(
    page: Page, panel: RunningPanel, tokens: int, names: list[str] = NAMES
) -> None:
    choose_lanes(page, panel, names)
    if names[1:]:
        assert not look(page, "lanes-new")
    begin_chat(page, tokens)


def answers(page: Page) -> Locator:
    return page.locator(".turn-row").last.locator("[data-role=assistant]")


def ended(page: Page, state: str = "done") -> Locator:
    return page.locator(".turn-row").last.locator(
        f'[data-role=assistant][data-state="{state}"]'
    )


def all_grow(page: Page) -> None:
    def lengths() -> bool:
        found = [
            len(text)
            for text in page.locator(".turn-row")
            .last.locator("[data-answer]")
            .all_inner_texts()
        ]
        return len(found) == 3 and min(found) > 30

    wait_until(lengths, 30, "not all lanes write")


def stored(page: Page, panel: RunningPanel) -> list[list[Any]]:
    return said(panel, STORED.format(pk=conversation_number(page)), "STORED")


def test_one_prompt_goes_to_three_lanes_and_each_shows_its_own_figures(
    page: Page, three: RunningPanel
) -> None:
    new_chat(page, three, 80)
    say(page, LONG)
    expect(
        page.locator("[data-live-figures] [data-figure=decode]").first
    ).to_contain_text(re.compile(r"Decode [\d.]+ tokens/s"))
    expect(ended(page)).to_have_count(3, timeout=60_000)
    rows = {row[0]: row[1:] for row in stored(page, three)}
    assert list(rows) == NAMES
    for n, (name, (decode, prefill, completion, prompt, timings)) in enumerate(
        rows.items()
    ):
        shown = answers(page).nth(n).locator("[data-figures]").inner_text()
        assert (
            completion == timings["predicted_n"]
            and prompt == timings["prompt_n"] + timings["cache_n"]
        ), name
        assert decode == pytest.approx(
            (timings["predicted_n"] - 1) / timings["predicted_ms"] * 1000
        ), name
        assert f"{completion} tokens" in shown and f"Prompt {prompt}" in shown, name
        # Where another instance read the prompt, what the answering one still read is no rate of
        # prefill.
        is_transferred = name == "split"
        assert ("prefill_ms" in timings.get("omni_handover", {})) is is_transferred
        assert _rates(shown) == pytest.approx(
            [decode] if is_transferred else [decode, prefill], rel=0.06
        ), name
        assert ("KV handed over in" in shown) is is_transferred
        assert "First token" in shown
    drafted = rows["drafted"][-1]
    assert drafted["draft_n"] >= drafted["draft_n_accepted"] > 0
    kept = f"{drafted['draft_n_accepted']} of {drafted['draft_n']} drafts accepted"
    assert kept in answers(page).nth(1).inner_text()
    expect(page.locator(".compared").last).to_contain_text(
        "alone and drafted shared CPU"
    )


def test_how_far_the_prompt_is_read_and_the_speed_are_shown_live(
    page: Page, three: RunningPanel
) -> None:
    new_chat(page, three, 200, NAMES[:1])
    follow_figures(page)
    say(page, f"{'The sea is wide and deep. ' * 180} {LONG}")
    expect(page.locator("[data-working]")).to_contain_text(
        re.compile(r"Reading the prompt: \d+ % of \d+ tokens")
    )
    assert not look(page, "lanes-live-prompt")
    page.locator("[data-live-figures] [data-figure=tokens]").wait_for()
    assert (
        page.locator(
            "[aria-live] [data-live-figures], [role=status] [data-live-figures]"
        ).count()
        == 0
    )
    page.reload()
    follow_figures(page)
    expect(
        page.locator("[data-live-figures] [data-figure=first_token]")
    ).to_contain_text(re.compile(r"First token [\d.]+ s"))
    expect(ended(page)).to_have_count(1, timeout=60_000)
    ((_, _, _, completion, prompt, timings),) = stored(page, three)
    expect(page.locator("[data-live-figures]")).to_have_count(0)
    counts = [int(text.split()[0]) for text in live_texts(page)["tokens"]]
    assert counts == sorted(counts) and counts[-1] <= completion
    assert timings["predicted_n"] == completion
    shown = answers(page).locator("[data-figures]")
    expect(shown).to_contain_text(f"Prompt {prompt}")
    expect(shown.locator("[data-figure=energy]")).to_have_attribute(
        "title", "CPU tells no power."
    )


def test_an_answer_that_is_stopped_while_its_prompt_is_read_shows_what_is_known(
    page: Page, three: RunningPanel
) -> None:
    new_chat(page, three, 200, NAMES[:1])
    follow_figures(page)
    say(page, f"{'The moor is wide and wet. ' * 200} {LONG}")
    parts = r"Reading the prompt: (\d+) % of (\d+) tokens"
    wait_until(
        lambda: len(re.findall(parts, str(live_texts(page).get("doing")))) > 2,
        30,
        "it is not told how far the prompt is read",
    )
    page.keyboard.press("Escape")
    expect(ended(page, "stopped")).to_have_count(1)
    heard = live_texts(page)
    found = re.findall(parts, str(heard["doing"]))
    percents = [int(percent) for percent, _ in found]
    assert percents == sorted(percents) and percents[0] < percents[-1] <= 100
    seconds = [float(text.split()[2]) for text in heard["first_token"][1:]]
    assert len(seconds) > 2 and seconds == sorted(seconds), seconds
    assert any("tokens/s" in text for text in heard["prefill"])
    shown = answers(page).locator("[data-figures]")
    expect(shown).to_contain_text("First token N/A")
    expect(shown).to_contain_text(f"Prompt {found[-1][1]}")


def _rates(shown: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) tokens/s", shown)]


def test_one_lane_is_stopped_then_all_and_a_reload_shows_the_same(
    page: Page, three: RunningPanel, new_context: Callable[..., BrowserContext]
) -> None:
    new_chat(page, three, 900)
    say(page, LONG)
    all_grow(page)
    assert not look(page, "lanes-live")
    page.get_by_role("button", name="Stop drafted").click()
    expect(ended(page, "stopped")).to_have_count(1)
    assert page.locator('[data-state="streaming"][data-role]').count() == 2
    page.reload()
    all_grow(page)
    phone = new_context(viewport=SIZES["phone"], has_touch=True).new_page()
    log_in(phone, three.url)
    phone.goto(page.url)
    all_grow(phone)
    phone.locator("[data-tab]").nth(2).click()
    wait_until(
        lambda: settled(phone),
        5,
        "what streams keeps the phone from going to the third lane",
    )
    expect(page.get_by_role("button", name="Stop all lanes")).to_be_visible()
    page.keyboard.press("Escape")
    expect(ended(page, "stopped")).to_have_count(3)
    shown = page.locator("[data-answer]").all_inner_texts()
    page.reload()
    assert page.locator("[data-answer]").all_inner_texts() == shown
    expect(ended(phone, "stopped")).to_have_count(3)
    assert (
        phone.locator("[data-answer]").all_text_contents()
        == page.locator("[data-answer]").all_text_contents()
    )


def test_a_lane_is_added_asked_regenerated_and_removed(
    page: Page, three: RunningPanel
) -> None:
    new_chat(page, three, 12, NAMES[:1])
    say(page, "Say hello.")
    expect(ended(page)).to_have_count(1)
    page.get_by_text("Add a lane").click()
    assert not look(page, "lanes-add")
    page.get_by_role("button", name=re.compile("^drafted")).click()
    expect(page.locator(".lane-head")).to_have_count(2)
    page.get_by_role("button", name="Ask it now").click()
    expect(ended(page)).to_have_count(2)
    page.get_by_role("button", name="Regenerate").last.click()
    expect(answers(page).last).to_contain_text("2/2")
    expect(page.locator("form[data-confirm*='2 answers']")).to_have_count(1)
    page.keyboard.press("Alt+1")
    expect(answers(page).first).to_be_focused()
    page.get_by_label("Lane 2: change or remove").click()
    page.get_by_role("button", name="Remove this lane").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Its 2 answers will be deleted")
    dialog.get_by_role("button", name="Remove").click()
    expect(page.locator(".lane-head")).to_have_count(0)
    expect(ended(page)).to_have_count(1)


def test_what_changes_under_an_open_menu_is_shown_when_it_is_closed(
    page: Page, three: RunningPanel
) -> None:
    new_chat(page, three, 4, NAMES[:2])
    page.wait_for_load_state("networkidle")
    badge = page.locator(".lane-head").first.locator(".badge").first
    page.get_by_label("Lane 1: change or remove").click()
    with page.expect_response("**/lanes/"):
        three.manage("stop", NAMES[0], "--wait", "120")
    page.wait_for_timeout(500)
    expect(page.get_by_role("button", name="Remove this lane").first).to_be_visible()
    expect(badge).to_have_text("ready")
    page.keyboard.press("Escape")
    expect(badge).to_have_text("stopped")
    three.ready(NAMES[0])
    expect(badge).to_have_text("ready")


@pytest.fixture(scope="module")
def shown(chromium: Browser, three: RunningPanel) -> str:
    """The address of a conversation with two turns in three lanes."""
    page = chromium.new_context(viewport=SIZES["desk"]).new_page()
    log_in(page, three.url)
    new_chat(page, three, 48)
    for n, text in enumerate((CODE, "Tell me about the sea in three sentences."), 1):
        say(page, text)
        expect(page.locator(".turn-row")).to_have_count(n)
        expect(ended(page)).to_have_count(3, timeout=60_000)
    page.context.close()
    return page.url


def settled(page: Page) -> bool:
    """Whether the third lane stands just where the box of the conversation begins."""
    return page.evaluate("""() => {
            const box = document.querySelector("[data-scroller]").getBoundingClientRect();
            const cell = document.querySelector(".cell:nth-child(3)").getBoundingClientRect();
            return Math.abs(cell.left - box.left - 16) < 1 && Math.abs(cell.right - box.right + 16) < 1;
        }""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_lanes_fit_and_are_accessible(
    scheme: str,
    size: str,
    new_context: Callable[..., BrowserContext],
    three: RunningPanel,
    shown: str,
) -> None:
    page = new_context(
        viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone"
    ).new_page()
    log_in(page, three.url)
    page.goto(shown)
    wrong = look(page, f"lanes-{scheme}-{size}")
    if size == "phone":
        page.locator("[data-tab]").nth(2).click()
        expect(page.locator("#chat")).to_have_attribute("data-shown", "3")
        wait_until(lambda: settled(page), 5, "the swipe does not end")
        expect(page.locator("[data-tab]").nth(2)).to_have_attribute(
            "aria-current", "true"
        )
        wrong += look(page, f"lanes-third-{scheme}-{size}")
    page.get_by_label(
        "Lane 2: change or remove" if size == "desk" else "Lane 3: change or remove"
    ).click()
    wrong += look(page, f"lanes-menu-{scheme}-{size}")
    assert not wrong, "\n".join(wrong)


def test_four_lanes_with_a_failed_and_an_unasked_one_fit(
    new_context: Callable[..., BrowserContext], three: RunningPanel
) -> None:
    made = three.manage("shell", "-v0", "-c", MIXED)
    assert made.returncode == 0, made.stderr
    wrong = []
    for size in SIZES:
        page = new_context(viewport=SIZES[size]).new_page()
        log_in(page, three.url)
        page.goto(f"{three.url}/chat/{made.stdout.split('MADE ')[1].strip()}/")
        expect(page.locator(".cell").nth(1)).to_contain_text(
            "41 of 60 drafts accepted (68 %)"
        )
        expect(page.locator(".cell").nth(1)).to_contain_text(
            "KV handed over in 5 ms, 13.3 MiB"
        )
        page.keyboard.press("Alt+2")
        expect(page.locator(".cell").nth(1).locator("article")).to_be_focused()
        page.wait_for_timeout(600)
        wrong += look(page, f"lanes-mixed-{size}")
    assert not wrong, "\n".join(wrong)


TALL = """
from chat.models import Conversation, Lane, Message
talk = Conversation.objects.get(pk={pk})
asked = Message.objects.filter(conversation=talk, role="user").first()
first = talk.lanes.order_by("position").first()
Message.objects.filter(conversation=talk, lane=first).update(content="One paragraph of many.\\n\\n" * 120)
"""


def test_a_long_answer_scrolls_by_itself_and_leaves_no_column_blank(
    page: Page, three: RunningPanel
) -> None:
    made = three.manage("shell", "-v0", "-c", MIXED)
    pk = made.stdout.split("MADE ")[1].strip()
    assert three.manage("shell", "-v0", "-c", TALL.format(pk=pk)).returncode == 0
    page.goto(f"{three.url}/chat/{pk}/")
    page.screenshot(path=ARTIFACTS / "lanes-tall-desk.png")
    cells = page.locator(".turn-row").last.locator(".cell")
    tall, short = cells.nth(0), cells.nth(1)
    assert tall.evaluate("cell => cell.scrollHeight > 2 * cell.clientHeight")
    tall.evaluate("cell => { cell.scrollTop = 500; }")
    assert short.evaluate("cell => cell.scrollTop") == 0
    expect(tall.get_by_text("One paragraph of many.").nth(20)).to_be_in_viewport()
    expect(short.locator("[data-answer]")).to_be_in_viewport(ratio=0.2)


def test_names_that_begin_alike_are_told_apart_in_the_heads(
    page: Page, three: RunningPanel
) -> None:
    made = three.manage("shell", "-v0", "-c", MIXED)
    page.goto(f"{three.url}/chat/{made.stdout.split('MADE ')[1].strip()}/")
    head = page.locator(".lane-title h2").last
    expect(head).to_have_text("gone-with-a-long-name")
    assert head.evaluate(
        "head => head.scrollWidth <= head.clientWidth && head.scrollHeight <= head.clientHeight + 1"
    )
