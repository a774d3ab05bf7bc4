"""How far a grammar, a schema or a pattern may go before it reaches an engine.

Deep nesting overflows an engine's stack and ends its process; texts that can be read in many ways,
and sheer size, hold up everybody else's answers. Both are seen here, before anything is sent. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from deployments.gateway.ambiguity import check_ways
from deployments.gateway.grammar_text import (
    TextLimits,
    TooMuch,
    grammar_rules,
    pattern_part,
)
from deployments.gateway.schemas import all_schemas, patterns_of, problem_of, schemas_of
from deployments.gateway.shapes import FieldError
from omni.json_text import is_deeper_than

# Measured on llama-server: what keeps to these takes its loop for less than a second.
GRAMMAR_CHARACTERS = 32 << 10
PATTERN_CHARACTERS = 2 << 10
GRAMMAR = TextLimits(depth=64, parts=5000, repeats=2000)
PATTERN = TextLimits(depth=32, parts=1000, repeats=2000)
# Lists and objects within each other; an object within an object takes two.
SCHEMA_DEPTH = 64
SCHEMA_PARTS = 5000
SCHEMA_CHOICES = 1000
SCHEMA_PATTERNS = 50
CHOICES = ("anyOf", "oneOf", "allOf", "enum", "type")
NAMES = ("properties", "patternProperties", "$defs")
SIMPLER = "Make it simpler."
ROOT = "root"


def check_grammar(name: str, value: Any) -> None:
    """Raises FieldError."""
    if not isinstance(value, str):
        raise FieldError(name, f"{name} is not a text.")
    if len(value) > GRAMMAR_CHARACTERS:
        raise FieldError(
            name,
            f"{name} is not a text of at most {GRAMMAR_CHARACTERS} characters.",
            SIMPLER,
        )
    problem = _problem_of_grammar(value)
    if problem:
        raise FieldError(name, f"{name} {problem}.", SIMPLER)


@lru_cache(maxsize=256)
def _problem_of_grammar(text: str) -> str:
    """Programs send the same grammar with every request."""
    try:
        rules = grammar_rules(text, GRAMMAR)
        if ROOT in rules:
            check_ways(rules, ROOT)
    except TooMuch as too_much:
        return str(too_much)
    return ""


def check_pattern(name: str, value: str) -> None:
    """Raises FieldError; `name` is that of the field the pattern stands in."""
    if len(value) > PATTERN_CHARACTERS:
        text = f"{name} has a pattern of more than {PATTERN_CHARACTERS} characters."
        raise FieldError(name, text, SIMPLER)
    problem = _problem_of_pattern(value)
    if problem:
        raise FieldError(name, f"{name} has a pattern that {problem}.", SIMPLER)


@lru_cache(maxsize=1024)
def _problem_of_pattern(text: str) -> str:
    try:
        check_ways({ROOT: pattern_part(text, PATTERN)}, ROOT)
    except TooMuch as too_much:
        return str(too_much)
    return ""


def check_schema(name: str, value: Any) -> None:
    """For whatever holds a schema, or several: response_format, the parameters of tools.

    Raises FieldError.
    """
    if is_deeper_than(value, SCHEMA_DEPTH):
        raise FieldError(
            name,
            f"{name} nests lists and objects more than {SCHEMA_DEPTH} deep.",
            SIMPLER,
        )
    if any(
        schema is not None and not isinstance(schema, (dict, bool))
        for schema in schemas_of(value)
    ):
        raise FieldError(name, f"{name} holds a schema that is no object.")
    parts = choices = 0
    patterns: list[str] = []
    for schema in all_schemas(value):
        problem = problem_of(schema)
        if problem:
            raise FieldError(name, f"{name} has {problem}.")
        parts += len(schema) + sum(
            len(schema[word]) for word in NAMES if isinstance(schema.get(word), dict)
        )
        choices += sum(
            len(schema[word]) for word in CHOICES if isinstance(schema.get(word), list)
        )
        patterns += patterns_of(schema)
    for what, count, most in (
        ("parts", parts, SCHEMA_PARTS),
        ("alternatives", choices, SCHEMA_CHOICES),
        ("patterns", len(patterns), SCHEMA_PATTERNS),
    ):
        if count > most:
            raise FieldError(
                name, f"{name} has {count} {what}; at most {most} are taken.", SIMPLER
            )
    for pattern in dict.fromkeys(patterns):
        check_pattern(name, pattern)
