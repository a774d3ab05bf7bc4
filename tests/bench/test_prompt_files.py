"""A file of prompts is read whole, or refused with each of its wrong lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.bench.prompt_files import PromptFileError, read_prompts
from deployments.bench.prompts import Prompt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.jsonl"


def test_questions_and_conversations_are_read(file: Path) -> None:
    file.write_bytes(
        b'{"prompt": "Why?"}\r\n'
        b"\n"
        b'{"messages": [{"role": "system", "content": "Be brief."},'
        b' {"role": "user", "content": "Gr\xc3\xbc\xc3\x9fe"}], "max_tokens": 7}'
    )
    question = {"role": "user", "content": "Why?"}
    rest = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße"},
    )
    assert read_prompts(file, 50) == [
        Prompt("own/1", (question,), 50),
        Prompt("own/3", rest, 7),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"Why?"', "not a JSON object"),
        ("{}", "either messages or a prompt"),
        ('{"prompt": "a", "messages": []}', "either messages or a prompt"),
        ('{"prompt": "a", "max_token": 5}', "'max_token' is not known"),
        ('{"prompt": ""}', "prompt is not a text"),
        ('{"prompt": ["a"]}', "prompt is not a text"),
        ('{"messages": []}', "messages is not a list"),
        ('{"messages": {"role": "user"}}', "messages is not a list"),
        ('{"messages": ["a"]}', "Message 1 is not an object"),
        ('{"messages": [{"role": "user"}]}', "Message 1 is not an object"),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            "role of message 1 is not known",
        ),
        ('{"messages": [{"role": "user", "content": " "}]}', "content of message 1"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant",'
            ' "content": "b"}]}',
            "last message is not the user's",
        ),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens is not a whole number"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens is not a whole number"),
        ('{"prompt": "a", "max_tokens": 1.5}', "max_tokens is not a whole number"),
        ('{"prompt": "a", "max_tokens": 99999999}', "max_tokens is not a whole number"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place_and_what_to_do(
    file: Path, line: str, said: str
) -> None:
    file.write_text(f'{{"prompt": "Why?"}}\n{line}\n')
    with pytest.raises(PromptFileError) as refused:
        read_prompts(file, 50)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{file}, line 2: ") and said in problem
    assert refused.value.fix


def test_every_wrong_line_is_named_at_once(file: Path) -> None:
    file.write_bytes(b'{\n{"prompt": "Why?"}\n\xff\n[]\n')
    with pytest.raises(PromptFileError) as refused:
        read_prompts(file, 50)
    places = [problem.split(": ")[0] for problem in refused.value.problems]
    assert places == [f"{file}, line {number}" for number in (1, 3, 4)]
    assert "Byte 1 is not UTF-8" in str(refused.value)


def test_a_file_that_is_wrong_throughout_is_not_told_whole(file: Path) -> None:
    file.write_text("{\n" * 100)
    with pytest.raises(PromptFileError, match="and 80 more lines") as refused:
        read_prompts(file, 50)
    assert len(refused.value.problems) == 100


def test_no_prompts_and_no_file_are_refused(file: Path) -> None:
    with pytest.raises(PromptFileError, match="cannot be read: No such file"):
        read_prompts(file, 50)
    file.write_text("\n \n")
    with pytest.raises(PromptFileError, match="holds no prompts"):
        read_prompts(file, 50)
