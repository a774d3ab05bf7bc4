"""A real ik_llama.cpp, where there is one: OMNI_TEST_IK_LLAMA_SERVER is the path of its llama-server.

It is in no package, so this is left out where it was not built. Graph split needs CUDA cards and does not run here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployments import services
from deployments.discovery import refresh_engine, register_engine
from deployments.engines.ik_llama_cpp import PLACING, IkLlamaCpp
from deployments.engines.probe import found_flavour
from deployments.gateway.directory import forget_table
from deployments.gateway.handover_plan import last_timings
from deployments.gateway.relay import open_answer
from deployments.models import Deployment, Engine, Instance, Model
from gpus.models import Host
from tests.deployments.engine_help import help_of
from tests.supervision.conftest import Ticker

PATH = os.environ.get("OMNI_TEST_IK_LLAMA_SERVER", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not PATH, reason="OMNI_TEST_IK_LLAMA_SERVER names no llama-server of ik_llama.cpp"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]
SETTINGS = {"context": 2048, "threads": 2}
STRATEGIES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "independent": (("model",), {}),
    "speculative": (("target", "draft"), {"draft_max": 4}),
    "prefill_decode": (("prefill", "decode"), {"handover_min": 64}),
}


@pytest.fixture
def ik(host: Host) -> Engine:
    engine = refresh_engine(register_engine(host, Path(PATH), flavour="ik_llama.cpp"))
    assert engine.state == Engine.State.OK, engine.error
    return engine


def deploy(ik: Engine, model: Model, strategy: str) -> Deployment:
    roles, more = STRATEGIES[strategy]
    members = {role: (model, ["CPU"]) for role in roles}
    return services.deployment_create(
        name=strategy.replace("_", "-"), strategy=strategy, engine=ik, members=members, settings=SETTINGS | more
    )


def ask(name: str) -> tuple[str, dict[str, Any], str]:
    """The answer's body, its timings, and how the prompt was handed over."""

    async def answered() -> tuple[str, dict[str, Any], str]:
        messages = [{"role": "user", "content": "Name the days of the week, all of them. " * 12}]
        body = {"model": name, "messages": messages, "max_tokens": 12, "temperature": 0}
        async with open_answer("/v1/chat/completions", body) as upstream:
            whole = await upstream.body()
            assert upstream.status == 200, whole
        report = upstream.handover
        return whole.decode(), last_timings(whole), report.header if report else ""

    forget_table()
    return asyncio.run(answered())


def test_its_own_help_lists_what_was_read_in_its_source() -> None:
    said = subprocess.run([PATH, "--help"], capture_output=True, text=True, timeout=60)
    found = IkLlamaCpp().parse_flags(said.stdout + said.stderr)
    recorded = IkLlamaCpp().parse_flags(help_of("ik_llama_cpp_help"))
    assert found_flavour(PATH) == "ik_llama.cpp"
    assert not found - recorded, "flags that are not in the record"
    # A build for the CPU alone does not list what places layers on cards.
    assert len(recorded - found) <= 40, sorted(recorded - found)
    assert PLACING & found in (PLACING, set())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_starts_answers_and_stops_under_supervision(strategy: str, ik: Engine, model: Model, ticker: Ticker) -> None:
    deployment = deploy(ik, model, strategy)
    services.deployment_start(deployment=deployment)
    ticker.until(lambda: Deployment.objects.get().state in ("ready", "failed"), 120)
    rows = {row.role: row for row in Instance.objects.all()}
    assert {row.state for row in rows.values()} == {"ready"}, [(r.role, r.error, r.log_line) for r in rows.values()]
    text, timings, handover = ask(deployment.name)
    assert "content" in text and timings["predicted_n"] > 0, text
    if strategy == "speculative":
        assert timings.get("draft_n"), timings
    if strategy == "prefill_decode":
        assert handover.startswith("prefill_ms="), handover
    services.deployment_stop(deployment=deployment)
    ticker.until(lambda: Deployment.objects.get().state == "stopped", 30)
    assert not Instance.objects.filter(pid__isnull=False).exists()
