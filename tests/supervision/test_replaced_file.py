"""A model's file that is replaced while an engine serves the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from deployments.library.folders import scan
from deployments.models import Engine, Instance, LibraryFolder, Model
from deployments.services.deployments import deployment_create, deployment_start
from gpus.models import Host
from tests.deployments.gguf_models import tiny, write_tiny
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
SAYS = "Another file has taken the model"


def test_a_file_that_is_renamed_over_is_told_and_a_restart_takes_it(
    host: Host,
    engine: Engine,
    ticker: Ticker,
    tmp_path: Path,
    operator: Client,
    viewer: Client,
) -> None:
    path = write_tiny(tmp_path / "served.gguf", tiny("llama"))
    LibraryFolder.objects.create(path=str(tmp_path))
    scan()
    made = deployment_create(
        name="served",
        strategy="independent",
        engine=engine,
        members={"model": (Model.objects.get(path=str(path)), ["CPU"])},
        settings={"context": 512, "threads": 1},
    )
    deployment_start(deployment=made)
    ticker.until_state("ready", 40)
    before = Instance.objects.get()
    assert SAYS not in operator.get("/deployments/served/").content.decode()

    other = write_tiny(tmp_path / "other.partial", tiny("qwen3moe"))
    other.replace(path)
    scan()
    ticker.agent.tick()
    page = operator.get("/deployments/served/").content.decode()
    assert SAYS in page and "Restart with the new file" in page
    assert (
        "Restart with the new file"
        not in viewer.get("/deployments/served/").content.decode()
    )
    assert Instance.objects.get().pid == before.pid

    operator.post("/deployments/served/start/", {"again": "1"})
    ticker.until(lambda: Instance.objects.get().pid not in (None, before.pid), 40)
    ticker.until_state("ready", 40)
    assert SAYS not in operator.get("/deployments/served/").content.decode()
