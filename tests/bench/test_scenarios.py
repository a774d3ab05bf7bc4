"""The scenarios that come with Omni hold what a benchmark needs, and a damaged file is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.bench.entries import DamagedFile
from deployments.bench.prompts import Prompt
from deployments.bench.scenarios import (
    FOLDER,
    SCENARIOS,
    Load,
    read_scenario,
    scenario,
)
from omni.errors import OmniError

# As in DESIGN.md, section 4.
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
# Fewer than any usual tokenizer puts into a token: 2.5 where there is code, 3.7 in long prose.
CHARACTERS_A_TOKEN = dict.fromkeys(NAMES, 2.5) | {"long_prompt": 3.7}
each_scenario = pytest.mark.parametrize("name", NAMES)


def asked(prompt: Prompt) -> str:
    return prompt.messages[0]["content"]


def size(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.messages)


def data(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


# --- what comes with Omni -------------------------------------------------------------------------
def test_scenarios_are_those_of_the_design_and_each_has_its_file() -> None:
    assert tuple(SCENARIOS) == NAMES and len(SCENARIOS) == len(NAMES)
    assert {path.name for path in FOLDER.iterdir()} == {f"{n}.yaml" for n in NAMES}
    assert "lunch" not in SCENARIOS


def test_their_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 400_000


@each_scenario
def test_a_scenario_describes_itself(name: str) -> None:
    found = SCENARIOS[name]
    assert found.name == name
    assert len(found.title) < 40 and found.about.endswith(".")
    assert found.favours.endswith(".")
    assert len(found.about) < 200 and len(found.favours) < 200
    assert found.sampling == {"temperature": 0.0}


@each_scenario
def test_each_part_has_at_least_40_prompts_and_none_twice(name: str) -> None:
    found = SCENARIOS[name]
    for part in found.parts:
        assert len(part.prompts) >= 40
    questions = [prompt.messages for prompt in found.prompts]
    assert all(questions.count(question) == 1 for question in questions)


def test_no_prompt_is_shared_by_two_scenarios() -> None:
    every = [asked(prompt) for found in SCENARIOS.values() for prompt in found.prompts]
    assert len(set(every)) == len(every)


@each_scenario
def test_no_two_prompts_share_their_first_eight_words(name: str) -> None:
    beginnings = [asked(prompt).split()[:8] for prompt in SCENARIOS[name].prompts]
    assert all(beginnings.count(words) == 1 for words in beginnings)


@each_scenario
def test_names_of_prompts_are_their_places(name: str) -> None:
    found = SCENARIOS[name]
    for part in found.parts:
        prefix = f"{name}/{part.name}" if len(found.parts) > 1 else name
        places = range(1, len(part.prompts) + 1)
        assert [prompt.name for prompt in part.prompts] == [
            f"{prefix}/{place}" for place in places
        ]


@each_scenario
def test_lengths_lie_within_the_declared_band(name: str) -> None:
    for part, declared in zip(SCENARIOS[name].parts, data(name)["parts"], strict=True):
        least, most = declared["characters"]
        sizes = [size(prompt) for prompt in part.prompts]
        assert least <= min(sizes) and max(sizes) <= most


@each_scenario
def test_a_prompt_and_its_answer_fit_into_the_declared_context(name: str) -> None:
    found = SCENARIOS[name]
    for part in found.parts:
        longest = max(map(size, part.prompts)) / CHARACTERS_A_TOKEN[name]
        assert longest + found.max_tokens <= part.context
    assert found.context == min(part.context for part in found.parts)


@each_scenario
def test_messages_are_questions_of_a_user_without_a_system_message(name: str) -> None:
    for prompt in SCENARIOS[name].prompts:
        roles = [message["role"] for message in prompt.messages]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
        assert roles[-1] == "user" and prompt.max_tokens == SCENARIOS[name].max_tokens


def test_loads_are_what_the_scenarios_stand_for() -> None:
    assert SCENARIOS["many_users"].concurrency == (1, 4, 8)
    assert SCENARIOS["chat"].concurrency == (1,)
    assert SCENARIOS["mixed"].load == Load.AT_ONCE
    assert [part.name for part in SCENARIOS["mixed"].parts] == ["code", "reasoning"]
    assert SCENARIOS["cold_start"].load == Load.AFTER_START
    others = set(NAMES) - {"mixed", "cold_start"}
    assert {SCENARIOS[name].load for name in others} == {Load.IN_TURN}


def test_chat_has_conversations_of_several_turns() -> None:
    turns = [len(prompt.messages) for prompt in SCENARIOS["chat"].prompts]
    assert turns.count(1) >= 30 and max(turns) >= 3


# --- long prompts ---------------------------------------------------------------------------------
def test_long_prompts_differ_from_their_first_word_on() -> None:
    first = [asked(prompt).split()[0] for prompt in SCENARIOS["long_prompt"].prompts]
    assert len(set(first)) == len(first) == 80


def test_a_long_prompt_repeats_no_paragraph_and_holds_what_it_is_asked_for() -> None:
    documents = data("long_prompt")["documents"]
    for part in SCENARIOS["long_prompt"].parts:
        for prompt, document in zip(part.prompts, documents, strict=True):
            paragraphs = asked(prompt).split("\n\n")
            assert len(set(paragraphs)) == len(paragraphs)
            assert document["finding"] in paragraphs[1:]
            assert document["opening"] in paragraphs[:2]


def test_long_prompts_have_findings_at_all_depths_and_paragraphs_in_own_orders() -> (
    None
):
    documents = data("long_prompt")["documents"]
    for part in SCENARIOS["long_prompt"].parts:
        texts = [asked(prompt) for prompt in part.prompts]
        depths = sorted(
            text.index(document["finding"]) / len(text)
            for text, document in zip(texts, documents, strict=True)
        )
        assert depths[0] < 0.2 and depths[-1] > 0.8
        orders = {tuple(text.split("\n\n")[2:6]) for text in texts}
        assert len(orders) == len(texts)


def test_only_parts_that_fit_are_run() -> None:
    found = SCENARIOS["long_prompt"]
    fitting = {
        limit: [part.name for part in found.fitting(limit)]
        for limit in (2048, 3072, 8192, 10240)
    }
    assert fitting == {2048: [], 3072: ["2k"], 8192: ["2k"], 10240: ["2k", "8k"]}


# --- code editing ---------------------------------------------------------------------------------
def test_the_expected_answer_of_an_edit_is_the_file_changed_in_places() -> None:
    found = SCENARIOS["code_edit"]
    assert set(found.expected) == {prompt.name for prompt in found.prompts}
    for prompt in found.prompts:
        block = re.search(r"```\w+\n.*?```", asked(prompt), re.S)
        assert block
        before, after = block[0].splitlines(), found.expected[prompt.name].splitlines()
        kept = [line for line in after if line in before]
        assert before[0] == after[0] and before[-1] == after[-1] == "```"
        assert len(after) / 2 <= len(kept) and before != after


def test_edits_are_of_many_languages() -> None:
    expected = SCENARIOS["code_edit"].expected.values()
    assert len({answer.splitlines()[0] for answer in expected}) >= 15


def test_an_edit_replaces_its_text_everywhere() -> None:
    answer = SCENARIOS["code_edit"].expected["code_edit/1"]
    assert "Basket" not in answer and answer.count("Cart") == 8


# --- reading --------------------------------------------------------------------------------------
def test_a_scenario_is_read_once() -> None:
    assert scenario("chat") is scenario("chat") is SCENARIOS["chat"]


def test_an_unknown_scenario_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(OmniError) as refused:
        scenario("../chat")
    assert refused.value.code == "scenario_unknown"
    assert "cold_start" in refused.value.fix


def test_reading_again_makes_the_same_prompts(tmp_path: Path) -> None:
    copy = tmp_path / "long_prompt.yaml"
    shutil.copy(FOLDER / "long_prompt.yaml", copy)
    assert read_scenario(copy) == SCENARIOS["long_prompt"]


def drop(*keys: str | int) -> Callable[[Any], None]:
    def damage(found: Any) -> None:
        for key in keys[:-1]:
            found = found[key]
        del found[keys[-1]]

    return damage


def put(value: object, *keys: str | int) -> Callable[[Any], None]:
    def damage(found: Any) -> None:
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] = value

    return damage


PROMPTS = ("parts", 0, "prompts")
EDITS = ("parts", 0, "edits")
DAMAGES: tuple[tuple[str, Callable[[Any], None], str, str], ...] = (
    ("chat", drop("title"), "", "title is not a text"),
    ("chat", put(" ", "about"), "", "about is empty"),
    ("chat", put(True, "surprise"), "", "surprise is not a known key"),
    ("chat", put("hot", "sampling"), "", "not one of greedy"),
    ("chat", put("in_circles", "load"), "", "in_turn, at_once, after_start"),
    ("chat", put(0, "max_tokens"), "", "max_tokens is not a whole number"),
    ("chat", put(True, "max_tokens"), "", "max_tokens is not a whole number"),
    ("chat", put([1, "four"], "concurrency"), "", "concurrency are not whole"),
    ("chat", put([], "parts"), "", "parts is not a list with items"),
    ("chat", put("prompts", "parts", 0), "parts 1", "does not hold keys"),
    ("chat", drop(*PROMPTS), "parts 1", "not exactly one of prompts, edits, length"),
    ("chat", put([], "parts", 0, "edits"), "parts 1", "not exactly one of"),
    ("chat", put("a", "parts", 0, "colour"), "parts 1", "colour is not a known key"),
    ("chat", put(-1, "parts", 0, "context"), "parts 1", "context is not a whole"),
    ("chat", put([9, 8], "parts", 0, "characters"), "parts 1", "least and the most"),
    ("chat", put(["One?"] * 39, *PROMPTS), "parts 1", "39 prompts, fewer than 40"),
    ("chat", put(7, *PROMPTS, 4), "parts 1, prompts 5", "it is not a text"),
    ("chat", put("", *PROMPTS, 4), "parts 1, prompts 5", "it is not a text"),
    ("chat", put(["a", "b"], *PROMPTS, 4), "parts 1, prompts 5", "end with a question"),
    ("chat", put([], *PROMPTS, 4), "parts 1, prompts 5", "end with a question"),
    ("chat", put("Why?", *PROMPTS, 4), "parts 1, prompts 5", "4 characters, not 40 to"),
    ("code_edit", drop("closing"), "", "closing is not a text"),
    ("code_edit", drop(*EDITS, 2, "file"), "parts 1, edits 3", "file is not a text"),
    (
        "code_edit",
        put("no such text", *EDITS, 2, "edits", 0, "from"),
        "parts 1, edits 3, edits 1",
        "does not stand in the file",
    ),
    ("long_prompt", drop("stock"), "", "stock is not a list"),
    ("long_prompt", put(["Short."], "stock"), "", "fewer than 9000 characters"),
    ("long_prompt", put([1], "stock"), "", "does not hold texts only"),
    ("long_prompt", put("aside", "parts", 1, "question"), "parts 2", "after, before"),
    ("long_prompt", drop("documents", 3, "finding"), "documents 4", "finding is not"),
)


@pytest.mark.parametrize(("name", "damage", "place", "what"), DAMAGES)
def test_a_damaged_file_is_refused_with_the_place(
    name: str, damage: Callable[[Any], None], place: str, what: str, tmp_path: Path
) -> None:
    found = data(name)
    damage(found)
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(found), encoding="utf-8")
    with pytest.raises(DamagedFile) as refused:
        read_scenario(file)
    assert refused.value.code == "scenario_damaged" and refused.value.place == place
    assert what in refused.value.text and file.name in refused.value.text
    assert file.name in refused.value.fix


def test_two_prompts_that_begin_alike_are_refused(tmp_path: Path) -> None:
    found = data("chat")
    prompts = found["parts"][0]["prompts"]
    prompts[6] = prompts[2] + " And why is that so?"
    file = tmp_path / "chat.yaml"
    file.write_text(yaml.safe_dump(found), encoding="utf-8")
    with pytest.raises(DamagedFile, match="begins as parts 1, prompts 3") as refused:
        read_scenario(file)
    assert refused.value.place == "parts 1, prompts 7"


@pytest.mark.parametrize(
    ("raw", "place", "what"),
    [
        (b"title: Chat\nabout: [", "line 2", "expected"),
        (b"title: Chat\n\tabout: x", "line 2", "cannot start any token"),
        (b"", "", "does not hold keys"),
        (b"- one\n- two\n", "", "does not hold keys"),
        (b"title: \xff", "", "cannot be read"),
        (b"title: \x00", "", "not YAML"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_with_its_line(
    raw: bytes, place: str, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "chat.yaml"
    file.write_bytes(raw)
    with pytest.raises(DamagedFile) as refused:
        read_scenario(file)
    assert what in refused.value.text and refused.value.place.startswith(place)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="chat.yaml.*missing"):
        read_scenario(tmp_path / "chat.yaml")
