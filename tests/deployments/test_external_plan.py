"""What is said beforehand of a model on an external server, and which state its deployment is
in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.engines.external import (
    MOST_MODELS,
    ServerReport,
    left_out,
    no_answer,
    parse_owner,
)
from deployments.external.plan import external_plan
from deployments.external.state import settled, shown_state
from deployments.states import InstanceState as S
from omni.errors import OmniError

WELL = ServerReport(("a", "b"), "vllm")
AWAY = ServerReport(error=OmniError("server_away", "It cannot be reached."))
SILENT = ServerReport(error=OmniError("server_silent", "It gives no answer in time."))


@pytest.mark.parametrize(
    ("model", "report", "verdict", "codes"),
    [
        ("a", WELL, "viable", ["not_placed"]),
        ("c", WELL, "caution", ["model_not_offered", "not_placed"]),
        ("a", AWAY, "caution", ["server_away", "not_placed"]),
        (
            "c",
            ServerReport(tuple(map(str, range(MOST_MODELS)))),
            "viable",
            ["not_placed"],
        ),
    ],
)
def test_a_plan_places_nothing_and_says_so(
    model: str, report: ServerReport, verdict: str, codes: list[str]
) -> None:
    plan = external_plan("independent", model, report)
    assert (str(plan.verdict), [reason.code for reason in plan.reasons]) == (
        verdict,
        codes,
    )
    assert (
        plan.instances == ()
        and plan.devices == ()
        and plan.predicted.decode_tps is None
    )
    assert "does not watch its memory" in plan.reasons[-1].text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"strategy": "tensor_split"}, "strategy_not_for_engine"),
        ({"strategy": "speculative"}, "strategy_not_for_engine"),
        ({"model": " "}, "no_external_model"),
        ({"model": "a\n"}, "no_external_model"),
        ({"settings": {"context": 4096}}, "bad_setting"),
        ({"extra_args": ["--top-k 5"]}, "bad_extra_arg"),
    ],
)
def test_what_an_external_server_cannot_be_asked_for_is_refused(
    changes: dict[str, Any], code: str
) -> None:
    values: dict[str, Any] = {"strategy": "independent", "model": "a", "report": WELL}
    plan = external_plan(**{**values, **changes})
    (reason,) = plan.reasons
    assert (str(plan.verdict), reason.code) == ("not_viable", code)
    assert reason.text and reason.fix


@pytest.mark.parametrize(
    ("running", "old", "report", "state"),
    [
        (False, S.READY, WELL, S.STOPPED),
        (True, S.STOPPED, None, S.STARTING),
        (True, S.READY, None, S.READY),
        (True, S.UNHEALTHY, None, S.UNHEALTHY),
        (True, S.STARTING, WELL, S.READY),
        (True, S.UNHEALTHY, WELL, S.READY),
        (True, S.READY, AWAY, S.UNHEALTHY),
        (True, S.STARTING, AWAY, S.UNHEALTHY),
        (True, S.READY, ServerReport(("b",)), S.UNHEALTHY),
    ],
)
def test_the_state_follows_what_is_wanted_and_what_the_server_said(
    running: bool, old: S, report: ServerReport | None, state: S
) -> None:
    shown = shown_state(running, old, "a", report)
    assert shown.state == state and shown.reason
    assert (shown.error is not None) == (state == S.UNHEALTHY and report is not None)


@pytest.mark.parametrize(
    ("before", "now", "silences", "believed"),
    [
        (WELL, SILENT, 1, WELL),
        (WELL, SILENT, 2, SILENT),
        (WELL, AWAY, 0, AWAY),
        (None, SILENT, 1, SILENT),
        (AWAY, SILENT, 1, SILENT),
        (SILENT, WELL, 0, WELL),
    ],
)
def test_one_silence_of_a_busy_server_is_no_news(
    before: ServerReport | None,
    now: ServerReport,
    silences: int,
    believed: ServerReport,
) -> None:
    assert settled(before, now, silences) == believed


@pytest.mark.parametrize(
    ("body", "owner"),
    [
        (json.dumps({"data": [{"id": "x", "owned_by": "llamacpp"}]}), "llamacpp"),
        (json.dumps({"data": [{"id": "x"}]}), ""),
        (json.dumps({"data": [{"id": "x", "owned_by": 3}]}), ""),
        ("[]", ""),
        ("{", ""),
    ],
)
def test_the_kind_of_a_server_is_its_own_word(body: str, owner: str) -> None:
    assert parse_owner(body) == owner
    assert ("timings_per_token" in left_out(owner)) == (owner != "llamacpp")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "key_refused"),
        (403, "key_refused"),
        (302, "server_redirects"),
        (404, "not_openai_compatible"),
        (503, "server_not_ready"),
        (500, "server_not_ready"),
    ],
)
def test_each_refusal_has_a_cause_of_its_own(status: int, code: str) -> None:
    error = no_answer("/v1/models", status)
    assert error.code == code and str(status) in error.text and error.fix
