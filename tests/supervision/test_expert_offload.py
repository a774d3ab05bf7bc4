"""Experts in RAM, the rest on a device: from the plan to an answer, with a small mixture of
experts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployments.formats.gguf import read_header
from deployments.gateway.directory import forget_table
from deployments.gateway.relay import open_answer
from deployments.instances.logs import since_start
from deployments.library.folders import scan
from deployments.models import Engine, Instance, LibraryFolder, Model
from deployments.planning.memory.reported import reported_memory
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from gpus.models import Device, Host
from tests.deployments.gguf_models import tiny, write_tiny
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


def test_experts_stay_in_ram_and_the_answer_is_the_independent_one(
    host: Host, engine: Engine, ticker: Ticker, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path / "experts.gguf", tiny("qwen3moe"))
    LibraryFolder.objects.create(path=str(tmp_path))
    scan()
    model = Model.objects.get(path=str(path))
    Device.objects.create(host=host, name="RPC0", kind="rpc", is_stand_in=True)
    settings = {"context": 512, "threads": 1}
    alone = deployment_create(
        name="alone",
        strategy="independent",
        engine=engine,
        members={"model": (model, ["CPU"])},
        settings=settings,
    )
    deployment_start(deployment=alone)
    ticker.until(
        lambda: Instance.objects.filter(deployment=alone, state="ready").exists(), 40
    )
    deployment_stop(deployment=alone)
    # Random weights say one word over and over. Nothing is split, so it is the model: a warning,
    # and what to expect.
    assert "one token over and over" in Instance.objects.get(deployment=alone).warning

    offload = deployment_create(
        name="offload",
        strategy="expert_offload",
        engine=engine,
        members={"model": (model, ["RPC0"])},
        settings=settings | {"n_cpu_moe": "all"},
    )
    deployment_start(deployment=offload)
    ticker.until(
        lambda: Instance.objects.filter(deployment=offload, state="ready").exists(), 40
    )

    row = Instance.objects.get(deployment=offload)
    assert row.judgement in ("equal", "drift"), row.warning
    server = Instance.objects.get(device__name="RPC0")
    memory = reported_memory(
        since_start(Path(row.log_path)), {f"127.0.0.1:{server.port}": "RPC0"}
    )
    experts = sum(
        tensor.n_bytes for tensor in read_header(path).tensors if "_exps" in tensor.name
    )
    ram = memory.devices["CPU"]
    assert (
        0
        < memory.devices["RPC0"].weights
        < experts
        <= ram.weights + ram.mapped + ram.repacked
    )

    async def answered() -> bytes:
        body = {
            "model": "offload",
            "messages": [{"role": "user", "content": "w1 w2 w3"}],
            "max_tokens": 4,
        }
        async with open_answer("/v1/chat/completions", body) as upstream:
            assert upstream.status == 200
            return await upstream.body()

    forget_table()
    assert b'"finish_reason"' in asyncio.run(answered())
