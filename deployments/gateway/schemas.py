"""Whether a JSON schema is one: keywords of the right kind, bounds that hold something. Pure.

Engines take a wrong kind for a mistake of their own, and llama-server never returns from bounds
that hold nothing, such as at least five and at most two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

LARGEST_COUNT = 1_000_000

Kind = Callable[[Any], bool]


def _is_schema(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_schema, value))


def _is_named_schemas(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_count(value: Any) -> bool:
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and 0 <= value <= LARGEST_COUNT
    )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= 1e308
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_local(value: Any) -> bool:
    """An engine would fetch any other."""
    return isinstance(value, str) and value.startswith("#")


# Keyword → what its value may be, and how that is said.
COUNT = (_is_count, f"a whole number from 0 to {LARGEST_COUNT}")
NUMBER = (_is_number, "a number")
TEXT = (_is_text, "a text")
SCHEMA = (_is_schema, "a schema")
SCHEMAS = (_is_schemas, "a list of schemas")
NAMED = (_is_named_schemas, "an object of schemas")
KEYWORDS: dict[str, tuple[Kind, str]] = {
    "type": (
        lambda value: isinstance(value, str) or _is_texts(value),
        "a text or a list of texts",
    ),
    "$ref": (_is_local, "a reference within the schema, such as #/$defs/name"),
    "enum": (lambda value: isinstance(value, list), "a list"),
    "required": (_is_texts, "a list of texts"),
    **dict.fromkeys(("pattern", "format", "title", "description"), TEXT),
    **dict.fromkeys(
        (
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
        ),
        COUNT,
    ),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBER
    ),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), SCHEMAS),
    **dict.fromkeys(
        ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"),
        NAMED,
    ),
    **dict.fromkeys(
        (
            "not",
            "if",
            "then",
            "else",
            "contains",
            "propertyNames",
            "additionalProperties",
        ),
        SCHEMA,
    ),
    "items": (
        lambda value: _is_schema(value) or _is_schemas(value),
        "a schema or a list of schemas",
    ),
}
# Where a tool has the schema of its arguments: OpenAI's word, and Anthropic's.
OF_TOOLS = ("parameters", "input_schema")
BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
HOLD_SCHEMAS = frozenset(
    name for name, kind in KEYWORDS.items() if kind in (SCHEMA, SCHEMAS, NAMED)
) | {"items"}


def schemas_of(field: Any) -> list[Any]:
    """The schemas in a field that holds one or several: a schema, a response format, or tools."""
    if isinstance(field, list):
        return [
            holder[name]
            for tool in field
            if isinstance(tool, dict)
            for holder in (tool, tool.get("function"))
            if isinstance(holder, dict)
            for name in OF_TOOLS
            if name in holder
        ]
    if isinstance(field, dict) and field.get("type") in ("json_schema", "json_object"):
        inner = field.get("json_schema")
        return [
            inner.get("schema") if isinstance(inner, dict) else inner,
            field.get("schema"),
        ]
    return [field]


def all_schemas(field: Any) -> Iterator[Mapping[str, Any]]:
    """Every schema in a field, those within others too."""
    waiting = [schema for schema in schemas_of(field) if isinstance(schema, dict)]
    while waiting:
        schema = waiting.pop()
        yield schema
        for keyword in HOLD_SCHEMAS & set(schema):
            value = schema[keyword]
            if KEYWORDS[keyword] == NAMED and isinstance(value, dict):
                value = list(value.values())
            waiting += [
                inner
                for inner in (value if isinstance(value, list) else [value])
                if isinstance(inner, dict)
            ]


def problem_of(schema: Mapping[str, Any]) -> str:
    """What is wrong with one schema itself; empty when nothing is."""
    for keyword, (is_right, what) in KEYWORDS.items():
        if (value := schema.get(keyword)) is not None and not is_right(value):
            return f"{keyword} that is not {what}"
    for low, high in BOUNDS:
        if (
            schema.get(low) is not None
            and schema.get(high) is not None
            and schema[low] > schema[high]
        ):
            return f"{low} above {high}"
    return ""


def patterns_of(schema: Mapping[str, Any]) -> list[str]:
    """The patterns of one schema itself, those for names too."""
    named = schema.get("patternProperties")
    own = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    return own + (list(named) if isinstance(named, dict) else [])
