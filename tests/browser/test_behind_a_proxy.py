"""The panel below a path of a real nginx, or Caddy, with TLS, as docs/proxy.md sets it up:
everything works that works without."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chats import PanelWith, say
from tests.browser.conftest import log_in, log_in_by_form
from tests.browser.looks import in_four_looks
from tests.browser.test_main_job import LONG, answer
from tests.helpers import wait_until
from tests.panel import PASSWORD, RunningPanel
from tests.proxies import CADDY, Proxy, caddy, nginx

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
NewContext = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPanel]:
    home = tmp_path_factory.mktemp("proxied-home")
    running = PanelWith(home, is_prepared=True, gateway_processes=1)
    running.more = {"OMNI_PATH_PREFIX": "/omni", "OMNI_BEHIND_TLS": "1"}
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=["nginx", "nginx-strips", "caddy"])
def proxy(
    panel: RunningPanel,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """One that passes the prefix on and leads programs to the gateway's own port, one that takes
    the prefix off and knows the panel's port only, and another program."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "caddy" and not CADDY:
        pytest.skip("OMNI_TEST_CADDY names no Caddy")
    ways = {
        "nginx": lambda: nginx(folder, panel.port, gateway_port=panel.gateway_port),
        "nginx-strips": lambda: nginx(folder, panel.port, strips_prefix=True),
        "caddy": lambda: caddy(folder, panel.port, panel.gateway_port),
    }
    with ways[request.param]() as running:
        yield running


@pytest.fixture
def page(new_context: NewContext, proxy: Proxy) -> Page:
    context = new_context(
        ignore_https_errors=True,
        permissions=["clipboard-read", "clipboard-write"],
        viewport={"width": 1280, "height": 900},
    )
    page = context.new_page()
    log_in(page, proxy.root)
    return page


def test_the_log_in_leads_back_to_the_page_that_was_asked_for(
    new_context: NewContext, proxy: Proxy
) -> None:
    page = new_context(ignore_https_errors=True).new_page()
    page.goto(f"{proxy.root}/models/?q=smol")
    expect(page).to_have_url(re.compile(r"/omni/login/\?next=/omni/models/"))
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{proxy.root}/models/?q=smol")


def test_the_cookies_are_for_tls_and_for_this_path_only(
    new_context: NewContext, proxy: Proxy
) -> None:
    page = new_context(ignore_https_errors=True).new_page()
    log_in_by_form(page, proxy.root, "admin", PASSWORD)
    cookies = {each["name"]: each for each in page.context.cookies()}
    own = [each for name, each in cookies.items() if "omni_" in name]
    secret = [each for each in own if each["name"].startswith("__Secure-omni_")]
    assert len(secret) == 2
    assert all(each["path"] == "/omni" for each in secret)
    assert all(each["secure"] and each["httpOnly"] for each in secret)


def test_live_figures_come_over_sockets(page: Page, proxy: Proxy) -> None:
    at = proxy.root.replace("https", "wss")
    page.goto(f"{proxy.root}/")
    with page.expect_websocket(lambda one: "telemetry" in one.url) as opened:
        page.get_by_role("link", name="Rig", exact=True).click()
    assert opened.value.url == f"{at}/ws/telemetry/"
    for _ in range(3):
        opened.value.wait_for_event("framereceived")
    expect(page.locator("#link-lost")).to_be_hidden()


def test_a_chat_streams_and_its_address_can_be_loaded_again(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    ready(page, proxy, panel)
    page.goto(f"{proxy.root}/chat/")
    page.get_by_role("button", name="New chat").first.click()
    page.wait_for_url(re.compile(r"/omni/chat/\d+/"))
    say(page, LONG)
    lengths: set[int] = set()

    def grown() -> bool:
        if page.locator("[data-role=assistant] [data-answer]").count():
            lengths.add(len(answer(page)))
        return len(lengths) > 5

    wait_until(grown, 60, lambda: f"seen at these lengths only: {lengths}", 0.03)
    page.reload()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator('[data-role=assistant][data-state="stopped"]')).to_be_visible()
    kept = answer(page)
    page.goto(page.url)
    assert answer(page) == kept


def ready(page: Page, proxy: Proxy, panel: RunningPanel) -> None:
    """Deployed by a click on the page behind the proxy."""
    if any(d["state"] == "ready" for d in panel.document("status")["deployments"]):
        return
    page.goto(f"{proxy.root}/")
    page.get_by_role("button", name=re.compile("Deploy|Start")).first.click()
    expect(page.locator('.badge[data-state="ready"]').first).to_be_visible(
        timeout=30_000
    )


def test_a_program_gets_its_answer_in_pieces(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    ready(page, proxy, panel)
    key = panel.manage("apikey", "behind-nginx").stdout.split()[-1]
    asked = {
        "model": "auto",
        "messages": [{"role": "user", "content": LONG}],
        "max_tokens": 60,
        "stream": True,
    }
    at: list[float] = []
    with (
        httpx.Client(verify=proxy.client_context(), trust_env=False) as client,
        client.stream(
            "POST",
            f"{proxy.root}/v1/chat/completions",
            json=asked,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        ) as answered,
    ):
        assert answered.status_code == 200, answered.read()
        for line in answered.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:]).get("choices"):
                at.append(time.monotonic())
    # Buffered, all of them would come in one or two pieces.
    moments = {round(moment, 2) for moment in at}
    assert len(at) > 30 and len(moments) > 10, at


