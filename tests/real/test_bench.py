"""`bench` with real engines: what it prints, and that it leaves the rig as it was.

Plugs are pulled in tests/faults/rows_bench.py.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import of_itself, wait_until
from tests.panel import ROOT, RunningPanel

pytestmark = pytest.mark.real

MANAGE = str(ROOT / "manage.py")
RIG = """
deployments:
  - name: plain
    strategy: independent
    models: {model: M}
    devices: {model: [CPU]}
    settings: {context: 1024, threads: 1}
  - name: drafting
    strategy: speculative
    models: {target: M}
    devices: {target: [CPU]}
    settings: {context: 1024, threads: 1, draft_type: ngram-mod}
  - name: coarse
    strategy: independent
    models: {model: M}
    devices: {model: [CPU]}
    settings: {context: 1024, threads: 1, kv_cache_k: q4_0, kv_cache_v: q4_0, flash_attention: on}
"""
SUBJECTS = ("Rivers", "Lakes", "Birds", "Trees", "Songs", "Rings", "Clouds", "Boats")
ARM_KEYS = {
    "deployment",
    "strategy",
    "concurrency",
    "requests",
    "errors",
    "first_token_ms",
    "output_tps",
    "total_tps",
    "tokens_out",
    "acceptance",
    "joules_per_token",
    "predicted",
}


@pytest.fixture(scope="module")
def two(panel: RunningPanel) -> Iterator[RunningPanel]:
    """Both are there, and none is wanted running."""
    model = panel.document("scan")["models"][0]["name"]
    rig = panel.home / "bench.yaml"
    rig.write_text(RIG.replace("M}", f"{model}}}"))
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    yield panel
    panel.clear()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """As many as two rounds take."""
    path = tmp_path / "questions.jsonl"
    lines = [
        {"prompt": f"{subject} are on my mind: say a word of each.", "max_tokens": 8}
        for subject in SUBJECTS
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def bench(panel: RunningPanel, *arguments: str) -> dict[str, Any]:
    return panel.document("bench", *arguments, "--gateway", panel.url)


def left_behind(panel: RunningPanel) -> tuple[set[str], int]:
    """States of the deployments, and keys that the command made."""
    states = {row["state"] for row in panel.document("status")["deployments"]}
    uri = f"file:{panel.home}/omni.sqlite3?mode=ro"
    with sqlite3.connect(uri, uri=True, timeout=5) as database:
        query = "SELECT count(*) FROM deployments_apikey WHERE name LIKE 'benchmark %'"
        [[keys]] = database.execute(query).fetchall()
    return states, keys


@pytest.mark.parametrize("swap", [(), ("--swap",)], ids=["together", "swapped"])
def test_bench_measures_both_and_leaves_the_rig_as_it_was(
    two: RunningPanel, questions: Path, swap: tuple[str, ...]
) -> None:
    made = bench(
        two, "plain", "drafting", "--prompts", str(questions), "--repeats", "2", *swap
    )

    assert of_itself(made["warnings"]) == []
    assert made["valid"] == (made["warnings"] == [])
    plain, drafting = made["arms"]
    assert plain.keys() >= ARM_KEYS
    for arm in (plain, drafting):
        assert (arm["requests"], arm["errors"]) == (8, 0)
        assert arm["tokens_out"] <= 8 * 8
        assert arm["first_token_ms"]["p50"] > 0
        assert arm["output_tps"]["p50"] > 0
        assert arm["predicted"]["decode_tps"] > 0
    assert (plain["strategy"], drafting["strategy"]) == ("independent", "speculative")
    assert {row["verdict"] for row in made["comparisons"]} == {"undecided"}
    assert made["environment"]["swapped"] == bool(swap)
    assert made["environment"]["deployments"]["plain"]["build"]
    assert left_behind(two) == ({"stopped"}, 0)


def test_bench_at_a_rate_says_whether_each_keeps_up_and_what_kept_the_level(
    two: RunningPanel, questions: Path
) -> None:
    level = ("--slo-first-token-ms", "600000", "--slo-token-ms", "0.001")
    asked = ("--prompts", str(questions), "--rate", "5", "--repeats", "1")
    made = bench(two, "plain", "drafting", *asked, *level)
    for arm in made["arms"]:
        assert (arm["rate"], arm["concurrency"], arm["errors"]) == (5.0, None, 0)
        states = {"not_saturated", "overloaded", "undecided"}
        assert arm["saturation"]["state"] in states
        # Known, and nought: no token comes within a microsecond.
        assert (arm["goodput"], arm["kept_level"]) == (0.0, 0)
    assert "total_tps" not in {row["metric"] for row in made["comparisons"]}
    [told] = [note for note in made["notes"] if "plain at 5 requests/s" in note]
    assert told.endswith(".")


@pytest.mark.timeout(600)
def test_other_kv_cache_has_its_perplexity_beside_its_answers(
    two: RunningPanel, questions: Path
) -> None:
    asked = ("--prompts", str(questions), "--repeats", "1", "--gateway", two.url)
    done = two.manage("bench", "plain", "coarse", *asked, "--json", timeout_s=500)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    plain, coarse = (arm["quality"]["perplexity"] for arm in made["arms"])
    assert (plain["why"], coarse["why"]) == ("", "")
    assert plain["tokens"] == coarse["tokens"] > 60
    assert plain["change_percent"] is None
    assert coarse["low_percent"] < coarse["change_percent"] < coarse["high_percent"]
    # Together from beginning to end, of one process each.
    assert any("their processes' own" in note for note in made["notes"])


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_that_is_ended_in_the_middle_leaves_the_rig_as_it_was(
    two: RunningPanel, questions: Path, number: signal.Signals
) -> None:
    asked = ("--prompts", str(questions), "--gateway", two.url)
    running = subprocess.Popen(
        [sys.executable, MANAGE, "bench", "drafting", "plain", *asked, "--swap"],
        env=two.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a shell starts a job in the background.
        preexec_fn=ignore_interrupts,
    )
    try:
        assert running.stdout
        assert "round 1 of 2" in running.stdout.readline().replace("at most ", "")
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 1
    assert said.strip().splitlines() == [
        "CommandError: The run was stopped. Every deployment is wanted as it was before."
    ]
    wait_until(lambda: left_behind(two) == ({"stopped"}, 0), 30)


def test_bench_where_nobody_listens_says_so_and_leaves_the_rig_as_it_was(
    two: RunningPanel, questions: Path
) -> None:
    done = two.manage(
        "bench", "plain", "--prompts", str(questions), "--gateway", "http://127.0.0.1:9"
    )
    assert done.returncode == 1
    assert "plain does not answer" in done.stderr
    assert "--gateway" in done.stderr
    assert left_behind(two) == ({"stopped"}, 0)
