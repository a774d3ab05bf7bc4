"""The scenarios of a benchmark: what is asked, how many ask at once, what room it takes.

Their prompts are our own and stand in scenario_files/, one file for each scenario. A file is read
when it is first asked for. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml

from deployments.bench.entries import DamagedFile, Entry, entry
from deployments.bench.prompts import Prompt
from deployments.bench.scenario_forms import FORMS, Question
from omni.errors import OmniError

FOLDER = Path(__file__).parent / "scenario_files"

NAMES = (
    "chat",
    "long_prompt",
    "code_edit",
    "code_write",
    "reasoning",
    "many_users",
    "mixed",
    "cold_start",
)

# A run must not ask anything twice: an engine answers what it has read from its cache.
MIN_PROMPTS = 40
# Prompts that share more than this are partly answered from the cache of prefixes.
DISTINCT_WORDS = 8


class Load(StrEnum):
    """How the prompts of a scenario reach the deployments."""

    # Each client asks its next question when it has the answer to the one before.
    IN_TURN = "in_turn"
    # As IN_TURN, each part on a deployment of its own, all at the same time.
    AT_ONCE = "at_once"
    # Each question is the first one after a start of the deployment.
    AFTER_START = "after_start"


SAMPLINGS: Mapping[str, Mapping[str, float]] = {"greedy": {"temperature": 0.0}}


@dataclass(frozen=True)
class Part:
    """Prompts of one kind, and how many tokens of context one of them and its answer need."""

    name: str
    context: int
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Scenario:
    """A use of language models: its prompts, and the load in which they are asked.

    `about` says what it stands for and `favours` which strategy should do well, for people.
    `sampling` are fields of each request. `expected` holds the answers that are known, by the
    names of their prompts.
    """

    name: str
    title: str
    about: str
    favours: str
    load: Load
    sampling: Mapping[str, float]
    max_tokens: int
    concurrency: tuple[int, ...]
    parts: tuple[Part, ...]
    expected: Mapping[str, str]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(prompt for part in self.parts for prompt in part.prompts)

    @property
    def context(self) -> int:
        """The smallest context, in tokens, in which a part of it can be run."""
        return min(part.context for part in self.parts)

    def fitting(self, context: int) -> tuple[Part, ...]:
        """The parts that can be run in a context of so many tokens."""
        return tuple(part for part in self.parts if part.context <= context)


@cache
def scenario(name: str) -> Scenario:
    """The scenario of this name; its file is read once."""
    if name not in NAMES:
        raise OmniError(
            "scenario_unknown",
            f"There is no benchmark scenario {name}.",
            f"Choose one of {', '.join(NAMES)}.",
        )
    return read_scenario(FOLDER / f"{name}.yaml")


class _Scenarios(Mapping[str, Scenario]):
    """All scenarios by name, in the order in which pages list them."""

    def __getitem__(self, name: str) -> Scenario:
        if name not in NAMES:
            raise KeyError(name)
        return scenario(name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


SCENARIOS: Mapping[str, Scenario] = _Scenarios()


# --- reading a file -------------------------------------------------------------------------------
def read_scenario(path: Path) -> Scenario:
    """The scenario that a file describes. DamagedFile says where it does not."""
    head = _head(path)
    head.only(
        *("title", "about", "favours", "load", "sampling", "max_tokens"),
        *("concurrency", "parts", "closing", "documents", "stock"),
    )
    name, max_tokens = path.stem, head.number("max_tokens")
    entries = head.entries("parts")
    parts: list[Part] = []
    expected: dict[str, str] = {}

    for part in entries:
        part_name = part.text("name")
        prefix = f"{name}/{part_name}" if len(entries) > 1 else name
        questions = _questions(head, part)
        prompts = tuple(
            Prompt(f"{prefix}/{number}", question.messages, max_tokens)
            for number, question in enumerate(questions, 1)
        )
        parts.append(Part(part_name, part.number("context"), prompts))
        for prompt, question in zip(prompts, questions, strict=True):
            if question.expected:
                expected[prompt.name] = question.expected

    return Scenario(
        name=name,
        title=head.text("title"),
        about=head.text("about"),
        favours=head.text("favours"),
        load=head.choice("load", {load.value: load for load in Load}),
        sampling=head.choice("sampling", SAMPLINGS),
        max_tokens=max_tokens,
        concurrency=head.numbers("concurrency"),
        parts=tuple(parts),
        expected=expected,
    )


def _head(path: Path) -> Entry:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedFile(path.name, "", "the file is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFile(path.name, "", f"it cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}" if mark else ""
        raise DamagedFile(path.name, place, f"{error.problem}") from None
    except yaml.YAMLError as error:
        raise DamagedFile(path.name, "", f"it is not YAML ({error})") from None
    return entry(path.name, "", found)


def _questions(head: Entry, part: Entry) -> list[Question]:
    """The questions of a part, once they are enough, distinct and of the sizes it declares."""
    forms = [form for key, form in FORMS.items() if key in part.values]
    if len(forms) != 1:
        raise part.damaged(f"it has not exactly one of {', '.join(FORMS)}")

    found = forms[0](head, part)
    if len(found) < MIN_PROMPTS:
        raise part.damaged(f"it has {len(found)} prompts, fewer than {MIN_PROMPTS}")

    _check_beginnings(part, found)
    _check_sizes(part, found)
    return found


def _check_beginnings(part: Entry, questions: list[Question]) -> None:
    places: dict[str, str] = {}
    for question in questions:
        begins = beginning(question.messages[0]["content"])
        if begins in places:
            raise DamagedFile(
                part.file, question.place, f"it begins as {places[begins]} does"
            )
        places[begins] = question.place


def beginning(text: str) -> str:
    """The first words of a prompt, by which no two may be alike."""
    return " ".join(text.split()[:DISTINCT_WORDS])


def _check_sizes(part: Entry, questions: list[Question]) -> None:
    band = part.numbers("characters")
    if len(band) != 2 or band[0] > band[1]:
        raise part.damaged("characters are not the least and the most")

    least, most = band
    for question in questions:
        size = sum(len(message["content"]) for message in question.messages)
        if not least <= size <= most:
            raise DamagedFile(
                part.file,
                question.place,
                f"it has {size} characters, not {least} to {most}",
            )
