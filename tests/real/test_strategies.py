"""Every strategy, from a rig file and from the web page, with the real engine: what starts and what
it answers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers import wait_until
from tests.panel import PASSWORD, RunningPanel

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
RIG = """
deployments:
  - {name: plain, models: {model: M}, devices: {model: [RPC0]}, settings: {context: 2048}}
  - {name: other, models: {model: M}, devices: {model: [RPC1]}, settings: {context: 2048}}
  - name: drafting
    strategy: speculative
    models: {target: M, draft: M}
    devices: {target: [RPC0], draft: [RPC1]}
    settings: {context: 2048, draft_max: 4}
  - {name: ngrams, strategy: speculative, models: {target: M}, devices: {target: [RPC0]}, settings: {context: 2048}}
  - {name: layers, strategy: layer_split, models: {model: M}, devices: {model: [RPC0, RPC1]}, settings: {context: 2048}}
  - name: tensor
    strategy: tensor_split
    models: {model: M}
    devices: {model: [RPC0, RPC1]}
    settings: {context: 2048, tensor_split: "2,1"}
  - name: broken
    strategy: layer_split
    models: {model: M}
    devices: {model: [RPC0, RPC1]}
    settings: {context: 2048}
    extra_args: [--rope-freq-scale 0.001]
  - name: handover
    strategy: prefill_decode
    models: {prefill: M, decode: M}
    devices: {prefill: [RPC0], decode: [RPC1]}
    settings: {context: 2048}
  - name: bent
    strategy: layer_split
    models: {model: M}
    devices: {model: [RPC0, RPC1]}
    settings: {context: 2048}
    extra_args: [--rope-freq-base 300]
