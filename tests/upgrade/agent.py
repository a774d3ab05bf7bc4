"""An agent of this version in a process of its own, which finds what the version before has left
running and says what it makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.helpers import wait_until


def adopt(deployment: str) -> None:
    """Ticks until the engine has been checked, asks it through the gateway, and stops it."""
    from django.conf import settings

    from deployments.models import Deployment, Instance
    from deployments.services.deployments import deployment_stop
    from deployments.services.discovery import local_host
    from deployments.supervision.host_agent import HostAgent
    from deployments.supervision.process import read_record

    agent = HostAgent(local_host())

    def row() -> Instance:
        return Instance.objects.get(deployment__name=deployment)

    def tick_until(wanted: Callable[[Instance], bool]) -> Instance:
        def ticked() -> Instance | None:
            agent.tick()
            return found if wanted(found := row()) else None

        return wait_until(
            ticked, 60, lambda: f"{row().state} {row().error}", interval_s=0.1
        )

    before = row()
    seen = tick_until(lambda now: now.state == "ready" and now.checked_ticks != 12345)
    record = read_record(settings.OMNI_HOME.run, seen.pk)
    assert record
    found: dict[str, Any] = {
        "pids": [before.pid, seen.pid],
        "restarts": seen.restarts,
        "transitions": seen.transitions.count(),
        "judgement": [seen.judgement, seen.warning],
        "row": seen.launch_facts.document(),
        "record": asdict(record.launch),
        "file_stamp": seen.file_stamp,
        "answer": asyncio.run(answer(deployment)),
    }
    deployment_stop(deployment=Deployment.objects.get(name=deployment))
    found["stopped"] = [tick_until(lambda now: now.state == "stopped").pid]
    agent.close()
    print(json.dumps(found))


async def answer(deployment: str) -> str:
    from deployments.gateway.relay import open_answer

    body = {
        "model": deployment,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
        "temperature": 0,
    }
    async with open_answer("/v1/chat/completions", body) as upstream:
        whole = json.loads(await upstream.body())
    return str(whole["choices"][0]["message"]["content"])
