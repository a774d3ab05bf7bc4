"""The Plan page in a browser: knobs, reasons, proposed fixes, and what is deployed is what was
shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from gpus.host import memory
from tests.browser.conftest import log_in
from tests.panel import RunningPanel, arguments

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
# More than the model was trained for, which is planned with what can be used; with so many requests
# and such batches that is more than a machine has.
HUGE = "4000000"
MANY = "device=RPC0&gpu_layers=all&parallel=64&kv_unified=on&batch=65536&ubatch=65536"

# Where not even one request's part of them fits, no context is offered instead.
has_room = pytest.mark.skipif(
    memory()[0] < 8 << 30, reason="the smallest of what is offered needs 8 GiB"
)


def opened(page: Page, panel: RunningPanel) -> Locator:
    """The Plan page, asked for by a click, with RPC0 alone; the row of the independent strategy,
    open."""
    page.goto(panel.url)
    page.get_by_role("link", name="Plan", exact=True).click()
    expect(page.get_by_role("heading", name="Plan", exact=True)).to_be_visible()
    page.get_by_label("Model", exact=True).select_option(index=0)
    for name in ("RPC1", "CPU"):
        page.get_by_role("checkbox", name=re.compile(f"^{name}")).set_checked(False)
    page.get_by_role("checkbox", name=re.compile("^RPC0")).set_checked(True)
    expect(page).to_have_url(re.compile("device=RPC0$"))
    return unfolded(page.locator("#plan-independent"))


def unfolded(card: Locator) -> Locator:
    """The same row, opened by a click where it is closed, with what it is folded among."""
    page = card.page
    rest = page.locator("#plan-rest:not([open]) > summary")
    if card.locator("summary").first.is_hidden() and rest.count():
        rest.click()
    line = card.locator("details:not([open]) > .plan-line")
    if line.count():
        line.click()
    expect(card.locator(".plan-body")).to_be_visible()
    return card


def context(page: Page) -> Locator:
    return page.get_by_label("Context (tokens)", exact=True)


def shown_argv(card: Locator) -> list[str]:
    """The command as a shell would take it, without the variables in front of it."""
    words = shlex.split(card.locator(".command pre").first.text_content() or "")
    return words[next(place for place, word in enumerate(words) if "=" not in word) :]


@has_room
def test_too_long_a_context_is_explained_fixed_and_deployed_exactly_as_shown(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/plan/?{MANY}")
    card = page.locator("#plan-independent")
    context(page).fill(HUGE)
    expect(card.locator(".verdict")).to_have_text("does not fit")
    expect(card).to_contain_text("RPC0 would have to hold")
    expect(card.get_by_text("Deploy this")).to_have_count(0)
    expect(page).to_have_url(re.compile(f"context={HUGE}"))

    unfolded(card)
    card.get_by_role("link", name=re.compile("^Use context")).first.click()
    expect(card.locator(".verdict")).to_have_text(re.compile(r"^\s*(fits|caution)\s*$"))
    expect(card.locator(".plan-line")).to_be_focused()
    expect(card.locator(".plan-body")).to_be_visible()
    fixed = int(context(page).input_value())
    assert 256 <= fixed < int(HUGE)
    expect(page).to_have_url(re.compile(f"context={fixed}"))

    # As long a context as fits is much for a test machine: a short one is deployed, for one
    # request.
    card = opened(page, panel)
    context(page).fill("2048")
    expect(page).to_have_url(re.compile("context=2048"))
    card.get_by_label("Name").fill("planned")
    card.get_by_text("Command", exact=True).click()
    shown = shown_argv(card)
    assert "planned" in shown
    card.get_by_role("button", name="Deploy this").click()
    expect(page).to_have_url(f"{panel.url}/deployments/planned/")
    expect(page.locator('.badge[data-state="ready"]').first).to_be_visible(
        timeout=40_000
    )
    running = [
        argv for engine in panel.engines() if "planned" in (argv := arguments(engine))
    ]
    assert running == [shown], "the socket's path is named after the deployment"
    # The device serves one engine at a time, and other tests want it.
    assert panel.manage("stop", "planned", "--wait", "120").returncode == 0


def test_typing_keeps_focus_scroll_and_what_is_open(
    page: Page, panel: RunningPanel
) -> None:
    card = opened(page, panel)
    card.get_by_text("Command", exact=True).click()
    context(page).click()
    page.evaluate("window.scrollTo(0, 60); window.stillTheSamePage = true")
    context(page).press("ControlOrMeta+a")
    for key in "4096":
        page.keyboard.type(key)
    expect(page).to_have_url(re.compile("context=4096"))
    expect(card.locator("pre").first).to_contain_text("-c 4096")
    expect(context(page)).to_be_focused()
    assert page.evaluate("window.stillTheSamePage")
    assert card.locator("pre").first.is_visible()
    assert (
        abs(
            page.evaluate("window.scrollY")
            - page.evaluate("Math.min(60, document.body.scrollHeight - innerHeight)")
        )
        < 2
    )


def test_a_wrong_value_is_said_at_its_field_and_goes_away(
    page: Page, panel: RunningPanel
) -> None:
    card = opened(page, panel)
    context(page).fill("lots")
    expect(page.locator("#context-errors")).to_contain_text("It takes auto")
    expect(context(page)).to_have_attribute("aria-invalid", "true")
    page.reload()
    expect(context(page)).to_have_value("lots")
    context(page).fill("auto")
    expect(page.locator("#context-errors")).to_be_empty()
    expect(context(page)).not_to_have_attribute("aria-invalid", "true")
    expect(card.locator(".verdict")).to_be_visible()


def test_the_devices_show_what_they_hold_now(page: Page, panel: RunningPanel) -> None:
    opened(page, panel)
    ram = page.locator('[data-use="host"] b')
    first = ram.inner_text()
    assert re.fullmatch(r"[\d.]+ [MG]iB", first)
    page.evaluate("document.querySelector('[data-use=host] b').textContent = 'old'")
    expect(ram).to_have_text(re.compile(r"^[\d.]+ [MG]iB$"))


def test_going_back_brings_the_whole_page(page: Page, panel: RunningPanel) -> None:
    card = opened(page, panel)
    context(page).fill("3072")
    expect(page).to_have_url(re.compile("context=3072"))
    page.get_by_role("link", name="Models", exact=True).click()
    expect(page).to_have_url(f"{panel.url}/models/")
    page.go_back()
    expect(page.get_by_role("link", name="Models", exact=True)).to_be_visible()
    expect(context(page)).to_have_value("3072")
    expect(card).to_be_visible()


@has_room
def test_without_script_a_button_plans(
    new_context: Callable[..., BrowserContext], panel: RunningPanel
) -> None:
    page = new_context(java_script_enabled=False).new_page()
    log_in(page, panel.url)
    page.goto(f"{panel.url}/plan/?{MANY}")
    context(page).fill(HUGE)
    page.get_by_role("button", name="Plan", exact=True).click()
    card = unfolded(page.locator("#plan-independent"))
    expect(card.locator(".verdict")).to_have_text("does not fit")
    card.get_by_role("link", name=re.compile("^Use context")).first.click()
    expect(card.locator(".verdict")).to_have_text(re.compile(r"^\s*(fits|caution)\s*$"))
    expect(context(page)).not_to_have_value(HUGE)


def test_every_press_reaches_the_last_choice(page: Page, panel: RunningPanel) -> None:
    """Answers that come late never overwrite newer ones."""
    card = opened(page, panel)
    for value in (HUGE, "512", HUGE, "1024", HUGE, "2048"):
        context(page).fill(value)
        page.wait_for_timeout(260)
    expect(page).to_have_url(re.compile("context=2048"))
    page.wait_for_timeout(500)
    expect(card.locator("pre").first).to_contain_text("-c 2048")


# --- rows -----------------------------------------------------------------------------------------
ALL = "device=RPC0&device=RPC1&device=CPU"


def test_the_best_row_is_open_and_what_is_opened_by_hand_stays(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/plan/?{ALL}")
    rows = page.locator(".plan-row")
    best = page.locator(".plan-row[data-best]")
    expect(best.locator(".plan-body")).to_be_visible()
    expect(rows.locator(".plan-body:visible")).to_have_count(1)

    other = page.locator(".plan-row:not([data-best]):visible").first
    row = page.locator(f"#{other.get_attribute('id')}")
    best.locator(".plan-line").click()
    row.locator(".plan-line").focus()
    page.keyboard.press("Enter")
    expect(row.locator(".plan-body")).to_be_visible()
    context(page).fill("1024")
    expect(page).to_have_url(re.compile("context=1024"))
    expect(row.locator(".plan-body")).to_be_visible()
    expect(best.locator(".plan-body")).to_be_hidden()


def test_what_cannot_is_folded_and_a_link_to_it_opens_it(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/plan/?{ALL}")
    graph = page.locator("#plan-graph_split")
    expect(graph.locator(".plan-line")).to_be_hidden()
    page.get_by_text(re.compile(r"^\d that cannot, with what each lacks")).click()
    expect(graph.locator(".plan-lacks")).to_contain_text("ik_llama.cpp")
    page.goto(f"{panel.url}/models/")
    page.goto(f"{panel.url}/plan/?{ALL}#plan-graph_split")
    expect(graph.locator(".plan-body")).to_be_visible()


def test_where_nothing_fits_each_row_says_what_is_too_much(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/plan/?{MANY}&context={HUGE}&kv_cache_k=f32&kv_cache_v=f32")
    for key in ("independent", "speculative"):
        line = page.locator(f"#plan-{key} .plan-line")
        expect(line.locator(".verdict")).to_have_text("does not fit")
        expect(line.locator(".plan-left")).to_contain_text("too much for")
    expect(page.locator("#plan-speculative .plan-lacks")).to_contain_text("too little")