"""


class Rig:
    def __init__(self, panel: RunningPanel, model: str) -> None:
        self.panel, self.model = panel, model
        made = panel.manage("apikey", "strategies")
        assert made.returncode == 0, made.stderr
        self.key = made.stdout.strip().splitlines()[-1]

    def start(self, name: str) -> str:
        """Its state once that is settled."""
        self.panel.manage("start", name, "--wait", "120")
        return self.deployment(name)["state"]

    def stop(self, name: str) -> None:
        stopped = self.panel.manage("stop", name, "--wait", "120")
        assert stopped.returncode == 0, stopped.stderr

    def deployment(self, name: str) -> dict:  # type: ignore[type-arg]
        """As `status` says it, read without the start of a command."""
        rows = self.rows("state, pid, i.error", name)
        states = {state for state, _, _ in rows}
        state = next(
            (
                s
                for s in ("failed", "crashed", "starting", "loading", "stopping")
                if s in states
            ),
            None,
        )
        instances = [{"state": s, "pid": pid, "error": error} for s, pid, error in rows]
        return {"state": state or states.pop(), "instances": instances}

    def checks(self, name: str) -> list[tuple[str, str]]:
        """(judgement, warning) of each instance."""
        return self.rows("judgement, warning", name)

    def kept(self, name: str) -> list:  # type: ignore[type-arg]
        """What makes a deployment, as the database has it."""
        query = (
            "SELECT strategy, engine_id, settings, extra_args, role, model_id, devices FROM"
            " deployments_deployment d JOIN deployments_binding b ON deployment_id = d.id WHERE"
            " name = ? ORDER BY role"
        )
        return self.read(query, name)

    def rows(self, columns: str, name: str) -> list:  # type: ignore[type-arg]
        query = (
            f"SELECT {columns} FROM deployments_instance i"
            " JOIN deployments_deployment d ON deployment_id = d.id WHERE name = ?"
        )
        return self.read(query, name)

    def read(self, query: str, name: str) -> list:  # type: ignore[type-arg]
        with sqlite3.connect(
            f"file:{self.panel.home}/omni.sqlite3?mode=ro", uri=True, timeout=5
        ) as database:
            return database.execute(query, (name,)).fetchall()

    def ask(self, name: str) -> dict:  # type: ignore[type-arg]
        body = {
            "model": name,
            "temperature": 0,
            "max_tokens": 24,
            "messages": [{"role": "user", "content": "Name the days of the week."}],
        }
        answer = httpx.post(
            f"{self.panel.url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def rig(panel: RunningPanel) -> Iterator[Rig]:
    model = panel.document("scan")["models"][0]["name"]
    file = panel.home / "strategies.yaml"
    file.write_text(RIG.replace(": M", f": {model}"))
    applied = panel.manage("apply", str(file))
    assert applied.returncode == 0, applied.stderr
    made = Rig(panel, model)
    # The panel is shared by the session's tests, and each device serves one engine at a time.
    for other in panel.document("status")["deployments"]:
        if other["desired"] != "stopped":
            made.stop(other["name"])
    # The others are compared with its answer. An RPC server serves one engine at a time, so it
    # makes room.
    assert made.start("plain") == "ready"
    made.stop("plain")
    yield made


@pytest.mark.parametrize(
    "name", ["drafting", "ngrams", "layers", "tensor", "handover", "other"]
)
def test_a_strategy_starts_and_answers_like_the_independent_deployment(
    rig: Rig, name: str
) -> None:
    assert rig.start(name) == "ready"
    try:
        judgements = {judgement for judgement, _ in rig.checks(name)}
        assert judgements <= {"equal", "drift", "alone"} and judgements
        if name in ("drafting", "layers", "handover"):
            assert judgements == {"equal"}
        assert rig.ask(name)["choices"][0]["message"]["content"]
    finally:
        rig.stop(name)


# The same deployments as a person makes them in the form of the web page.
TYPED = {
    "other": {"strategy": "independent", "devices": ["RPC1"]},
    "drafting": {
        "strategy": "speculative",
        "devices": ["RPC0"],
        "draft": "M",
        "devices_draft": ["RPC1"],
        "setting_draft_max": 4,
    },
    "ngrams": {"strategy": "speculative", "devices": ["RPC0"]},
    "layers": {"strategy": "layer_split", "devices": ["RPC0", "RPC1"]},
    "tensor": {
        "strategy": "tensor_split",
        "devices": ["RPC0", "RPC1"],
        "setting_tensor_split": "2,1",
    },
    "handover": {
        "strategy": "prefill_decode",
        "devices": ["RPC0"],
        "devices_decode": ["RPC1"],
    },
}


@pytest.fixture(scope="module")
def web(rig: Rig) -> Iterator[httpx.Client]:
    """Logged in as a browser is, with the token of its forms."""
    with httpx.Client(
        base_url=rig.panel.url, headers={"Origin": rig.panel.url}, timeout=30
    ) as client:
        sent = {
            "username": "admin",
            "password": PASSWORD,
            "csrfmiddlewaretoken": _token(client.get("/login/").text),
        }
        assert client.post("/login/", data=sent).status_code == 302
        yield client


def _token(text: str) -> str:
    found = re.search(r'name="csrf-token" content="(\w+)"', text)
    assert found
    return found[1]


@pytest.mark.parametrize("name", TYPED)
def test_a_strategy_from_the_web_page_is_the_same_and_answers(
    rig: Rig, web: httpx.Client, name: str
) -> None:
    page = web.get("/deployments/new/").text
    engine = re.search(
        r'<option value="(\d+)" selected>', page[page.index('name="engine"') :]
    )
    assert engine
    typed = {
        key: rig.model if value == "M" else value for key, value in TYPED[name].items()
    }
    sent = typed | {
        "name": f"{name}-web",
        "model": rig.model,
        "setting_context": "2048",
        "engine": engine[1],
    }
    answer = web.post(
        "/deployments/new/",
        data=sent | {"start": "yes", "csrfmiddlewaretoken": _token(page)},
    )
    assert answer.headers["Location"] == f"/deployments/{name}-web/", answer.text
    try:
        assert rig.start(f"{name}-web") == "ready"
        assert rig.kept(f"{name}-web") == rig.kept(name)
        assert rig.ask(f"{name}-web")["choices"][0]["message"]["content"]
    finally:
        rig.stop(f"{name}-web")


def test_drafts_are_counted(rig: Rig) -> None:
    assert rig.start("drafting") == "ready"
    try:
        timings = rig.ask("drafting")["timings"]
        assert timings["draft_n"] >= timings["draft_n_accepted"] > 0
    finally:
        rig.stop("drafting")


def test_another_answer_is_a_warning_that_names_the_token(rig: Rig) -> None:
    assert rig.start("bent") == "ready"
    ((judgement, warning),) = rig.checks("bent")
    assert judgement in ("different", "drift")
    assert "of its first answer is" in warning
    rig.stop("bent")


def test_nonsense_is_a_failure_although_the_engine_says_it_is_healthy(rig: Rig) -> None:
    """Health 200, usual timings, rc 0, and the same token over and over."""
    assert rig.start("broken") == "failed"
    (instance,) = rig.deployment("broken")["instances"]
    assert "nonsense" in instance["error"] and "independent" in instance["error"]
    wait_until(
        lambda: rig.deployment("broken")["instances"][0]["pid"] is None,
        5,
        "its process was left running",
    )
    rig.stop("broken")


def test_a_device_that_another_engine_holds_is_waited_for_and_named(rig: Rig) -> None:
    """An RPC server serves one engine at a time and lets a second one hang: nothing is started
    until it is free."""
    assert rig.start("plain") == "ready"
    rig.panel.manage("start", "layers", "--wait", "3")
    (instance,) = rig.deployment("layers")["instances"]
    assert (instance["state"], instance["pid"]) == ("starting", None)
    rig.stop("plain")
    wait_until(
        lambda: rig.deployment("layers")["state"] == "ready",
        30,
        "it did not start once the device was free",
    )
    rig.stop("layers")
