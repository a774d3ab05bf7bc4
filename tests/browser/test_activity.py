"""What runs and what ran, in a browser: a request is seen, cancelled, found again and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.conf import settings
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks
from tests.gateway.conftest import serving
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until
from tests.panel import PASSWORD

# Whether a part of the page that asks every few seconds would do so now.
WOULD_ASK = """() => document.querySelector("#running").dispatchEvent(new CustomEvent(
    "htmx:beforeRequest", {bubbles: true, cancelable: true, detail: {
        elt: document.querySelector("#running"), requestConfig: {verb: "get"}}}))"""
HIDE = "Object.defineProperty(document, 'hidden', {value: true})"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PEOPLE = """
from django.contrib.auth.models import User
if not User.objects.filter(username="admin").exists():
    User.objects.create_superuser("admin", password={password!r})
"""
HISTORY = """
from datetime import UTC, datetime
from random import Random
import time
from deployments.models import GatewayRequest
random, now, rows = Random(7), time.time(), []
for n in range(400):
    at = now - 3600 * 24 * random.random() ** 2
    status, code = random.choice([(200, "")] * 9 + [(499, "client_left"), (502, "engine_died")])
    key = random.choice(["continuous-integration", "ada's laptop", ""])
    rows.append(GatewayRequest(
        at=datetime.fromtimestamp(at, UTC), hour=int(at // 3600), key_name=key,
        user_name="" if key else "ada", surface="gateway" if key else "chat",
        path="/v1/chat/completions", asked_name=random.choice(["auto", "reasoner", "coder"]),
        deployment_name=random.choice(["reasoner", "coder"]), status=status, error_code=code,
        prompt_tokens=random.randrange(9000), completion_tokens=random.randrange(900),
        first_token_ms=int(random.lognormvariate(6, 1)), duration_ms=random.randrange(30000),
        queue_ms=2, is_stream=True, address="192.168.10.20"))
GatewayRequest.objects.bulk_create(rows)
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, broker: None) -> Iterator[Served]:
    """Pages and gateway of one server, with an engine that does as it is told."""
    fake = FakeEngine()
    with serving(tmp_path_factory.mktemp("activity")) as running:
        running.extra_env["OMNI_BROKER_URL"] = settings.CHANNEL_REDIS_URL
        running.prepare({"faulty": fake.port})
        running.shell(PEOPLE.format(password=PASSWORD))
        running.start()
        yield running
    fake.close()


@pytest.fixture
def admins_page(new_context: Callable[..., BrowserContext], watched: Served) -> Page:
    page = new_context(viewport={"width": 1280, "height": 900}).new_page()
    log_in(page, watched.url)
    return page


def ask(pool: ThreadPoolExecutor, served: Served, text: str) -> Future[str]:
    """A stream that lasts until somebody cancels it."""
    body = question(text, "faulty", stream=True)
    return pool.submit(lambda: served.post(body).text)


def test_a_request_is_seen_cancelled_found_again_and_counted(
    admins_page: Page, watched: Served
) -> None:
    page, wrong = admins_page, []
    page.goto(f"{watched.url}/activity/")
    expect(page.get_by_text("No request has run yet")).to_be_visible()
    wrong += in_four_looks(page, "activity-empty", asks_axe=False)
    watched.shell(HISTORY)

    with ThreadPoolExecutor(2) as pool:
        answering = ask(pool, watched, "begins_and_waits")
        row = page.locator("#running tbody tr").filter(has_text="answering")
        expect(row).to_contain_text("tests")
        silent = ask(pool, watched, "says_nothing")
        expect(page.locator("#running tbody tr")).to_have_count(2)
        page.reload()
        wrong += in_four_looks(page, "activity")

        row.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Cancel it").click()
        expect(page.locator("#running tbody tr")).to_have_count(1)
        assert "request_cancelled" in answering.result(30)
        page.locator("#running").get_by_role("button", name="Cancel").press("Enter")
        page.get_by_role("button", name="Cancel it").press("Enter")
        expect(page.get_by_text("Nothing runs at the moment")).to_be_visible()
        assert "request_cancelled" in silent.result(30)

    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_label("Result").select_option("Cancelled")
    expect(page).to_have_url(
        f"{watched.url}/activity/?period=day&deployment=&key=&status=cancelled&text="
    )
    # They are written a moment after their end.
    cancelled = page.locator("#history tbody tr")
    wait_until(lambda: page.reload() and cancelled.count() == 2, 30)
    page.locator("#history tbody a").first.click()
    expect(page.get_by_role("heading", name="Request")).to_be_visible()
    wrong += in_four_looks(page, "activity-request", asks_axe=False)

    page.goto(f"{watched.url}/usage/")
    expect(
        page.locator("#usage").get_by_text("continuous-integration").first
    ).to_be_visible()
    wrong += in_four_looks(page, "usage")
    assert not wrong, "\n".join(wrong)


def test_a_page_that_nobody_looks_at_does_not_ask_again_and_again(
    admins_page: Page, watched: Served
) -> None:
    admins_page.goto(f"{watched.url}/activity/")
    assert admins_page.evaluate(WOULD_ASK)
    admins_page.evaluate(HIDE)
    assert not admins_page.evaluate(WOULD_ASK)
