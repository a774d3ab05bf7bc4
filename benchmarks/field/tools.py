"""Omni's load generator, llama-benchy and guidellm, each run once with the same questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from benchmarks.field.figures import Figures
from deployments.bench.made_text import text_of
from tests.gateway.engine import RealEngine

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "smol-alias"
LIMIT_S = 600


@dataclass(frozen=True)
class Bench:
    """What every tool is given."""

    engine: RealEngine
    folder: Path
    book_url: str
    tokenizer: Path | None
    answer_tokens: int
    requests: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.engine.port}"

    @cached_property
    def _client(self) -> httpx.Client:
        key = {"authorization": f"Bearer {self.engine.key}"}
        return httpx.Client(base_url=self.url, headers=key, timeout=60)

    def tokens_of(self, text: str) -> int:
        """As the engine counts them, with what the chat template puts around."""
        messages = [{"role": "user", "content": text}]
        whole = self._client.post("/apply-template", json={"messages": messages})
        asked = {"content": whole.json()["prompt"], "parse_special": True}
        found = self._client.post("/tokenize", json=asked).json()
        return len(found["tokens"])

    def questions(self, name: str, number: int, tokens: int) -> Path:
        """A file of so many different prompts, all so long."""
        path = self.folder / f"{name}.jsonl"
        lines = [self._cut(f"{name}/{place}", tokens) for place in range(number)]
        path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in lines))
        return path

    def _cut(self, seed: str, tokens: int) -> str:
        """A text of the book's kind that is so long, to a word."""
        words = text_of(seed, tokens).split()
        low, high = 1, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            if self.tokens_of(" ".join(words[:middle])) <= tokens:
                low = middle
            else:
                high = middle - 1
        return " ".join(words[:low])

    def log(self) -> str:
        return self.engine.log.read_text(errors="replace")


# A run of a tool: so many at once, prompts of so many tokens, the number of the run.
Tool = Callable[[Bench, int, int, int], Figures]


def omni(bench: Bench, at_once: int, tokens: int, run: int) -> Figures:
    questions = bench.questions(f"omni-{run}", at_once + bench.requests, tokens)
    argv: list[Any] = [
        sys.executable, ROOT / "benchmarks" / "load_generator.py", "--url", bench.url,
        "--key", bench.engine.key, "--model", MODEL, "--concurrency", at_once,
        "--requests", bench.requests, "--warm-up", at_once, "--prompts", questions,
        "--max-tokens", bench.answer_tokens, "--no-cache", "--ignore-eos", "--json",
    ]  # fmt: skip
    (told,) = json.loads(_run("omni", argv, bench.folder))["loads"]
    if told["done"] != bench.requests:
        raise RuntimeError(f"omni: {told['problems']}, {told['examples']}")
    return Figures(
        [one["first_token_ms"] for one in told["each"]],
        [one["output_tps"] for one in told["each"]],
    )


def benchy(python: Path, bench: Bench, at_once: int, tokens: int, run: int) -> Figures:
    result = bench.folder / f"benchy-{run}.json"
    argv: list[Any] = [
        python, "-m", "llama_benchy", "--base-url", f"{bench.url}/v1",
        "--api-key", bench.engine.key, "--model", MODEL, "--tokenizer", bench.tokenizer,
        "--pp", tokens, "--tg", bench.answer_tokens, "--exact-tg", "--no-cache",
        "--runs", max(1, bench.requests // at_once), "--concurrency", at_once,
        "--book-url", bench.book_url, "--skip-coherence", "--latency-mode", "none",
        "--extra-body", "temperature=0", "--extra-body", "seed=1",
        "--save-result", result, "--format", "json",
    ]  # fmt: skip
    _run("llama-benchy", argv, bench.folder)
    (told,) = json.loads(result.read_text())["benchmarks"]
    return Figures(told["e2e_ttft"]["values"], told["tg_req_throughput"]["values"])


def guidellm(
    python: Path, bench: Bench, at_once: int, tokens: int, run: int
) -> Figures:
    result = bench.folder / f"guidellm-{run}.json"
    questions = bench.questions(f"guidellm-{run}", at_once + bench.requests, tokens)
    body = {
        "temperature": 0,
        "seed": 1,
        "cache_prompt": False,
        "max_tokens": bench.answer_tokens,
        "ignore_eos": True,
    }
    spec = {
        "backend": {
            "kind": "openai_http",
            "target": bench.url,
            "model": MODEL,
            "api_key": bench.engine.key,
            "extras": {"body": body},
        },
        "profile": {"kind": "concurrent", "streams": [at_once]},
        "constraints": [{"kind": "max_requests", "count": bench.requests}],
        "tokenizer": {"kind": "huggingface_auto", "model": str(bench.tokenizer)},
        "data": [{"kind": "json_file", "path": str(questions)}],
        "outputs": [{"kind": "json", "path": str(result)}],
    }
    scenario = bench.folder / f"guidellm-{run}-scenario.json"
    scenario.write_text(json.dumps({"spec": spec}))
    argv = [python.with_name("guidellm"), "run", "-c", scenario, "--disable-console"]
    _run("guidellm", argv, bench.folder)

    (told,) = json.loads(result.read_text())["benchmarks"]
    found = Figures()
    for one in told["requests"]["successful"]:
        found.first_token_ms.append(one["time_to_first_token_ms"])
        found.output_tps.append(1000 / one["inter_token_latency_ms"])
    return found


def _run(name: str, argv: Sequence[Any], folder: Path) -> str:
    """What it printed. Raises RuntimeError with what it said last."""
    # What they keep for the next time is thrown away with the rest.
    own = {
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "GUIDELLM__MAX_WORKER_PROCESSES": "1",
    }
    ended = subprocess.run(
        [str(part) for part in argv],
        env={**os.environ, **own},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if ended.returncode:
        said = (ended.stdout + ended.stderr)[-1500:]
        raise RuntimeError(f"{name} ended with {ended.returncode}:\n{said}")
    return ended.stdout
