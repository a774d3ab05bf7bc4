"""Figures come from the engine; what it does not tell is unknown, never invented."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.gateway.timings import (
    Drafts,
    drafts_of,
    figures,
    parse_kv_transfer,
)

LLAMA = {
    "cache_n": 24,
    "prompt_n": 23,
    "prompt_ms": 230.0,
    "predicted_n": 21,
    "predicted_ms": 400.0,
}


def made(
    usage: dict[str, Any], timings: dict[str, Any], first_at: float | None = 10.5
) -> dict[str, Any]:
    return dict(
        figures(
            sent_at=10.0, first_at=first_at, ended_at=12.5, usage=usage, timings=timings
        )
    )


def test_llama_cpps_timings_are_taken_over() -> None:
    found = made(
        {
            "completion_tokens": 21,
            "prompt_tokens": 47,
            "prompt_tokens_details": {"cached_tokens": 24},
        },
        LLAMA,
    )
    assert found == {
        "ttft_ms": 500.0,
        "duration_ms": 2500.0,
        "prompt_tokens": 47,
        "cached_tokens": 24,
        "completion_tokens": 21,
        "prefill_tps": pytest.approx(100),
        "decode_tps": pytest.approx(50),  # 20 tokens after the first in 400 ms
        "timings": LLAMA,
    }


def test_without_usage_the_timings_tell_the_counts() -> None:
    found = made({}, LLAMA)
    assert (
        found["prompt_tokens"],
        found["cached_tokens"],
        found["completion_tokens"],
    ) == (
        47,
        24,
        21,
    )


def test_an_engine_without_timings_is_measured_by_its_usage_and_the_clock() -> None:
    found = made({"completion_tokens": 11, "prompt_tokens": 5}, {})
    assert found["decode_tps"] == pytest.approx(5)  # 10 tokens in 2 s
    assert found["prefill_tps"] is None and found["cached_tokens"] is None


@pytest.mark.parametrize(
    "timings", [{}, {"predicted_n": 1, "predicted_ms": 0.001}, {"predicted_n": 0}]
)
def test_too_little_gives_no_rate(timings: dict[str, Any]) -> None:
    assert made({}, timings)["decode_tps"] is None


HOSTILE = [
    float("inf"),
    float("nan"),
    -1,
    10**400,
    1e300,
    "x",
    [],
    {},
    True,
    None,
    10**18,
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", list(LLAMA))
def test_a_figure_that_no_engine_takes_is_unknown(name: str, value: Any) -> None:
    timings = {**LLAMA, name: value}
    found = made(
        {
            "completion_tokens": value,
            "prompt_tokens": value,
            "prompt_tokens_details": value,
        },
        timings,
    )
    json.dumps(found, allow_nan=False)
    assert found["completion_tokens"] is None and found["prompt_tokens"] is None
    assert name not in found["timings"] or value == 10**18 or isinstance(value, int)
    drafts_of({"draft_n": value, "draft_n_accepted": value})


def test_figures_without_end_are_not_all_kept() -> None:
    assert len(made({}, {f"x{n}": n for n in range(100_000)})["timings"]) <= 40


def test_nothing_came() -> None:
    found = figures(sent_at=None, first_at=None, ended_at=1.0, usage={}, timings={})
    assert {name for name, value in found.items() if value not in (None, {})} == set()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            "prefill_ms=12,save_ms=3.5, bytes=123456",
            {"prefill_ms": 12, "save_ms": 3.5, "bytes": 123456},
        ),
        (
            "skipped: the prompt is short",
            {"outcome": "skipped", "why": "the prompt is short"},
        ),
        (
            "failed: slot 3: no room, bytes=12",
            {"outcome": "failed", "why": "slot 3: no room, bytes=12"},
        ),
        ("", {}),
        ("later=words,save_ms=x,=4,restore_ms=nan,bytes=-1,tokens=7", {"tokens": 7}),
        (";;==,,", {}),
    ],
)
def test_another_panels_word_on_handing_over_is_read_as_far_as_it_is_understood(
    header: str, found: Any
) -> None:
    assert parse_kv_transfer(header) == found


def test_hand_over_stands_beside_the_engines_own_timings() -> None:
    made = figures(
        sent_at=1,
        first_at=2,
        ended_at=3,
        usage={},
        timings=LLAMA,
        kv_transfer={"save_ms": 3},
    )
    assert made["timings"] == {**LLAMA, "omni_handover": {"save_ms": 3}}


def test_energy_stands_beside_the_engines_own_timings() -> None:
    energy = {"joules": 12.5, "seconds": 2.0}
    made = figures(
        sent_at=1, first_at=2, ended_at=3, usage={}, timings=LLAMA, energy=energy
    )
    assert made["timings"] == {**LLAMA, "omni_energy": energy}


@pytest.mark.parametrize(
    ("timings", "drafts"),
    [
        ({"draft_n": 60, "draft_n_accepted": 41}, Drafts(60, 41)),
        ({"draft_n": 0}, None),
        ({}, None),
    ],
)
def test_drafts(timings: dict[str, Any], drafts: Drafts | None) -> None:
    assert drafts_of(timings) == drafts
