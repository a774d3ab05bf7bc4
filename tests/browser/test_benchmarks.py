"""Benchmarks in a real browser: asked for by the form, followed while they run, cancelled and
deleted; every state of a run in the four looks.

Runs whose pages are looked at are rows of another host: no agent here does them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from deployments.bench.metrics import ServiceLevel
from deployments.bench.perplexity import Written
from deployments.bench.shape import Shape
from tests.bench.documents import document_at_rates, document_of
from tests.browser.chats import emptied
from tests.browser.conftest import log_in
from tests.browser.looks import SCHEMES, SIZES, look
from tests.deployments.benchmark_documents import document
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
RIG = """
deployments:
  - name: plain
    models: {model: MODEL}
    devices: {model: [RPC0]}
    settings: {context: 1024}
  - name: drafting
    strategy: speculative
    models: {target: MODEL, draft: MODEL}
    devices: {target: [RPC0], draft: [CPU]}
    settings: {context: 2048}
  - name: elsewhere
    models: {model: MODEL}
    devices: {model: [RPC1]}
    settings: {context: 16384, parallel: 2}
"""
NAMES = ["plain", "drafting"]
MAKE = """
import json
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from deployments.models import BenchmarkRun
from gpus.models import Host
now = timezone.now()
# Its agent has been seen, as far as pages can tell.
host, _ = Host.objects.update_or_create(
    name="otherhost", defaults={{"agent_seen_at": now + timedelta(days=1)}})
values = json.loads({values!r})
for key in ("started_at", "finished_at"):
    if key in values:
        values[key] = now - timedelta(seconds=values[key])
made = BenchmarkRun.objects.create(
    host=host, gateway="http://127.0.0.1:1", requested_by=User.objects.first(), **values)
print("MADE", made.pk)
"""
CHANGE = """
import json
from deployments.announce import benchmarks_changed
from deployments.models import BenchmarkRun
BenchmarkRun.objects.filter(pk={pk}).update(**json.loads({values!r}))
benchmarks_changed()
"""
LAST = """
import json
from deployments.models import BenchmarkRun
run = BenchmarkRun.objects.order_by("-pk").first()
print("LAST", json.dumps([run.pk, run.names, run.scenario, run.concurrency, run.most_rounds,
    run.seconds, run.swaps, run.gateway, run.requested_by.username, run.prompts]))
