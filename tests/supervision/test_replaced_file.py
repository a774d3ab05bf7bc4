"""A model's file that is replaced while an engine serves the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from deployments.library.folders import scan
from deployments.models import Instance
from tests.deployments.gguf_models import tiny, write_tiny
from tests.supervision.conftest import Ticker

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
SAYS = "Another file has taken the model"


def test_a_file_that_is_renamed_over_is_told_and_a_restart_takes_it(
    tiny_served: Path, ticker: Ticker, operator: Client, viewer: Client
) -> None:
    before = Instance.objects.get()
    assert SAYS not in operator.get("/deployments/served/").content.decode()

    other = write_tiny(tiny_served.with_name("other.partial"), tiny("qwen3moe"))
    other.replace(tiny_served)
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
