"""The command: what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import Commands
from tests.gateway.fake_engine import FakeEngine

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "benchmarks" / "load_generator.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """It writes thirty tokens in half a second, of which half the drafts are accepted."""
    made = FakeEngine(always="writes_with_drafts")
    yield made
    made.close()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The command in a process that has everything imported."""
    commands = Commands(lambda: os.environ, "benchmarks.load_generator")
    yield lambda *arguments: commands.run(tuple(map(str, arguments)), 120)
    commands.close()


def at(engine: FakeEngine) -> list[str]:
    return ["--url", f"http://127.0.0.1:{engine.port}/v1", "--model", "smol"]


def test_a_sweep_as_json(run: Run, engine: FakeEngine, tmp_path: Path) -> None:
    questions = tmp_path / "own.jsonl"
    lines = [json.dumps({"prompt": f"Question {n}?"}) for n in range(9)]
    questions.write_text("\n".join(lines))
    ended = run(
        *at(engine), "--concurrency", "1,3", "--requests", "3", "--warm-up", "1",
        "--prompts", questions, "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr

    told = json.loads(ended.stdout)
    one, three = told["loads"]
    assert [load["arrivals"]["users"] for load in told["loads"]] == [1, 3]
    assert [load["done"] for load in told["loads"]] == [3, 3]
    assert one["metrics"]["acceptance"] == three["metrics"]["acceptance"] == 0.5
    assert one["metrics"]["inter_token_ms"]["count"] == 3 * 29
    assert one["metrics"]["joules_per_token"] is None
    assert told["metrics"]["first_token_ms"]["higher_is_better"] is False
    # Warm-up included, and none asked twice.
    asked = [body["messages"][0]["content"] for body in engine.seen]
    assert len(asked) == len(set(asked)) == 8


def test_a_rate_as_a_table(engine: FakeEngine) -> None:
    """Started as a person would."""
    arguments = (*at(engine), "--rate", "20", "--requests", "4", "--explain")
    ended = subprocess.run(
        [sys.executable, str(COMMAND), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "20 a second" in ended.stdout and "4 of 4" in ended.stdout
    assert "acceptance rate, share" in ended.stdout
    assert "kv_transfer_ms: Saving the KV cache" in ended.stdout


def test_prompts_may_be_asked_again_where_no_cache_helps(
    run: Run, engine: FakeEngine, tmp_path: Path
) -> None:
    questions = tmp_path / "own.jsonl"
    questions.write_text('{"prompt": "Why?"}')
    ended = run(
        *at(engine), "--requests", "2", "--prompts", questions, "--no-cache", "--json"
    )
    assert json.loads(ended.stdout)["loads"][0]["done"] == 2
    assert [body["cache_prompt"] for body in engine.seen] == [False] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "ftp://host", "--model", "smol"], "is no address"),
        (["--url", "http://127.0.0.1:1", "--model", "smol"], "unreachable"),
        (
            ["--url", "http://127.0.0.1:1", "--model", "smol", "--requests", "0"],
            "nothing to do",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Run, arguments: list[str], said: str
) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr and said in ended.stderr


def test_a_wrong_line_of_the_prompts_is_named(
    run: Run, engine: FakeEngine, tmp_path: Path
) -> None:
    questions = tmp_path / "own.jsonl"
    questions.write_text('{"prompt": "Why?"}\n{"question": "Why?"}\n')
    ended = run(*at(engine), "--prompts", questions)
    assert ended.returncode == 1 and f"{questions}, line 2: " in ended.stderr
    assert engine.seen == []
