"""How large the prompts of the scenarios are, and how much of an answer a drafter could copy.

python benchmarks/scenarios.py [--json] [--context N]

Tokens are those of the packaged model, counted by the packaged llama-server with the model's chat
template. `repeats` is the share of tokens that n-gram drafting would get right: the three tokens
before stood in the text already, and the same token followed them the last time. For answers that
are known it is counted over the answer, with the prompt before it, beside the length of the pieces
that can be copied in one go. With --context N only what fits into such a context is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

import httpx  # noqa: E402
from django.conf import settings  # noqa: E402

from deployments.bench.scenarios import SCENARIOS, Load, Part, Scenario  # noqa: E402
from gpus.host import cores  # noqa: E402
from tests.gateway.engine import RealEngine  # noqa: E402

NGRAM = 3

LOADS = {
    Load.IN_TURN: "each client asks when it has its answer",
    Load.AT_ONCE: "each part on a deployment of its own, all at the same time",
    Load.AFTER_START: "each question is the first after a start",
}


@dataclass(frozen=True)
class Sizes:
    """The prompts of one part, in tokens."""

    scenario: str
    part: str
    concurrency: tuple[int, ...]
    prompts: int
    tokens: int
    shortest: int
    median: float
    longest: int
    answer: int
    context: int
    repeats: float

    @property
    def fits(self) -> bool:
        """Whether the longest prompt and its answer fit into the context that it declares."""
        return self.longest + self.answer <= self.context


@dataclass(frozen=True)
class Copying:
    """What n-gram drafting would find for the answers that are known, over all of them."""

    scenario: str
    answers: int
    shortest: int
    median: float
    longest: int
    limit: int
    repeats: float
    least_repeats: float
    mean_piece: float


class Tokenizer:
    """Asks a running llama-server which tokens a text has."""

    def __init__(self, engine: RealEngine) -> None:
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{engine.port}",
            headers={"authorization": f"Bearer {engine.key}"},
            timeout=60,
        )

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """With everything that the model's chat template puts around the messages."""
        found = self._post("/apply-template", {"messages": list(messages)})
        return self.text(found["prompt"], special=True)

    def text(self, text: str, *, special: bool = False) -> list[int]:
        body = {"content": text, "add_special": special, "parse_special": special}
        return list(self._post("/tokenize", body)["tokens"])

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, json=body)
        answer.raise_for_status()
        return dict(answer.json())


@contextmanager
def tokenizer() -> Iterator[Tokenizer]:
    key = settings.OMNI_HOME.secret_path("engine")
    with tempfile.TemporaryDirectory(prefix="omni-scenarios-") as folder:
        flags = ("-c", "512", "-np", "1", "--no-warmup", "--device", "none")
        engine = RealEngine(Path(folder), key, flags=flags, threads=cores())
        try:
            engine.wait_ready()
            yield Tokenizer(engine)
        finally:
            engine.kill()


def copied(before: Sequence[int], tokens: Sequence[int]) -> list[bool]:
    """For each token whether a lookup of the last three would have drafted it."""
    every, found = [*before, *tokens], []
    followed_by: dict[tuple[int, ...], int] = {}
    for place in range(len(every)):
        last = tuple(every[place - NGRAM : place]) if place >= NGRAM else ()
        if place >= len(before):
            found.append(followed_by.get(last) == every[place])
        if last:
            followed_by[last] = every[place]
    return found


def pieces(hits: Sequence[bool]) -> list[int]:
    """How long the runs of drafted tokens are."""
    lengths, run = [], 0
    for hit in [*hits, False]:
        if hit:
            run += 1
        elif run:
            lengths.append(run)
            run = 0
    return lengths


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0


