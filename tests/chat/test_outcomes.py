"""What an answer's way through the gateway leaves behind in the chat."""

from __future__ import annotations

from typing import Any, cast

import pytest

from chat.outcomes import kv_transfer_facts
from deployments.engines.endpoints import CHAT
from deployments.gateway.kv_transfer_plan import KvTransferReport, Outcome
from deployments.gateway.passing import Passing
from deployments.gateway.relay import Upstream
from deployments.gateway.routing import RoutedRequest
from deployments.gateway.table import Serving
from deployments.gateway.waiting import Wait
from deployments.instances.engine_stream import EngineAnswer

DONE = KvTransferReport(Outcome.DONE, "", 1541, 0, 35_530_060, 3787.12, 13.04, 5.0, 0.2)
ANOTHER_PANELS = {"x-omni-handover": "prefill_ms=7"}


def upstream(report: KvTransferReport | None, headers: dict[str, str]) -> Upstream:
    choice = RoutedRequest(Serving("pair", "ready", None), "pair", "")
    # Nothing is read of its body here.
    answer = EngineAnswer(200, headers, cast(Any, None))
    passing = Passing({}, report)
    return Upstream(CHAT, choice, answer, True, 0.0, Wait(), [], passing)


@pytest.mark.parametrize(
    ("report", "headers", "facts"),
    [
        (
            DONE,
            ANOTHER_PANELS,
            {
                "prefill_ms": 3787.1,
                "save_ms": 13.0,
                "restore_ms": 5.0,
                "wait_ms": 0.2,
                "bytes": 35_530_060,
                "tokens": 1541,
            },
        ),
        (
            KvTransferReport(Outcome.FAILED, "save: no\r\nroom"),
            {},
            {"outcome": "failed", "why": "save: no room"},
        ),
        (None, ANOTHER_PANELS, {"prefill_ms": 7}),
        (None, {}, {}),
    ],
    ids=["handed over", "failed", "by another panel", "one instance does both"],
)
def test_hand_over_facts_come_as_an_object_and_from_outside_as_a_header(
    report: KvTransferReport | None, headers: dict[str, str], facts: dict[str, object]
) -> None:
    assert kv_transfer_facts(upstream(report, headers)) == facts
