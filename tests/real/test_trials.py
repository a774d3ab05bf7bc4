"""Layouts that nobody has deployed are measured on a real panel, and the rig is as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers import of_itself, wait_until
from tests.panel import RunningPanel

pytestmark = pytest.mark.real

RIG = """
deployments:
  - name: mine
    strategy: independent
    models: {model: MODEL}
    devices: {model: [RPC0]}
    settings: {context: 2048, threads: 1}
"""
ASK = """
import json
from deployments.bench.prompts import Prompt
from deployments.bench.trials import trial_request
prompts = [
    Prompt(f"own/{n}", ({"role": "user", "content": f"{n}: tell a story."},), 24)
    for n in range(4)
]
run = trial_request(
    wanted=json.loads('WANTED'), gateway="URL", scenario="own", prompts=prompts
)
print(run.pk)
"""
LOOK = """
import json
from deployments.models import BenchmarkRun, LayoutResult
run = BenchmarkRun.objects.get(pk=NUMBER)
results = [
    [row.layout, row.figures["decode_tps"]["p50"], row.answer_check, row.benchmark]
    for row in LayoutResult.objects.order_by("pk")
]
print(json.dumps([run.state, run.error, run.document, results]))
"""


def shell(panel: RunningPanel, code: str) -> str:
    done = panel.manage("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wanted(model: str) -> list[dict[str, Any]]:
    """One on the CPU, one on the server that a deployment holds, one on both."""
    return [
        {
            "strategy": strategy,
            "models": {"model": model},
            "devices": {"model": devices},
            "settings": {"context": 1024, "threads": 1},
        }
        for strategy, devices in (
            ("independent", ["CPU"]),
            ("independent", ["RPC0"]),
            ("layer_split", ["RPC0", "RPC1"]),
        )
    ]


def test_three_layouts_are_measured_and_what_ran_runs_again(
    panel: RunningPanel,
) -> None:
    (model, *_) = panel.document("scan")["models"]
    rig = panel.home / "trials.yaml"
    rig.write_text(RIG.replace("MODEL", model["name"]))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    panel.ready("mine")

    asked = ASK.replace("WANTED", json.dumps(wanted(model["name"])))
    number = shell(panel, asked.replace("URL", panel.url))

    def states() -> dict[str, str]:
        return {
            row["name"]: row["state"] for row in panel.document("status")["deployments"]
        }

    assert len(states()) == 4
    wait_until(
        lambda: states() == {"mine": "ready"},
        240,
        lambda: f"{states()} {look(panel, number)[:2]}",
        interval_s=1.0,
    )
    state, error, document, results = look(panel, number)
    assert (state, error) == ("done", "")
    assert of_itself(document["warnings"]) == []
    assert [arm["requests"] for arm in document["arms"]] == [4, 4, 4]
    assert all(arm["decode_tps"]["p50"] > 0 for arm in document["arms"])
    layouts = [layout for layout, *_ in results]
    places = [(each["strategy"], each["devices"]["model"]) for each in layouts]
    assert sorted(places) == [
        ("independent", ["CPU"]),
        ("independent", ["RPC0"]),
        ("layer_split", ["RPC0", "RPC1"]),
    ]
    for _, decode_tps, answer_check, benchmark in results:
        assert decode_tps > 0
        assert answer_check in ("alone", "equal", "drift")
        assert benchmark == int(number)


def look(panel: RunningPanel, number: str) -> list[Any]:
    found: list[Any] = json.loads(shell(panel, LOOK.replace("NUMBER", number)))
    return found
