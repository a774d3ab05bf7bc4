"""A real ik_llama.cpp, where there is one: OMNI_TEST_IK_LLAMA_SERVER is the path of its
llama-server.

It is in no package, so this is left out where it was not built. Graph split needs CUDA cards and
does not run here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployments.engines.ik_llama_cpp import PLACEMENT_SETTINGS, IkLlamaCpp
from deployments.engines.probe.binary import found_flavour
from deployments.gateway.directory import forget_table
from deployments.gateway.relay import open_answer
from deployments.models import Deployment, Engine, Instance, Model
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from deployments.services.discovery import refresh_engine, register_engine
from gpus.models import Host
from tests.deployments.engine_help import help_of
from tests.supervision.conftest import Ticker

PATH = os.environ.get("OMNI_TEST_IK_LLAMA_SERVER", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not PATH,
        reason="OMNI_TEST_IK_LLAMA_SERVER names no llama-server of ik_llama.cpp",
    ),
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]
SETTINGS = {"context": 2048, "threads": 1}
STRATEGIES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "independent": (("model",), {}),
    "speculative": (("target", "draft"), {"draft_max": 4}),
}

# What only a build that can offload lists.
FOR_CARDS = PLACEMENT_SETTINGS | {
    "--device",
    "--device-draft",
    "--gpu-layers",
    "--gpu-layers-draft",
    "--main-gpu",
    "-mg",
    "--max-gpu",
    "--split-mode",
    "--tensor-split",
    "--offload-policy",
    "-op",
    "--no-offload-only-active-experts",
    "-no-ooae",
    "--sweep-memory",
    "--sweep-stride",
}


@pytest.fixture
def ik(host: Host) -> Engine:
    engine = refresh_engine(register_engine(host, Path(PATH), flavour="ik_llama.cpp"))
    assert engine.state == Engine.State.OK, engine.error
    return engine


def deploy(ik: Engine, model: Model, strategy: str) -> Deployment:
    roles, more = STRATEGIES[strategy]
    members = {role: (model, ["CPU"]) for role in roles}
    return deployment_create(
        name=strategy.replace("_", "-"),
        strategy=strategy,
        engine=ik,
        members=members,
        settings=SETTINGS | more,
    )


def ask(name: str) -> tuple[str, dict[str, Any]]:
    """The answer's text and its timings."""

    async def answered() -> tuple[str, dict[str, Any]]:
        messages = [
            {"role": "user", "content": "Name the days of the week, all of them. " * 12}
        ]
        body = {"model": name, "messages": messages, "max_tokens": 12, "temperature": 0}
        async with open_answer("/v1/chat/completions", body) as upstream:
            whole = await upstream.body()
            assert upstream.status == 200, whole
        document = json.loads(whole)
        return document["choices"][0]["message"]["content"], document["timings"]

    forget_table()
    return asyncio.run(answered())


def test_its_own_help_lists_what_was_read_in_its_source() -> None:
    said = subprocess.run([PATH, "--help"], capture_output=True, text=True, timeout=60)
    found = IkLlamaCpp().parse_flags(said.stdout + said.stderr)
    recorded = IkLlamaCpp().parse_flags(help_of("ik_llama_cpp_help"))
    assert found_flavour(PATH) == "ik_llama.cpp"
    assert not found - recorded, "flags that are not in the record"
    # A build for the CPU alone does not list what places layers on cards.
    assert recorded - found <= FOR_CARDS, sorted(recorded - found - FOR_CARDS)
    assert PLACEMENT_SETTINGS & found in (PLACEMENT_SETTINGS, set())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_starts_answers_and_stops_under_supervision(
    strategy: str, ik: Engine, model: Model, ticker: Ticker
) -> None:
    deployment = deploy(ik, model, strategy)
    deployment_start(deployment=deployment)
    ticker.until(lambda: Deployment.objects.get().state in ("ready", "failed"), 120)
    rows = {row.role: row for row in Instance.objects.all()}
    said = [
        Deployment.objects.get().error,
        *((r.role, r.error, r.log_line) for r in rows.values()),
    ]
    assert {row.state for row in rows.values()} == {"ready"}, said
    text, timings = ask(deployment.name)
    assert text and timings["predicted_n"] > 0, (text, timings)
    if strategy == "speculative":
        assert timings.get("draft_n"), timings
    deployment_stop(deployment=deployment)
    ticker.until(lambda: Deployment.objects.get().state == "stopped", 30)
    assert not Instance.objects.filter(pid__isnull=False).exists()
