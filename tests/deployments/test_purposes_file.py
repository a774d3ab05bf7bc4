"""A purposes file that is written reads back as the same question."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.rig.purposes_file import parse_purposes, purposes_text
from deployments.rig.words import RigError
from tests.deployments.questions import questions

OWNERS = Question(
    (
        Purpose("coding", ("coder-32b", "hub:owner/coder-GGUF:Q4_K_M"), 2, 16_384),
        Purpose("chat", ("small",), prompt_tokens=200, answer_tokens=100, weight=0.5),
    ),
    RigSpec((CardSpec("RTX 5090"), CardSpec("RTX 5090", "gen5 x8")), 384 << 30, 236.0),
)
OWNERS_TEXT = """\
rig:
  cards:
  - card: RTX 5090
  - card: RTX 5090
    link: gen5 x8
  ram: 384 GiB
  ram_gbps: 236.0
  cores: 16
purposes:
- name: coding
  models:
  - coder-32b
  - hub:owner/coder-GGUF:Q4_K_M
  users: 2
  context: 16384
  prompt_tokens: 1000
  answer_tokens: 300
  weight: 1.0
- name: chat
  models:
  - small
  users: 1
  context: 8192
  prompt_tokens: 200
  answer_tokens: 100
  weight: 0.5
"""


def test_a_question_is_written_as_people_write_it() -> None:
    assert purposes_text(OWNERS) == OWNERS_TEXT
    assert purposes_text(Question(OWNERS.purposes)).startswith("rig: here\n")


@settings(max_examples=60, deadline=None)
@given(questions())
def test_a_written_question_reads_back_as_the_same(question: Question) -> None:
    assert parse_purposes(purposes_text(question)) == question


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("purposes: [{name: auto, models: [m]}]", "'auto' has another meaning"),
        ("purposes: [{name: a, models: [m], context: 5}]", "from 256 to 16,777,216"),
        ("purposes: [{name: a, models: [m], weight: 0}]", "a number from 0.001 to 1,000"),
        (f"rig: {{cards: [{{card: {'x' * 121}}}]}}\npurposes: [{{name: a, models: [m]}}]",
         "The card 'xxx"),
        (f"rig: {{cards: [{{card: x, link: {'x' * 121}}}]}}\npurposes: [{{name: a, models: [m]}}]",
         "is too long"),
    ],
)  # fmt: skip
def test_a_limit_is_told(text: str, said: str) -> None:
    with pytest.raises(RigError) as caught:
        parse_purposes(text)
    assert said in str(caught.value)
