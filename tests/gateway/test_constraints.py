"""Grammars, schemas and patterns that crash an engine or hold it up are refused; those that people
write are not."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.gateway.constraints import check_grammar, check_pattern, check_schema
from deployments.gateway.endpoints import allowed
from deployments.gateway.shapes import FieldError

JSON_GRAMMAR = r"""root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# white space
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
CHESS = r"""root   ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move   ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn   ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""
MADE_FROM_A_SCHEMA = r"""root ::= "{" space a-kv ( "," space ( c-kv ( "," space d-kv )? | d-kv ) )? "}" space
a-kv ::= "\"a\"" space ":" space string
c-kv ::= "\"c\"" space ":" space string
d-kv ::= "\"d\"" space ":" space number
char ::= [^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})
decimal-part ::= [0-9]{1,16}
integral-part ::= [0] | [1-9] [0-9]{0,15}
number ::= ("-"? integral-part) ("." decimal-part)? ([eE] [-+]? integral-part)? space
string ::= "\"" char* "\"" space
space ::= | " " | "\n"{1,2} [ \t]{0,20}
"""
GOOD_GRAMMARS = [
    JSON_GRAMMAR,
    CHESS,
    MADE_FROM_A_SCHEMA,
    ARITHMETIC,
    'root ::= "yes" | "no"',
    'root ::= item+\nitem ::= "- " [^\\r\\n\\u2028]+ "\\n"',
    'root ::= line "\\n" root | line\nline ::= [a-z ]+',
    'root ::= "a"{3,200}',
    "root ::= " + " | ".join(f'"word{n}"' for n in range(500)),
    'root ::= ("," [a-z]+)* "."',
    "no grammar at all",
]
GOOD_PATTERNS = [
    r"^\d{3}-\d{4}$",
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$",
    r"^(\([0-9]{3}\))?[0-9]{3}-[0-9]{4}$",
    r"^#[0-9a-f]{6}$",
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    r"^(?:[A-Z][a-z]+ ?)+$",
    r"^(https?)://.*$",
    r"^[^\]]*\.(png|jpe?g|gif)$",
    r"^[A-Za-z]+( [A-Za-z]+)*$",
    r"^(/[^/]+)+/?$",
    r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
    r"^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$",
]


def nested(depth: int, inner: str = '"a"') -> str:
    return "(" * depth + inner + ")" * depth


def repeated(depth: int, inner: str, sign: str) -> str:
    for _ in range(depth):
        inner = f"({inner}){sign}"
    return inner


def doubling(rules: int) -> str:
    lines = [f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(rules)]
    return "\n".join(["root ::= r0", *lines, f'r{rules} ::= "a"'])


# Each ended llama-server or held its loop for seconds when it was tried.
BAD_GRAMMARS = {
    "nested 20,000 deep": f"root ::= {nested(20_000)}",
    "nested 10,000 deep": f"root ::= {nested(10_000)}",
    "stars in stars": "root ::= " + repeated(3, '"a"', "*"),
    "one or more of one or more": f"root ::= {repeated(3, '[a-z ]', '+')}",
    "one or more beside nothing": "root ::= " + repeated(4, '"b"? [a-z ]', "+"),
    "bounded in bounded": f"root ::= {repeated(2, '[a-z ]', '{0,30}')}",
    "alternatives that are alike": 'root ::= ("a" | "a" | "aa")*',
    "many optional parts": "root ::= " + '"a"? ' * 100,
    "an optional part many times": 'root ::= ("a"?){100}',
    "many repetitions in a row": "root ::= " + "[a-z ]* " * 30,
    "behind other text": "root ::= "
    + '"some text that comes first" '
    + "[a-z ]* " * 30,
    "a rule that ends with itself": "root ::= x x x x\nx ::= [a-z ]* x?",
    "through rules": "root ::= a+\na ::= b+\nb ::= c+\nc ::= [a-z ]+",
    "rules that double": doubling(30),
    "a long chain of rules": "root ::= r0\n"
    + "\n".join(f"r{n} ::= r{n + 1}" for n in range(1000)),
    "repeated too often": 'root ::= "a"{0,100000}',
    "repeated beyond any number": 'root ::= "a"{99999999999}',
    "repeats nothing": "root ::= {2}",
    "at least more than at most": 'root ::= "a"{5,2}',
    "a range of nothing": "root ::= [z-a]",
    "too long": "root ::= " + '"a" ' * 20_000,
    "alternatives in a loop": "root ::= ("
    + " | ".join(f'"w{n}"' for n in range(2000))
    + ")*",
}
BAD_PATTERNS = {
    "nested deep": f"^{nested(20_000, 'a')}$",
    "nested somewhat": f"^{nested(500, 'a')}$",
    "nothing to repeat": "^*a$",
    "nothing to repeat in a group": "^(a|*)$",
    "a count of nothing": "^{2}$",
    "a look behind, repeated": "^(?<=x)*$",
    "a look ahead, repeated": "^(?!a)+b$",
    "plus in plus": "^((([a-z]+)+)+)+$",
    "the same twice": "^(a|a|aa)*$",
    "optional parts": "^" + "a?" * 100 + "$",
    "anything, many times": "^" + ".*" * 100 + "$",
    "bounded in bounded": "^([a-z]{0,30}){0,30}$",
    "too often": "^a{0,10000}$",
    "at least more than at most": "^a{5,2}$",
    "a range of nothing": "^[z-a]$",
}


def tools(schema: Any) -> list[Any]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("grammar", GOOD_GRAMMARS)
def test_a_grammar_that_people_write_passes(grammar: str) -> None:
    check_grammar("grammar", grammar)


@pytest.mark.parametrize("pattern", GOOD_PATTERNS)
def test_a_pattern_that_people_write_passes(pattern: str) -> None:
    check_pattern("json_schema", pattern)


@pytest.mark.parametrize("grammar", BAD_GRAMMARS.values(), ids=BAD_GRAMMARS)
def test_a_grammar_that_harms_the_engine_is_refused(grammar: str) -> None:
    with pytest.raises(FieldError) as caught:
        check_grammar("grammar", grammar)
    assert caught.value.param == "grammar" and caught.value.text.startswith("grammar ")


@pytest.mark.parametrize("pattern", BAD_PATTERNS.values(), ids=BAD_PATTERNS)
@pytest.mark.parametrize(
    "hidden",
    [
        lambda p: {"pattern": p},
        lambda p: {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "null"}, {"pattern": p}]}},
        },
        lambda p: {"$defs": {"x": {"allOf": [{"pattern": p}]}}, "$ref": "#/$defs/x"},
        lambda p: {
            "type": "array",
            "items": {"oneOf": [{"additionalProperties": {"pattern": p}}]},
        },
        lambda p: {"patternProperties": {p: {"type": "string"}}},
    ],
    ids=["plain", "property", "referenced", "items", "names"],
)
def test_a_pattern_that_harms_the_engine_is_refused_wherever_it_stands(
    pattern: str, hidden: Any
) -> None:
    for field, value in (
        ("json_schema", hidden(pattern)),
        ("tools", tools(hidden(pattern))),
    ):
        with pytest.raises(FieldError) as caught:
            check_schema(field, value)
        assert caught.value.param == field


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("json_schema", deep(100), "deep"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"schema": deep(400)}},
            "deep",
        ),
        ("tools", tools(deep(100)), "deep"),
        ("json_schema", {"enum": [f"w{n}" for n in range(5000)]}, "at most 1000"),
        ("json_schema", {"anyOf": [{"type": "string"}] * 1500}, "at most 1000"),
        (
            "json_schema",
            {"properties": {f"p{n}": {} for n in range(6000)}},
            "at most 5000",
        ),
        (
            "tools",
            tools({"properties": {f"p{n}": {"pattern": f"a{n}"} for n in range(60)}}),
            "at most 50",
        ),
        ("tools", tools({"type": 5}), "type"),
        ("tools", tools({"properties": [1]}), "properties"),
        ("json_schema", {"pattern": 5}, "pattern"),
        ("json_schema", {"properties": {"a": {"items": "x"}}}, "items"),
        ("json_schema", {"anyOf": [5]}, "anyOf"),
        ("json_schema", {"$ref": 5}, "$ref"),
        ("json_schema", {"$ref": "http://127.0.0.1/x"}, "$ref"),
        ("json_schema", {"minLength": "x"}, "minLength"),
        ("json_schema", {"maxItems": 10**30}, "maxItems"),
        ("json_schema", {"required": [5]}, "required"),
        ("json_schema", {"minItems": 5, "maxItems": 2}, "minItems above maxItems"),
        (
            "json_schema",
            {"items": {"minLength": 5, "maxLength": 1}},
            "minLength above maxLength",
        ),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"schema": 5}},
            "no object",
        ),
        ("tools", tools([]), "no object"),
    ],
)
def test_a_schema_that_is_too_large_or_wrong_is_refused_by_name(
    field: str, value: Any, says: str
) -> None:
    with pytest.raises(FieldError) as caught:
        check_schema(field, value)
    assert caught.value.param == field and says in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        deep(20),
        {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 50_000,
            "format": "date",
        },
        {
            "$defs": {"t": {"properties": {"l": {"$ref": "#/$defs/t"}}}},
            "$ref": "#/$defs/t",
        },
        {
            "properties": {
                "pattern": {"type": "string"},
                "type": {"enum": [1, 2]},
                "$ref": {"type": "string"},
            }
        },
        {"enum": [{"pattern": "((((("}, {"type": 5}]},
        {"const": {"pattern": "*"}},
        {"items": True, "additionalProperties": False},
        {"minimum": -1.5, "maximum": 1e300},
    ],
)
def test_a_schema_that_people_write_passes(schema: Any) -> None:
    check_schema("json_schema", schema)
    check_schema(
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    check_schema("tools", tools(schema))


@given(st.text(st.sampled_from('ab"\\|()[]{}*+?.,123 \n:=root^$-'), max_size=60))
@settings(max_examples=500)
def test_any_text_is_passed_or_refused_and_never_breaks(text: str) -> None:
    for check in (check_grammar, check_pattern):
        for whole in (text, f"root ::= {text}"):
            with suppress(FieldError):
                check("x", whole)


@pytest.mark.parametrize(
    "piece",
    ["(", "[", '"', "{", "a{", "(?", "\\", '"a"? ', "[^", "a|", "x ::= y\n", "#", "<"],
)
def test_a_text_of_the_greatest_length_is_read_in_linear_time(piece: str) -> None:
    """Quadratic reading of 32 KB would take minutes, and the test with it."""
    for check, length in ((check_grammar, 32 << 10), (check_pattern, 2 << 10)):
        with suppress(FieldError):
            check("x", ("root ::= " + piece * length)[:length])


def test_the_fields_of_a_request_are_checked() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    for field, value in (
        ("grammar", f"root ::= {nested(10_000)}"),
        ("tools", tools(deep(90))),
    ):
        with pytest.raises(FieldError) as caught:
            allowed("/v1/chat/completions", {**body, field: value})
        assert caught.value.param == field
