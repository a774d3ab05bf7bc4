"""What a first answer is judged to be."""

from __future__ import annotations

import httpx
import pytest

from deployments.instances.address import socket_address
from deployments.planning.launch_facts import LaunchFacts
from deployments.states import Judgement
from deployments.supervision import verify
from deployments.supervision.answers import Answer, judge


def answer(text: str) -> Answer:
    """One token per letter."""
    return Answer(tuple(map(ord, text)), tuple(text))


@pytest.mark.parametrize(
    ("given", "reference", "judgement", "said"),
    [
        ("april may june", "april may june", Judgement.EQUAL, "equals"),
        (
            "april may jane",
            "april may june",
            Judgement.DRIFT,
            "Token 12 of its first answer is 'a'",
        ),
        (
            "april may",
            "april may june",
            Judgement.DRIFT,
            "Token 10 of its first answer is the end",
        ),
        (
            "april may june",
            "april may",
            Judgement.DRIFT,
            "the independent deployment's is the end",
        ),
        (
            "xpril may june",
            "april may june",
            Judgement.DIFFERENT,
            "Token 1 of its first answer is 'x'",
        ),
        ("apxil may june", "april may june", Judgement.DIFFERENT, "Do not trust it"),
        (
            "..............",
            "april may june",
            Judgement.GARBAGE,
            "nonsense: '..............'",
        ),
        ("april.........", "april may june", Judgement.GARBAGE, "nonsense"),
        ("", "april may june", Judgement.GARBAGE, "nonsense"),
        ("..............", "..............", Judgement.EQUAL, "equals"),
        ("..............", "............!!", Judgement.DRIFT, "Token 13"),
        ("..............", None, Judgement.GARBAGE, "one token over and over"),
        ("april may june", None, Judgement.ALONE, "could not be compared"),
    ],
)
def test_an_answer_is_judged_by_the_independent_deployments(
    given: str, reference: str | None, judgement: Judgement, said: str
) -> None:
    check = judge(answer(given), answer(reference) if reference is not None else None)
    assert check.judgement == judgement
    assert said in check.text


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (httpx.ReadTimeout("x"), "none came within"),
        (ConnectionResetError(), "the connection broke off"),
        (httpx.RemoteProtocolError("x"), "the connection broke off"),
        (ValueError("status 500"), "the engine refused"),
        (KeyError("content"), "has another form"),
    ],
)
def test_why_an_answer_could_not_be_checked_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    def fails(*_: object) -> object:
        raise failure

    monkeypatch.setattr(verify, "_call", fails)
    found = verify.check_answer(
        socket_address("/none.sock"), LaunchFacts(flavour="llama.cpp"), None
    )
    assert found.judgement == Judgement.UNKNOWN and said in found.text
    assert type(failure).__name__ not in found.text
