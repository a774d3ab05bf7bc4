"""Five strategies measured against each other with the real engine on two stand-in devices: asked
for from the page, and two of them from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.real, pytest.mark.timeout(600)]
NAMES = ("plain", "ngrams", "layers", "tensor", "handover")
RIG = """
deployments:
  - {name: plain, models: {model: M}, devices: {model: [RPC0]}, settings: {context: 1024}}
  - name: ngrams
    strategy: speculative
    models: {target: M}
    devices: {target: [RPC0]}
    settings: {context: 1024, draft_type: ngram-mod}
  - name: layers
    strategy: layer_split
    models: {model: M}
    devices: {model: [RPC0, RPC1]}
    settings: {context: 1024}
  - name: tensor
    strategy: tensor_split
    models: {model: M}
    devices: {model: [RPC0, RPC1]}
    settings: {context: 1024}
  - name: handover
    strategy: prefill_decode
    models: {prefill: M, decode: M}
    devices: {prefill: [RPC0], decode: [RPC1]}
    settings: {context: 1024, handover_min: 64}
"""
STRATEGIES = {
    "plain": "independent",
    "ngrams": "speculative",
    "layers": "layer_split",
    "tensor": "tensor_split",
    "handover": "prefill_decode",
}
GUESTS = ("Anna", "Bert", "Carla", "Dirk")


def questions(word: str) -> str:
    """One round of prompts, a line each: long enough to go from one place to another."""
    lines = [
        {
            "prompt": f"{word}. {f'{guest} comes and {guest} goes. ' * 10}Who comes?",
            "max_tokens": 8,
        }
        for guest in GUESTS
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def panel(panel: RunningPanel) -> RunningPanel:
    """With the five, stopped."""
    model = panel.document("scan")["models"][0]["name"]
    rig = panel.home / "five.yaml"
    rig.write_text(RIG.replace("M}", f"{model}}}").replace("M,", f"{model},"))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    return panel


def test_five_strategies_are_measured_from_the_page(
    page: Page, panel: RunningPanel
) -> None:
    chosen = "&".join(f"deployment={name}" for name in NAMES)
    page.goto(f"{panel.url}/benchmarks/new/?{chosen}&scenario=own")
    # What cannot be up together is swapped.
    expect(page.get_by_label("One deployment is up at a time")).to_be_checked()
    page.get_by_label("Or choose a file").set_input_files(
        {
            "name": "guests.jsonl",
            "mimeType": "text/plain",
            "buffer": questions("Page").encode(),
        }
    )
    page.get_by_role("button", name="Start the benchmark").click()
    page.wait_for_url(re.compile(r"/benchmarks/\d+/$"))
    expect(page.locator("h1 .badge")).to_have_text("Done", timeout=400_000)

    for name in NAMES:
        expect(page.locator(".report")).to_contain_text(name)
    exported = page.request.get(f"{page.url}export.json").json()
    check(exported)
    wrong = in_four_looks(page, "benchmark-of-five")
    assert not wrong, "\n".join(wrong)


def test_the_same_is_measured_from_the_command_line(
    panel: RunningPanel, tmp_path: Path
) -> None:
    prompts = tmp_path / "guests.jsonl"
    prompts.write_text(questions("Command"))
    two = ("plain", "handover")
    asked = ("--prompts", str(prompts), "--gateway", panel.url)
    done = panel.manage("bench", *two, *asked, "--json", timeout_s=400)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), two)


def check(made: dict[str, object], names: Sequence[str] = NAMES) -> None:
    """Every strategy answered, and is predicted and compared."""
    arms = made["arms"]
    assert isinstance(arms, list)
    assert {arm["deployment"]: arm["strategy"] for arm in arms} == {
        name: STRATEGIES[name] for name in names
    }
    for arm in arms:
        assert (arm["requests"], arm["errors"]) == (len(GUESTS), 0), arm["problems"]
        assert arm["output_tps"]["p50"] > 0
        assert arm["predicted"]["decode_tps"] > 0
        # At temperature 0 the same weights begin with the same words, whatever they run on.
        assert arm["quality"]["compared"] == len(GUESTS)
    environment = made["environment"]
    assert isinstance(environment, dict)
    assert environment["swapped"]
    [handover] = [arm for arm in arms if arm["deployment"] == "handover"]
    assert handover["kv_transfer_ms"]["p50"], made["notes"]
