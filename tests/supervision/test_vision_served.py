"""A deployment with a projector, run by the agent on the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.formats.projectors import Medium
from deployments.gateway.directory import read_table
from deployments.instances.connecting import address_of
from deployments.instances.engine_client import ask_within, engine_request
from deployments.library import folders
from deployments.models import Deployment, Engine, Instance, Model
from deployments.planning.memory.reported import reported_memory
from deployments.services.deployments import deployment_create, deployment_start
from deployments.services.plans import plan_deployment
from tests.supervision.conftest import Ticker
from tests.vision_models import Eye, shown, write_projector

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
MIB = 1 << 20


def started(engine: Engine, model: Model, projector: Path | None) -> Deployment:
    members: dict[str, Any] = {"model": (model, ["CPU"])}
    if projector:
        members["projector"] = (folders.register(projector), [])
    made = deployment_create(
        name="seer" if projector else "texts",
        strategy="independent",
        engine=engine,
        members=members,
        settings={"context": 1024, "threads": 1},
    )
    deployment_start(deployment=made)
    return made


def test_it_sees_takes_what_was_planned_and_is_known_to(
    engine: Engine, model: Model, ticker: Ticker, tmp_path: Path
) -> None:
    eye = Eye(n_embd=256, n_layer=4, image_size=112)
    path = write_projector(tmp_path / "mmproj.gguf", eye)
    made = started(engine, model, path)
    ticker.until_state("ready", 40)
    row = made.instances.get()
    assert row.argv[row.argv.index("--mmproj") + 1] == str(path)
    assert (row.warning, row.restarts) == ("", 0)
    body = {"messages": shown(), "max_tokens": 2, "temperature": 0}
    address = address_of(row)
    assert address
    _, answer = ask_within(
        30, engine_request(address, "/v1/chat/completions", body, 30)
    )
    assert json.loads(answer)["usage"]["prompt_tokens"] > eye.tokens
    log = Path(row.log_path).read_text().splitlines()
    reported = reported_memory(log).devices["CPU"].projector
    planned = plan_deployment(made).devices[-1].projector_bytes
    assert abs(reported - planned) < max(0.03 * planned, 0.3 * MIB)
    table = read_table()
    assert table.deployments["seer"].takes == {Medium.IMAGE}


def test_a_damaged_projector_is_the_cause_that_is_told(
    engine: Engine, model: Model, ticker: Ticker, tmp_path: Path
) -> None:
    path = write_projector(tmp_path / "mmproj.gguf")
    made = started(engine, model, path)
    # Damaged after it was read: its tensors are of a kind that nobody knows.
    path.write_bytes(b"GGUF" + bytes(64))
    ticker.until(
        lambda: Instance.objects.filter(deployment=made, state="failed").exists(), 40
    )
    row = made.instances.get()
    assert row.error_code == "projector_unreadable", row.error
    assert str(path) in row.error