"""
ASKED: dict[str, Any] = {
    "scenario": "chat",
    "names": NAMES,
    "concurrency": [1],
    "most_rounds": 40,
    "seconds": 1800.0,
}
RUNNING = ASKED | {
    "state": "running",
    "step": "Asking drafting, round 4",
    "rounds_done": 3,
    "rounds_planned": 10,
    "started_at": 95,
}


def shell(panel: RunningPanel, code: str) -> str:
    said = panel.manage("shell", "-v0", "-c", code)
    assert said.returncode == 0, said.stderr
    return said.stdout


def make(panel: RunningPanel, **values: Any) -> str:
    """A run as its process would have written it; its page."""
    said = shell(panel, MAKE.format(values=json.dumps(values)))
    return f"{panel.url}/benchmarks/{said.split('MADE ')[1].strip()}/"


def change(panel: RunningPanel, page: str, **values: Any) -> None:
    """Writes the run of this page and says so, as its process does."""
    pk = int(page.split("/")[-2])
    shell(panel, CHANGE.format(pk=pk, values=json.dumps(values)))


@pytest.fixture(scope="module")
def panel(panel: RunningPanel) -> Iterator[RunningPanel]:
    """Its list of benchmarks begins empty, and what is in it belongs to a host that is not
    there."""
    emptied(panel)
    models = panel.document("scan")["models"]
    rig = panel.home / "benchmarks.yaml"
    rig.write_text(RIG.replace("MODEL", models[0]["name"]))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    yield panel
    emptied(panel)


@pytest.fixture
def in_four_looks(
    new_context: Callable[..., BrowserContext], panel: RunningPanel
) -> Callable[[str, str], None]:
    """Looks at an address on a desk and on a phone, in light and in dark."""
    pages = {}
    for size, viewport in SIZES.items():
        context = new_context(viewport=viewport, has_touch=size == "phone")
        pages[size] = context.new_page()
        log_in(pages[size], panel.url)

    def see(address: str, name: str) -> None:
        wrong = []
        for size, page in pages.items():
            page.goto(address)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                wrong += look(page, f"benchmarks-{name}-{scheme}-{size}")
        assert not wrong, "\n".join(wrong)

    return see


def test_the_empty_list_says_what_it_is_and_leads_to_the_form(
    page: Page, panel: RunningPanel, in_four_looks: Callable[[str, str], None]
) -> None:
    page.goto(panel.url)
    page.get_by_role("navigation", name="Pages").get_by_text("Benchmarks").click()
    expect(
        page.get_by_role("heading", name="Nothing has been measured")
    ).to_be_visible()
    page.locator(".empty").get_by_role("link", name="New benchmark").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("New benchmark")
    in_four_looks(f"{panel.url}/benchmarks/", "empty")


def test_the_form_follows_the_chosen_deployments_and_loses_nothing(
    page: Page, panel: RunningPanel, in_four_looks: Callable[[str, str], None]
) -> None:
    page.goto(f"{panel.url}/deployments/plain/")
    page.get_by_role("link", name="Benchmark", exact=True).click()
    expect(page.get_by_label("plain", exact=True)).to_be_checked()
    swaps = page.get_by_label("One deployment is up at a time")
    expect(swaps).not_to_be_checked()
    expect(page.get_by_role("radio", name="Long reasoning")).to_be_disabled()
    expect(page.locator("#scenario-reasoning-about")).to_contain_text(
        "It needs a context of 1,792 tokens for each request; plain has 1,024."
    )

    page.get_by_label("drafting", exact=True).check()
    expect(swaps).to_be_checked()
    expect(page.locator("#swaps-help")).to_contain_text(
        "plain and drafting share RPC0."
    )
    page.get_by_label("plain", exact=True).uncheck()
    expect(page.get_by_label("drafting is the baseline")).to_be_checked()
    expect(page.get_by_role("radio", name="Long reasoning")).to_be_enabled()
    page.get_by_label("elsewhere is the baseline").check()
    expect(page.get_by_label("elsewhere", exact=True)).to_be_checked()
    expect(swaps).not_to_be_checked()

    page.get_by_role("radio", name="Your own prompts").check()
    lines = '{"prompt": "Why is the sky blue?"}\n{"prompt": 7}\n'
    page.get_by_label("Or choose a file").set_input_files(
        {"name": "mine.jsonl", "mimeType": "text/plain", "buffer": lines.encode()}
    )
    page.get_by_label("drafting", exact=True).uncheck()
    page.get_by_role("textbox", name="Users at once").fill("1,many")
    page.get_by_role("button", name="Start the benchmark").click()
    expect(page.locator(".field-error")).to_have_text(
        [
            re.compile("line 2: prompt is not a text"),
            "Write numbers from 1 to 64, such as 1,4.",
        ]
    )
    expect(page.get_by_label("Prompts", exact=True)).to_have_value(lines)
    expect(page.get_by_label("Name", exact=True)).to_have_value("mine")
    expect(page.get_by_role("textbox", name="Users at once")).to_have_value("1,many")
    expect(page.get_by_label("elsewhere", exact=True)).to_be_checked()
    wrong = look(page, "benchmarks-form-wrong")
    assert not wrong, "\n".join(wrong)
    chosen = "deployment=plain&deployment=drafting"
    in_four_looks(f"{panel.url}/benchmarks/new/?{chosen}", "form")
    in_four_looks(f"{panel.url}/benchmarks/new/?{chosen}&scenario=own", "form-own")


def test_a_run_is_asked_for_and_asked_for_again(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/benchmarks/new/?deployment=drafting")
    # The parts that depend on the deployments come late, and take nothing back.
    held: list[Route] = []
    page.route("**/benchmarks/new/?*", lambda route: held.append(route))
    with page.expect_request("**/benchmarks/new/?*"):
        page.get_by_label("plain", exact=True).check()
    swaps = page.get_by_label("One deployment is up at a time")
    swaps.check()
    swaps.uncheck()
    own = page.get_by_role("radio", name="Your own prompts")
    own.check()
    for route in held:
        route.continue_()
    page.unroute("**/benchmarks/new/?*")
    expect(page.locator("#swaps-help")).to_contain_text("drafting and plain share RPC0")
    expect(own).to_be_checked()
    expect(swaps).not_to_be_checked()

    page.get_by_role("textbox", name="Users at once").fill("1, 4")
    page.get_by_label("Time at most (minutes)").fill("2.5")
    lines = "".join(f'{{"prompt": "Question {n}?"}}\n' for n in range(40))
    page.get_by_label("Or choose a file").set_input_files(
        {"name": "mine.jsonl", "mimeType": "text/plain", "buffer": lines.encode()}
    )
    page.get_by_role("button", name="Start the benchmark").click()
    page.wait_for_url(re.compile(r"/benchmarks/\d+/$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("mine")
    expect(page.get_by_text("40 of one's own")).to_be_visible()
    asked = json.loads(shell(panel, LAST).split("LAST ")[1])
    assert asked[1:6] == [["drafting", "plain"], "mine", [1, 4], 40, 150.0]
    # RPC0 serves one engine at a time: what cannot be up together is swapped.
    assert asked[6:9] == [True, panel.url, "admin"]
    assert len(asked[9]) == 40 and asked[9][0]["name"] == "mine/1"

    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel the benchmark").click()
    page.get_by_role("link", name="Run again").click(timeout=180_000)
    expect(page.get_by_label("drafting is the baseline")).to_be_checked()
    expect(page.get_by_role("textbox", name="Users at once")).to_have_value("1,4")
    expect(page.get_by_label("Time at most (minutes)")).to_have_value("2.5")
    expect(page.get_by_label("Prompts", exact=True)).to_have_value(
        re.compile("Question 39")
    )


def test_the_page_of_a_run_follows_it_to_its_report(
    page: Page, panel: RunningPanel
) -> None:
    address = make(panel, **ASKED, step="")
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        page.goto(address)
    badge = page.locator("h1 .badge")
    expect(badge).to_have_text("Waiting")
    page.evaluate("window.isTheSamePage = true")

    change(panel, address, state="running", step="Starting plain", rounds_planned=10)
    expect(badge).to_have_text("Running")
    expect(page.get_by_text("Starting plain")).to_be_visible()
    expect(page.get_by_text("Figures show here after the first round.")).to_be_visible()
    change(panel, address, rounds_done=6, document=document(*NAMES))
    expect(page.get_by_text("6 of 10 rounds done")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "6")
    expect(page.get_by_text("31.2 %").first).to_be_visible()

    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("the deployments are left as they were")
    dialog.get_by_role("button", name="Cancel the benchmark").click()
    expect(badge).to_have_text("Being cancelled")
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()
    change(panel, address, state="cancelled")
    expect(badge).to_have_text("Cancelled")
    expect(page.get_by_text("after 6 of 10 rounds")).to_be_visible()
    assert page.evaluate("window.isTheSamePage"), "the page was loaded again"

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/benchmarks/")
    assert page.goto(address).status == 404


def test_the_list_follows_runs_and_keeps_what_is_ticked(
    page: Page, panel: RunningPanel
) -> None:
    address = make(panel, **RUNNING)
    row = page.locator(f"#benchmark-row-{address.split('/')[-2]}")
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        page.goto(f"{panel.url}/benchmarks/")
    expect(row).to_contain_text("round 4 of 10")
    expect(row).to_contain_text("drafting against plain")
    change(panel, address, rounds_done=4)
    expect(row).to_contain_text("round 5 of 10")
    change(panel, address, state="done", document=document(*NAMES))
    expect(row).to_contain_text("drafting against plain: faster")
    row.get_by_role("link").click()
    page.wait_for_url(address)


def test_every_state_fits_and_is_accessible(
    panel: RunningPanel, in_four_looks: Callable[[str, str], None]
) -> None:
    failed = ASKED | {
        "scenario": "many_users",
        "names": [*NAMES, "gone-with-a-rather-long-name-of-its-own"],
        "state": "failed",
        "rounds_planned": 10,
        "rounds_done": 2,
        "started_at": 300,
        "finished_at": 120,
        "error_code": "start_failed",
        "error": "drafting could not be started: RPC0 has 1.2 GiB free and 2.4 GiB are needed.",
        "fix": "Stop what holds its memory, or let one deployment be up at a time.",
    }
    done = RUNNING | {
        "state": "done",
        "finished_at": 9,
        "rounds_done": 6,
        "document": document(*NAMES),
    }
    disturbed = done | {"document": document(*NAMES, valid=False)}
    cancelled = RUNNING | {"state": "cancelled", "finished_at": 10, "scenario": "chat"}
    states = {
        "queued": ASKED,
        "failed": failed,
        "cancelled": cancelled,
        "disturbed": disturbed,
        "done": done,
        "running": RUNNING | {"document": document(*NAMES)},
    }
    level = Shape(service_level=ServiceLevel(124.0, 100.0))
    drafts = Written(
        why="Its engine tells no probabilities in the way of llama-server."
    )
    written = {"base": Written((1, 2, 3), (-1.0, -1.0, -1.0)), "spec": drafts}
    states["at-rates"] = done | {
        "rates": [0.1, 0.5],
        "slo_first_token_ms": 124.0,
        "slo_token_ms": 100.0,
        "document": document_at_rates(shape=level),
    }
    states["perplexity"] = done | {
        "think_s": 2.0,
        "document": document_of(shape=level, watched=True, written=written),
    }
    for name, values in states.items():
        in_four_looks(make(panel, **values), name)
    in_four_looks(f"{panel.url}/benchmarks/", "list")
