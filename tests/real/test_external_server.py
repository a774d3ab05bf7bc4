"""A real external llama-server behind a real panel: registered, asked through the
gateway, away and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.gateway.engine import RealEngine
from tests.helpers import lives, wait_until
from tests.panel import PASSWORD, RunningPanel, csrf_token

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
KEY = "key-of-somebody-else"
RIG = """
engines:
  - {{name: other, flavour: external, path: "{address}"}}
deployments:
  - {{name: remote, strategy: independent, engine: other, models: {{model: smol-alias}}}}
"""


@pytest.fixture
def external(tmp_path: Path) -> Iterator[RealEngine]:
    """Started by the test, not by Omni, with a key Omni does not know."""
    key_path = tmp_path / "external.key"
    key_path.write_text(KEY)
    running = RealEngine(tmp_path, key_path)
    yield running
    running.kill()


class Browser:
    """What a browser does: cookies and CSRF tokens."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30, headers={"referer": url})
        self.client.get("/login/")
        answer = self.post("/login/", username="admin", password=PASSWORD)
        assert answer.headers["location"] == "/", answer.text[:500]

    def post(self, path: str, **fields: str) -> httpx.Response:
        return self.client.post(
            path,
            data={**fields, "csrfmiddlewaretoken": csrf_token(self.client.cookies)},
        )


def state(panel: RunningPanel) -> str:
    (found,) = [
        d for d in panel.document("status")["deployments"] if d["name"] == "remote"
    ] or [{"state": "gone"}]
    return str(found["state"])


def reaches(panel: RunningPanel, wanted: str) -> None:
    wait_until(
        lambda: state(panel) == wanted,
        60,
        lambda: f"{panel.document('status')}",
        interval_s=0.5,
    )


def test_external_server_answers_through_the_gateway_and_outlives_the_panel(
    panel: RunningPanel, external: RealEngine, tmp_path: Path
) -> None:
    rig = tmp_path / "rig.yaml"
    rig.write_text(RIG.format(address=f"http://127.0.0.1:{external.port}/v1"))
    (plan,) = panel.document("plan", str(rig))["deployments"]
    assert (plan["verdict"], plan["instances"], plan["devices"]) == ("viable", [], [])
    applied = panel.manage("apply", str(rig), "--start")
    assert applied.returncode == 0, applied.stderr
    assert panel.manage("start", "remote", "--wait", "120").returncode == 0
    key = panel.manage("apikey", "external-test").stdout.split()[-1]
    client = openai.OpenAI(
        base_url=f"{panel.url}/v1", api_key=key, max_retries=0, timeout=60
    )
    assert "remote" in [model.id for model in client.models.list()]

    # Its list of models is open to everybody, its answers are not.
    hello = {
        "model": "remote",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    with pytest.raises(
        openai.InternalServerError, match="refused the key it was given"
    ):
        client.chat.completions.create(**hello)
    browser = Browser(panel.url)
    assert (
        browser.post("/servers/other/key/", key=KEY).headers["location"]
        == "/servers/other/"
    )
    assert KEY not in browser.client.get("/servers/other/").text
    answer = client.chat.completions.with_raw_response.create(**hello)
    assert (
        answer.headers["x-omni-deployment"] == "remote"
        and answer.parse().choices[0].message.content
    )
    chunks = list(client.chat.completions.create(**hello, stream=True))
    assert len(chunks) >= 3 and chunks[-1].timings["predicted_n"]

    exported = panel.manage("export").stdout
    assert "smol-alias" in exported and KEY not in exported
    written = [
        p
        for p in panel.home.rglob("*")
        if p.is_file() and KEY.encode() in p.read_bytes()
    ]
    assert [p.parent for p in written] == [panel.home / "run"] and written[
        0
    ].stat().st_mode & 0o777 == 0o600

    external.kill()
    reaches(panel, "unhealthy")
    with pytest.raises(openai.InternalServerError, match="cannot be reached"):
        client.chat.completions.create(**hello)
    key_path = tmp_path / "external.key"
    again = RealEngine(tmp_path, key_path, port=external.port)
    try:
        reaches(panel, "ready")
        assert client.chat.completions.create(**hello).choices[0].message.content
        pid = again.process.pid
        assert panel.manage("stop", "remote", "--wait", "120").returncode == 0
        with pytest.raises(openai.InternalServerError, match="is stopped"):
            client.chat.completions.create(**hello)
        assert lives(psutil.Process(pid))
        assert browser.post("/deployments/remote/delete/").status_code == 302
        wait_until(lambda: state(panel) == "gone", 30, "not deleted", interval_s=0.5)
        assert browser.post("/servers/other/remove/").headers["location"] == "/models/"
        assert not list((panel.home / "run").glob("external-*"))
        assert lives(psutil.Process(pid)) and again.process.poll() is None, again.said()
        assert again.process.pid not in [process.pid for process in panel.engines()]
    finally:
        again.kill()
