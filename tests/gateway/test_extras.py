"""Fields that only some engines know reach those engines, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.engines import FLAVOURS
from deployments.gateway.endpoints import ENDPOINTS
from deployments.gateway.extras import ANYBODY, check_of, extras
from deployments.gateway.shapes import FieldError


@pytest.mark.parametrize(
    ("flavour", "field", "value", "passes"),
    [
        ("llama.cpp", "dry_sequence_breakers", ["\n"], True),
        ("llama.cpp", "min_tokens", 5, False),
        ("llama.cpp", "n_discard", -1, False),
        ("llama.cpp", "id_slot", 99, False),
        ("ik_llama.cpp", "top_n_sigma", 1.5, True),
        ("vllm", "min_tokens", 5, True),
        ("vllm", "stop_token_ids", [1, 2], True),
        ("vllm", "guided_regex", "(a+)+", False),
        ("vllm", "dry_sequence_breakers", ["\n"], False),
        ("tabbyapi", "token_healing", True, True),
        (ANYBODY, "service_tier", "auto", True),
        (ANYBODY, "metadata", {"a": [1]}, True),
        (ANYBODY, "api_base", "http://evil.example", False),
        (ANYBODY, "n_discard", -1, False),
        (ANYBODY, "guided_regex", "(a+)+", False),
        (ANYBODY, "no identifier", 1, False),
        (ANYBODY, "x" * 100, 1, False),
        (ANYBODY, "huge", "x" * 100_000, False),
        (ANYBODY, "nothing", None, False),
        ("", "min_tokens", 5, False),
    ],
)
def test_a_field_reaches_the_engines_that_take_it(
    flavour: str, field: str, value: Any, passes: bool
) -> None:
    assert extras(flavour, {field: value}, [field]) == (
        {field: value} if passes else {}
    )


@pytest.mark.parametrize(
    ("flavour", "field", "value"),
    [
        ("llama.cpp", "dry_sequence_breakers", [5]),
        ("llama.cpp", "dry_sequence_breakers", "x"),
        ("llama.cpp", "min_keep", 10**9),
        ("vllm", "stop_token_ids", [-1]),
        ("vllm", "stop_token_ids", ["x"]),
        ("vllm", "repetition_penalty", 0),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(
    flavour: str, field: str, value: Any
) -> None:
    with pytest.raises(FieldError) as caught:
        extras(flavour, {field: value}, [field])
    assert caught.value.param == field


def test_the_flavours_name_no_field_that_all_engines_take_and_each_can_be_checked() -> (
    None
):
    assert [name for name, flavour in FLAVOURS.items() if not flavour.takes] == []
    for flavour in FLAVOURS.values():
        for endpoint in ENDPOINTS.values():
            assert not set(flavour.takes) & set(endpoint.policy)
        for name, field in flavour.takes.items():
            with pytest.raises(FieldError, match=name):
                check_of(field)(name, {"of": "no field's form"})
