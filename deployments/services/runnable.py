"""A planned command as it would run now: with a real socket or a free port in it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from deployments.instances import ports
from deployments.instances.connecting import socket_path
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PORT,
    SOCKET,
    Filling,
    InstancePlan,
    Placeholder,
    filled_argv,
)


@dataclass(frozen=True)
class RunnableCommand:
    role: str
    argv: list[str]
    env: dict[str, str]


def runnable(planned: InstancePlan, deployment: str) -> RunnableCommand:
    """What a shell can run as it stands.

    A key that is made at each start is left out of the environment.
    """
    wanted = planned.placeholders
    filling: dict[Placeholder, str | int] = {
        SOCKET: str(socket_path(deployment, planned.role, planned.ordinal))
    }
    if PORT in wanted:
        filling[PORT] = ports.choose(*settings.OMNI_ENGINE_PORTS, taken=())
    if KEY_FILE in wanted:
        filling[KEY_FILE] = str(settings.OMNI_HOME.secret_path("by-hand"))
    env = {name: str(value) for name, value in planned.env.items() if value is not KEY}
    complete: Filling = filling
    return RunnableCommand(planned.role, filled_argv(planned.argv, complete), env)


def command_text(argv: Sequence[str], env: dict[str, str]) -> str:
    """The exact command as a shell would take it."""
    return " ".join(
        [
            *(f"{key}={shlex.quote(value)}" for key, value in env.items()),
            shlex.join(argv),
        ]
    )
