"""JSON from outside: what cannot be written again is replaced or refused, never a mistake of the
panel."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.json_text import NotJson, is_deeper_than, read_json, storable, well_formed


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (rb'{"a": "x\ud800y"}', {"a": "x\ufffdy"}),
        (rb'{"\udfff": 1}', {"\ufffd": 1}),
        (rb'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        (rb'{"a": "\ude00\ud83d"}', {"a": "\ufffd\ufffd"}),
        (b'{"a": "\xed\xa0\x80"}', {"a": "\ufffd\ufffd\ufffd"}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": ' + b"9" * 400 + b"}", {"a": int("9" * 400)}),
    ],
)
def test_what_no_encoding_can_write_is_replaced(raw: bytes, found: Any) -> None:
    assert read_json(raw) == found
    json.dumps(read_json(raw), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        "{}".encode("utf-16"),
    ],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson):
        read_json(raw)


@given(st.text(st.characters(categories=None), max_size=20))
def test_any_text_becomes_well_formed_and_keeps_its_length(text: str) -> None:
    assert len(well_formed(text)) == len(text)
    well_formed(text).encode()


def test_what_databases_do_not_take_is_replaced() -> None:
    assert storable("a\ud800b\0c\n") == "a\ufffdb\ufffdc\n"


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (1, 0),
        ([], 1),
        ({"a": [1]}, 2),
        ([[], [[]], {}], 3),
        ({"a": {"b": {"c": {}}}}, 4),
    ],
)
def test_depth_is_told_without_recursion(value: Any, depth: int) -> None:
    assert not is_deeper_than(value, max(depth, 1))
    assert depth < 2 or is_deeper_than(value, depth - 1)


def test_a_structure_deeper_than_python_can_recurse_is_told() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert is_deeper_than(value, 100)