def test_a_long_question_is_let_in_with_its_key(
    proxy: Proxy, panel: RunningPanel
) -> None:
    key = panel.manage("apikey", "long").stdout.split()[-1]
    long = {"role": "user", "content": "word " * 100_000}
    with httpx.Client(verify=proxy.client_context(), trust_env=False) as client:
        answered = client.post(
            f"{proxy.root}/v1/chat/completions",
            json={"model": "auto", "messages": [long]},
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )
    assert answered.status_code in (400, 404, 503), answered.text
    assert answered.json()["error"]["code"] != "body_too_large"


def test_a_wrong_key_is_refused_in_json(proxy: Proxy) -> None:
    with httpx.Client(verify=proxy.client_context(), trust_env=False) as client:
        answered = client.get(
            f"{proxy.root}/v1/models", headers={"Authorization": "Bearer wrong"}
        )
    assert answered.status_code == 401 and answered.json()["error"]["code"]


def test_a_copy_button_copies(page: Page, proxy: Proxy, panel: RunningPanel) -> None:
    ready(page, proxy, panel)
    page.goto(f"{proxy.root}/deployments/")
    page.locator('[data-copy="#gateway-example"]').click()
    expect(page.locator("#toasts")).to_contain_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"curl {proxy.root}/v1/chat/completions" in copied


# --- every address --------------------------------------------------------------------------------
LINK = re.compile(r"""\s(?:href|src|action|hx-get|hx-post)="([^"#][^"]*)\"""")


def test_every_address_of_every_page_is_below_the_prefix(
    page: Page, proxy: Proxy
) -> None:
    """Followed from the first page on, one of each kind; the administration's as well."""
    origin = proxy.root.removesuffix("/omni")
    waiting, seen, wrong = ["/omni/"], {"/omni/"}, []
    asked = 0
    while waiting and asked < 100:
        path = waiting.pop(0)
        answered = page.context.request.get(origin + path)
        asked += 1
        # What only takes forms says so.
        if answered.status >= 400 and answered.status != 405:
            wrong.append(f"{answered.status} {path}")
        if "text/html" not in answered.headers.get("content-type", ""):
            continue
        for link in LINK.findall(answered.text()):
            address = html.unescape(link)
            if address.startswith(("https://", "http://", "data:", "?")):
                continue
            if not address.startswith("/omni/"):
                wrong.append(f"{address} on {path}")
            kind = re.sub(r"\d+", "0", address.partition("?")[0])
            if kind not in seen:
                seen.add(kind)
                waiting.append(address)
    assert not wrong
    assert asked > 50


def test_an_address_without_its_last_slash_leads_to_the_page(
    page: Page, proxy: Proxy
) -> None:
    page.goto(proxy.root)
    assert page.url == f"{proxy.root}/"
    page.goto(f"{proxy.root}/models?q=smol")
    assert page.url == f"{proxy.root}/models/?q=smol"


def test_the_administration_works_below_the_prefix(page: Page, proxy: Proxy) -> None:
    """Its scripts need a policy of their own, which goes by the path."""
    page.goto(f"{proxy.root}/admin/auth/user/")
    page.get_by_role("link", name="admin", exact=True).first.click()
    expect(page).to_have_url(re.compile(r"/omni/admin/auth/user/\d+/change/"))
    page.locator('[name="first_name"]').fill("Ada")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page).to_have_url(f"{proxy.root}/admin/auth/user/")


# --- programs, as the page says -------------------------------------------------------------------
def snippet(page: Page, proxy: Proxy, name: str) -> str:
    """What the copy button of a piece of *Connect a program* gives."""
    page.goto(f"{proxy.root}/connect/")
    page.locator(f'[data-copy="#snippet-{name}"]').click()
    expect(page.locator("#toasts")).to_contain_text("Copied.")
    return str(page.evaluate("navigator.clipboard.readText()"))


def run_as_it_stands(argv: list[str], proxy: Proxy, panel: RunningPanel) -> str:
    """What it prints; the certificate and the key are told by the environment."""
    env = {
        "PATH": os.environ["PATH"],
        "SSL_CERT_FILE": str(proxy.certificate),
        "CURL_CA_BUNDLE": str(proxy.certificate),
        "OMNI_KEY": panel.manage("apikey", "program").stdout.split()[-1],
    }
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_of_the_page_runs_as_it_stands(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    ready(page, proxy, panel)
    text = snippet(page, proxy, "curl")
    assert f"{proxy.root}/v1/chat/completions" in text
    said = run_as_it_stands(["sh", "-c", text], proxy, panel)
    assert said.count("data: {") > 2 and said.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_the_python_of_the_page_runs_as_it_stands(
    page: Page, proxy: Proxy, panel: RunningPanel, client: str
) -> None:
    ready(page, proxy, panel)
    text = snippet(page, proxy, client)
    assert run_as_it_stands([sys.executable, "-c", text], proxy, panel).strip()


def test_the_model_of_the_page_is_chosen_without_loading_it_again(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    ready(page, proxy, panel)
    page.goto(f"{proxy.root}/connect/")
    page.evaluate("window.stillTheSamePage = true")
    select = page.get_by_label("Model", exact=True)
    assert select.input_value() == "auto"
    name = page.locator("#connect-model option").nth(1).inner_text()
    select.select_option(name)
    expect(page.locator("#snippet-curl")).to_contain_text(f'"model": "{name}"')
    assert page.evaluate("window.stillTheSamePage")
    assert page.url == f"{proxy.root}/connect/?model={name}"


def test_the_page_fits_in_four_looks(
    page: Page, proxy: Proxy, panel: RunningPanel
) -> None:
    ready(page, proxy, panel)
    page.goto(f"{proxy.root}/connect/")
    assert not in_four_looks(page, "connect")
