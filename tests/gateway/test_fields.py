"""Which fields of a request reach an engine, and within which bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.endpoints import ENDPOINTS, allowed
from deployments.gateway.shapes import FieldError

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hi"}]


def media(image: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": image}]}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"max_tokens": -1},
        {"stop": "x"},
        {"stop": ["x"] * 16},
        {"seed": 2**63},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "data:image/png;base64,"},
                        }
                    ],
                }
            ]
        },
    ],
)
def test_what_engines_understand_passes_unchanged(fields: dict[str, Any]) -> None:
    kept, dropped = allowed(CHAT, chat(**fields))
    assert kept == chat(**fields) and dropped == []


def test_null_means_not_given_and_unknown_fields_are_named() -> None:
    kept, dropped = allowed(
        CHAT,
        chat(
            model="m", top_p=None, n_discard=-1, chat_parser="x", api_base="http://evil"
        ),
    )
    assert kept == chat()
    assert dropped == ["api_base", "chat_parser", "n_discard"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": float("inf")}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x" * 501]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"grammar": "x" * 70_000}, "grammar"),
        ({"json_schema": {"x": "y" * 70_000}}, "json_schema"),
        ({"logit_bias": 3}, "logit_bias"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"chat_template_kwargs": {"x": {"deep": 1}}}, "chat_template_kwargs"),
        ({"top_k": 10**400}, "top_k"),
        ({"temperature": 10**400}, "temperature"),
        ({"seed": -(10**400)}, "seed"),
        ({"reasoning_format": "zzz"}, "reasoning_format"),
        ({"tools": [5]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0]",
        ),
        ({"messages": [{"role": "assistant", "reasoning_content": 5}]}, "messages[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0]",
        ),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0]"),
        ({"messages": [*HELLO, {"role": "user", "content": ["x"]}]}, "messages[1]"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"image_url": {"url": "http://169.254.169.254/"}}],
                    }
                ]
            },
            "messages[0]",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"image_url": "file:///etc/passwd"}]}
                ]
            },
            "messages[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"image_url": {}}]}]},
            "messages[0]",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(FieldError) as caught:
        allowed(CHAT, chat(**fields))
    assert caught.value.param == param
    assert caught.value.param.split("[")[0] in caught.value.text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"max_tokens": 2_000_000},
            "max_tokens is 2000000. Use a number from -1 to 1048576.",
        ),
        ({"top_k": 3_000_000}, "top_k is 3000000. Use a number from -1 to 1048576."),
        ({"temperature": 10.5}, "temperature is 10.5. Use a number from 0 to 10."),
        (
            {"seed": 10**30},
            "(31 digits). Use a number from -9223372036854775808 to 18446744073709551615.",
        ),
    ],
)
def test_limits_are_written_as_people_write_them(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(FieldError) as caught:
        allowed(CHAT, chat(**fields))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/completions", "prompt", [None]),
        ("/v1/completions", "prompt", [-1]),
        ("/v1/completions", "prompt", [1 << 40]),
        ("/v1/completions", "prompt", [["a", 1.5]]),
        ("/v1/completions", "prompt", [True]),
        ("/v1/completions", "prompt", {"prompt_string": "x"}),
        ("/tokenize", "content", [5]),
        ("/tokenize", "content", {}),
    ],
)
def test_what_is_neither_text_nor_tokens_is_refused(
    path: str, field: str, value: Any
) -> None:
    with pytest.raises(FieldError) as caught:
        allowed(path, {field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("path", "param"),
    [(CHAT, "messages"), ("/v1/completions", "prompt"), ("/tokenize", "content")],
)
def test_the_one_field_that_must_be_there_is_named(path: str, param: str) -> None:
    with pytest.raises(FieldError, match=f"{param} is missing"):
        allowed(path, {"model": "smol"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ENDPOINTS)), st.data())
def test_any_value_in_any_field_is_passed_or_refused_and_never_breaks(
    path: str, data: st.DataObject
) -> None:
    names = st.sampled_from([*ENDPOINTS[path].policy, "model", "unknown"])
    body = data.draw(st.dictionaries(names, values, max_size=4))
    try:
        kept, _ = allowed(path, body)
    except FieldError:
        return
    assert set(kept) <= set(ENDPOINTS[path].policy)
    json.dumps(kept, allow_nan=True)
