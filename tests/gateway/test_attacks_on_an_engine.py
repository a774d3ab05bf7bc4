"""What ended the engine, or held its loop, when it was sent by itself: through the gateway nothing
of it arrives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.engine import RealEngine
from tests.gateway.served import Served, question
from tests.gateway.test_constraints import (
    BAD_GRAMMARS,
    BAD_PATTERNS,
    GOOD_GRAMMARS,
    GOOD_PATTERNS,
    tools,
)


def by_schema(pattern: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": schema},
        }
    }


def by_tool(pattern: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"p": {"type": "string", "pattern": pattern}},
    }
    return {"tools": tools(schema), "tool_choice": "required"}


def test_no_attack_reaches_the_engine(engine: RealEngine, served: Served) -> None:
    attacks = [{"grammar": grammar} for grammar in BAD_GRAMMARS.values()]
    attacks += [
        how(pattern)
        for pattern in BAD_PATTERNS.values()
        for how in (by_schema, by_tool)
    ]
    attacks += [
        {"json_schema": {"type": "array", "items": {}, "minItems": 5, "maxItems": 2}},
        {"json_schema": {"type": "string", "minLength": 5, "maxLength": 1}},
    ]
    for attack in attacks:
        answer = served.post(question("Hi", max_tokens=4, **attack))
        error = answer.json()["error"]
        assert answer.status_code == 400 and error["param"] in attack, (
            f"{str(attack)[:200]}: {answer.text}"
        )
    assert engine.process.poll() is None, engine.said()


@pytest.mark.parametrize("grammar", GOOD_GRAMMARS[:-1])
def test_a_grammar_that_people_write_is_answered_by(
    engine: RealEngine, served: Served, grammar: str
) -> None:
    answer = served.post(question("Hi", max_tokens=8, grammar=grammar))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "pattern", [pattern for pattern in GOOD_PATTERNS if r"\d" not in pattern]
)
def test_a_pattern_that_people_write_is_answered_by(
    engine: RealEngine, served: Served, pattern: str
) -> None:
    # Greedy: an answer that is cut at a bad place is one that the engine itself cannot read.
    fields = {"max_tokens": 8, "temperature": 0, **by_schema(pattern)}
    answer = served.post(question("Hi", **fields))
    assert answer.status_code == 200, answer.text
