"""Figures in words: of an answer that has ended, and of one that is being made."""

from __future__ import annotations

from typing import Any

import pytest

from chat.figures import Shown, shown, shown_live
from chat.written import Written
from deployments.gateway.deltas import Delta
from deployments.gateway.timings import Figures
from omni.errors import OmniError
from tests.chat.blind import FIGURES

READING = {"cache_n": 0, "prompt_n": 64, "prompt_ms": 128.0, "predicted_n": 0}
WRITING = {
    "cache_n": 3,
    "prompt_n": 197,
    "prompt_ms": 394.0,
    "predicted_n": 21,
    "predicted_ms": 400.0,
    "draft_n": 20,
    "draft_n_accepted": 15,
}
MEASURED = {"joules": 42.0, "seconds": 2.0, "devices": ["CUDA0"], "silent": []}
SHARED = {"why": "CUDA0 worked for b as well.", "shared_with": ["b"]}
UNKNOWN = {"why": "CPU tells no power."}


def of(**changes: Any) -> Figures:
    return Figures(**{**{n: FIGURES[n] for n in Figures.__annotations__}, **changes})


def texts(found: list[Shown]) -> dict[str, str]:
    return {each.name: each.text for each in found}


def energy(facts: dict[str, Any], **changes: Any) -> dict[str, str]:
    found = shown(of(timings={"omni_energy": facts}, **changes))
    return {each.text: each.title for each in found if each.name in ("watts", "energy")}


def test_an_answer_that_has_ended_tells_all() -> None:
    assert texts(shown(of())) == {
        "first_token": "First token 812 ms",
        "decode": "Decode 31.2 tokens/s",
        "prefill": "Prefill 640 tokens/s",
        "tokens": "512 tokens",
        "duration": "17.3 s in all",
        "watts": "213 W",
        "energy": "7.2 J/token",
        "prompt": "Prompt 4096 (1024 cached)",
        "drafts": "41 of 60 drafts accepted (68 %)",
    }


def test_what_no_engine_told_is_not_made_up() -> None:
    nothing = dict.fromkeys(Figures.__annotations__)
    found = texts(shown(Figures(**{**nothing, "timings": {}})))
    assert found == {
        "first_token": "First token N/A",
        "decode": "Decode N/A",
        "tokens": "N/A tokens",
        "duration": "N/A in all",
        "prompt": "Prompt N/A",
    }


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (
            MEASURED,
            {
                "21 W": "Mean power. 42 J in 2 s of CUDA0, idle power included.",
                "82 mJ/token": "42 J in 2 s of CUDA0, idle power included.",
            },
        ),
        (
            {**MEASURED, "joules": 3584.0, "silent": ["CPU"]},
            {
                "1792 W": (
                    "Mean power. 3.58 kJ in 2 s of CUDA0, idle power included; CPU tells none."
                ),
                "7 J/token": (
                    "3.58 kJ in 2 s of CUDA0, idle power included; CPU tells none."
                ),
            },
        ),
        (SHARED, {"Energy shared": "CUDA0 worked for b as well."}),
        (UNKNOWN, {"Energy N/A": "CPU tells no power."}),
        ({}, {}),
    ],
)
def test_energy_is_told_or_why_not(
    facts: dict[str, Any], found: dict[str, str]
) -> None:
    assert energy(facts) == found


def test_an_answer_without_a_token_has_power_and_no_energy_a_token() -> None:
    assert list(energy(MEASURED, completion_tokens=0)) == ["21 W"]
    assert list(energy(MEASURED, completion_tokens=None)) == ["21 W"]


# --- while it is made -----------------------------------------------------------------------------
def written(*deltas: Delta, asked_at: float | None = 0.0) -> Written:
    made = Written(asked_at=asked_at, sent_at=asked_at)
    for delta in deltas:
        made.take(delta)
    return made


def live(made: Written, waits_for: str = "", **more: Any) -> tuple[str, dict[str, str]]:
    found = made.live(waits_for, more.get("energy", {}), more.get("watts"))
    return found["doing"], {each["name"]: each["text"] for each in found["figures"]}


def test_before_it_is_asked_there_is_nothing_but_what_it_waits_for() -> None:
    made = written(asked_at=None)
    assert live(made, "the lane before it answers") == (
        "Waiting: the lane before it answers…",
        {},
    )
    assert made.live("", {}, None)["counting_ms"] is None


def test_while_it_waits_the_time_to_the_first_token_is_counted() -> None:
    made = written()
    assert live(made, "place 2 in the queue of slow") == (
        "Waiting: place 2 in the queue of slow…",
        {"first_token": "First token"},
    )
    assert made.live("", {}, None)["counting_ms"] > 0


def test_while_the_prompt_is_read_its_part_is_told() -> None:
    progress = {"total": 200, "cache": 0, "processed": 86, "time_ms": 130}
    doing, figures = live(
        written(Delta(timings=READING, progress=progress)), watts=212.4
    )
    assert doing == "Reading the prompt: 43 % of 200 tokens…"
    assert figures == {
        "first_token": "First token",
        "prefill": "Prefill 500 tokens/s",
        "watts": "212 W",
    }


@pytest.mark.parametrize(
    "progress", [{}, {"total": "x"}, {"total": 0, "processed": 0}, {"processed": 5}]
)
def test_progress_of_which_nothing_can_be_said(progress: dict[str, Any]) -> None:
    assert live(written(Delta(progress=progress)))[0] == "Waiting for the engine…"


def test_while_it_writes_tokens_are_the_engines_own() -> None:
    """One chunk, twenty-one tokens."""
    made = written(Delta(content="word ", timings=WRITING))
    doing, figures = live(made, energy={**MEASURED, "joules": 4.2}, watts=300.0)
    assert doing == ""
    assert figures.pop("first_token").startswith("First token ")
    assert figures == {
        "decode": "Decode 50 tokens/s",
        "prefill": "Prefill 500 tokens/s",
        "tokens": "21 tokens",
        "watts": "300 W",
        "energy": "0.2 J/token",
        "prompt": "Prompt 200 (3 cached)",
        "drafts": "15 of 20 drafts accepted (75 %)",
    }
    assert made.live("", {}, None)["counting_ms"] is None


def test_an_engine_that_counts_nothing_has_no_tokens_of_its_own_made_up() -> None:
    _, figures = live(written(*[Delta(content="word ")] * 5))
    assert list(figures) == ["first_token"]


def test_shared_energy_is_said_while_it_writes() -> None:
    found = shown_live(of(timings={**WRITING, "omni_energy": SHARED}), 300.0)
    assert texts(found)["energy"] == "Energy shared"


def test_a_prompt_that_was_not_read_to_its_end_counts_whole() -> None:
    progress = {"total": 200, "processed": 64}
    made = written(Delta(timings=READING, progress=progress)).figures(9.0, {})
    assert made["prompt_tokens"] == 200 and made["ttft_ms"] is None


@pytest.mark.parametrize(
    ("delta", "code"),
    [
        (Delta(error="gone"), "engine_error"),
        (Delta(content="x" * 500_001), "answer_too_long"),
    ],
)
def test_what_ends_an_answer(delta: Delta, code: str) -> None:
    made = written()
    with pytest.raises(OmniError) as error:
        made.take(delta)
        made.take(Delta(content="one more"))
    assert error.value.code == code
