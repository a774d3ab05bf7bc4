"""The agent's loop in a process of its own, to be killed: `python -m tests.faults.agent_process
DATABASE [MODE…]`.

With modes it plans stand-in engines, the first for the deployment `d0`, the second for `d1` and so
on; without, the real ones.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial

import django
from django.conf import settings


def main(database: str, modes: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    settings.DATABASES["default"]["NAME"] = database
    django.setup()
    from deployments.models import Deployment
    from deployments.planning.plan import Plan
    from deployments.supervision import agent, host_agent
    from tests.supervision.conftest import QUICK, fake_plan

    def plan(deployment: Deployment) -> Plan:
        return fake_plan(modes[int(deployment.name[1:])])(deployment)

    # However often it is killed, it is wanted: nothing is given up.
    limits = replace(QUICK, most_failures=sys.maxsize, load_base_s=20.0, hang_s=10.0)
    host_agent.HostAgent = partial(  # type: ignore[misc, assignment]
        host_agent.HostAgent, limits=limits, **({"plan": plan} if modes else {})
    )
    agent.TICK_S, agent.QUICK_TICK_S = 0.3, 0.1
    agent._discover = lambda: None  # type: ignore[assignment]
    agent._reconcile_loop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