def sizes(counter: Tokenizer, scenario: Scenario, part: Part) -> Sizes:
    prompts = [counter.prompt(prompt.messages) for prompt in part.prompts]
    lengths = [len(prompt) for prompt in prompts]
    hits = [hit for prompt in prompts for hit in copied([], prompt)]
    return Sizes(
        scenario=scenario.name,
        part=part.name,
        concurrency=scenario.concurrency,
        prompts=len(prompts),
        tokens=sum(lengths),
        shortest=min(lengths),
        median=statistics.median(lengths),
        longest=max(lengths),
        answer=scenario.max_tokens,
        context=part.context,
        repeats=share(hits),
    )


def copying(counter: Tokenizer, scenario: Scenario) -> Copying:
    answers = [
        (
            counter.prompt(prompt.messages),
            counter.text(scenario.expected[prompt.name]),
        )
        for prompt in scenario.prompts
        if prompt.name in scenario.expected
    ]
    lengths = [len(answer) for _, answer in answers]
    found = [copied(prompt, answer) for prompt, answer in answers]
    return Copying(
        scenario=scenario.name,
        answers=len(answers),
        shortest=min(lengths),
        median=statistics.median(lengths),
        longest=max(lengths),
        limit=scenario.max_tokens,
        repeats=share([hit for hits in found for hit in hits]),
        least_repeats=min(share(hits) for hits in found),
        mean_piece=statistics.mean(run for hits in found for run in pieces(hits)),
    )


def described(scenario: Scenario) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "about": scenario.about,
        "favours": scenario.favours,
        "load": scenario.load.value,
        "sampling": dict(scenario.sampling),
    }


def print_descriptions(names: Sequence[str]) -> None:
    for scenario in map(SCENARIOS.__getitem__, names):
        sampling = ", ".join(f"{key} {n:g}" for key, n in scenario.sampling.items())
        print(f"{scenario.title}: {LOADS[scenario.load]}; {sampling}.")
        print(f"    {scenario.about}")
        print(f"    Favours: {scenario.favours}")


def print_table(rows: Sequence[Sizes], answers: Sequence[Copying]) -> None:
    print(
        "\nscenario     part         clients  prompts   tokens  shortest  median  longest"
        "  answer  context  repeats"
    )
    for row in rows:
        clients = ",".join(map(str, row.concurrency))
        print(
            f"{row.scenario:<12} {row.part:<12} {clients:>7} {row.prompts:8} {row.tokens:8,}"
            f" {row.shortest:9,} {row.median:7,.0f} {row.longest:8,} {row.answer:7,}"
            f" {row.context:8,} {row.repeats:8.0%}"
        )
    for known in answers:
        print(
            f"\n{known.scenario}: {known.answers} known answers of {known.shortest:,} to"
            f" {known.longest:,} tokens (median {known.median:,.0f}, limit {known.limit:,});"
            f" {known.repeats:.0%} of their tokens can be copied by a lookup of {NGRAM} tokens"
            f" (least of one answer {known.least_repeats:.0%}), {known.mean_piece:.0f} in one go"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--context", type=int, default=1 << 30)
    given = parser.parse_args()

    with tokenizer() as counter:
        rows = [
            sizes(counter, scenario, part)
            for scenario in SCENARIOS.values()
            for part in scenario.fitting(given.context)
        ]
        answers = [
            copying(counter, scenario)
            for scenario in SCENARIOS.values()
            if scenario.expected and scenario.context <= given.context
        ]

    names = list(dict.fromkeys(row.scenario for row in rows))
    if given.json:
        found = {
            "scenarios": [described(SCENARIOS[name]) for name in names],
            "sizes": [asdict(row) for row in rows],
            "answers": [asdict(known) for known in answers],
        }
        print(json.dumps(found))
    else:
        print_descriptions(names)
        print_table(rows, answers)

    too_small = [f"{row.scenario} {row.part}" for row in rows if not row.fits]
    if too_small or any(known.longest > known.limit for known in answers):
        sys.exit(
            f"Declared too small: {', '.join(too_small) or 'max_tokens of answers'}"
        )


if __name__ == "__main__":
    main()
