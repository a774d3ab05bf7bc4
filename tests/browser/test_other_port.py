"""A page on another port of this machine, in the browser of somebody who is logged in here: it
hears nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
import websockets.sync.client
from playwright.sync_api import Page
from websockets.exceptions import InvalidStatus

from chat.services import LONGEST_QUESTION
from tests.helpers import free_port
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
PATHS = ["/ws/state/", "/ws/telemetry/", "/ws/chat/1/", "/ws/devices/CPU/log/"]
# What the attacker's page runs: a socket, as the panel's own pages open it.
KNOCK = """
([url, token]) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(JSON.stringify({ type: "hello", token }));
  socket.onmessage = (event) => resolve(`heard ${event.data.slice(0, 80)}`);
  socket.onclose = (event) => resolve(`closed ${event.code}`);
  setTimeout(() => resolve(socket.readyState === WebSocket.OPEN ? "open" : "waiting"), 8000);
})
"""
ASK = """
(url) => fetch(url, { credentials: "include" }).then((a) => a.text(), (error) => `refused: ${error}`)
"""


class Evil(http.server.BaseHTTPRequestHandler):
    """Keeps the cookies that the browser brings along."""

    cookies: list[str] = []

    def do_GET(self) -> None:
        self.cookies.append(self.headers.get("Cookie", ""))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>Elsewhere</title>")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def other_port() -> Iterator[str]:
    port = free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(page: Page, panel: RunningPanel) -> Page:
    """One of the panel's own."""
    page.goto(f"{panel.url}/glossary/")
    return page


def token_of(page: Page) -> str:
    """As the panel's own page gets it."""
    return str(
        page.evaluate("() => fetch('/socket-token/').then((a) => a.json())")["token"]
    )


def test_a_page_on_another_port_opens_no_socket_even_with_a_good_token(
    page: Page, panel: RunningPanel, other_port: str
) -> None:
    address = panel.url.replace("http", "ws")
    # The page itself may: so what follows is refused for where it comes from.
    assert page.evaluate(
        KNOCK, [f"{address}/ws/telemetry/", token_of(page)]
    ).startswith("heard")

    tokens = [token_of(page) for _ in PATHS]
    page.goto(other_port)
    for path, token in zip(PATHS, tokens, strict=True):
        assert page.evaluate(KNOCK, [address + path, token]) == "closed 1006", path


def test_a_page_on_another_port_reads_no_token(
    page: Page, panel: RunningPanel, other_port: str
) -> None:
    page.goto(other_port)
    assert page.evaluate(ASK, f"{panel.url}/socket-token/").startswith("refused")


def test_a_stolen_cookie_alone_opens_no_socket(
    page: Page, panel: RunningPanel, other_port: str
) -> None:
    """Cookies go to every port of a host: that server has it. From its origin it is of no use."""
    page.goto(other_port)
    stolen = next(
        cookie for cookie in reversed(Evil.cookies) if "omni_session" in cookie
    )
    address = panel.url.replace("http", "ws") + "/ws/telemetry/"
    with pytest.raises(InvalidStatus) as refused:
        websockets.sync.client.connect(
            address, additional_headers={"Cookie": stolen, "Origin": other_port}
        )
    assert refused.value.response.status_code == 403

    with websockets.sync.client.connect(
        address, additional_headers={"Cookie": stolen, "Origin": panel.url}
    ) as socket:
        socket.send('{"type": "hello", "token": "guessed"}')
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400


def test_logging_out_in_one_tab_ends_the_sockets_of_another(
    page: Page, panel: RunningPanel
) -> None:
    """The other tab is at the log-in page without a click."""
    other = page.context.new_page()
    other.goto(panel.url)
    with page.expect_navigation(url=f"{panel.url}/login/**"):
        other.get_by_role("button", name="Log out").click()
    other.close()


# --- frames ---------------------------------------------------------------------------------------
Socket = websockets.sync.client.ClientConnection


@pytest.fixture
def own_socket(page: Page, panel: RunningPanel) -> Iterator[Socket]:
    """The state socket as the page has it, in the hands of somebody who sends what no page does."""
    cookie = "; ".join(
        f"{each['name']}={each['value']}" for each in page.context.cookies()
    )
    headers = {"Cookie": cookie, "Origin": panel.url}
    address = panel.url.replace("http", "ws") + "/ws/state/"
    with websockets.sync.client.connect(
        address, additional_headers=headers, max_size=None
    ) as socket:
        socket.send(json.dumps({"type": "hello", "token": token_of(page)}))
        yield socket


def is_open(socket: Socket) -> bool:
    """A pong comes back once everything before it was read."""
    try:
        return socket.ping().wait(10)
    except websockets.exceptions.ConnectionClosed:
        return False


def test_the_longest_question_fits_into_a_frame(own_socket: Socket) -> None:
    own_socket.send(json.dumps({"text": "漢" * LONGEST_QUESTION}, ensure_ascii=False))
    assert is_open(own_socket)


@pytest.mark.parametrize(
    "frame",
    ["x" * (3 << 20), b"x" * (3 << 20), ["x" * (1 << 20)] * 4],
    ids=["text", "binary", "parts"],
)
def test_a_frame_that_is_too_large_ends_this_socket_and_nothing_else(
    own_socket: Socket, page: Page, panel: RunningPanel, frame: str | bytes | list[str]
) -> None:
    with pytest.raises(websockets.exceptions.ConnectionClosed):
        own_socket.send(frame)
        own_socket.recv(timeout=20)
    assert panel.healthy()
    assert page.evaluate(
        KNOCK, [f"{panel.url.replace('http', 'ws')}/ws/telemetry/", token_of(page)]
    ).startswith("heard")


def test_a_flood_of_frames_ends_this_socket_and_nothing_else(
    own_socket: Socket, panel: RunningPanel
) -> None:
    with pytest.raises(websockets.exceptions.ConnectionClosed):
        for _ in range(100_000):
            own_socket.send("{}")
        # All of them may fit into buffers on the way before the panel has read the first.
        while True:
            own_socket.recv(timeout=20)
    assert panel.healthy()
