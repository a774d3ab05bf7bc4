"""Waits until a deployment is in a state; the agent brings it there."""

from __future__ import annotations

import time

from deployments.models import Deployment
from deployments.states import InstanceState
from gpus.models import Host
from gpus.telemetry import agent_is_silent
from omni.errors import OmniError

POLL_S = 0.1


def agent_is_running(host: Host) -> bool:
    """Whether the host's agent has reported lately."""
    return not agent_is_silent(host)


def no_agent(host: Host) -> OmniError:
    text = f"No agent runs on {host.name}, so nothing is started or stopped there."
    return OmniError(
        "no_agent", text, "Start the panel with `make up`; it does what is wanted then."
    )


def wait_for(deployment: Deployment, state: str, timeout_s: float) -> None:
    """Returns once it is in the state.

    Raises OmniError: no_agent at once where none runs, start_failed when it has given up, timeout.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        now = Deployment.objects.filter(pk=deployment.pk).select_related("host").first()
        if now is None or now.state == state:
            return
        if not agent_is_running(now.host):
            raise no_agent(now.host)
        if state == InstanceState.READY and now.state == InstanceState.FAILED:
            raise OmniError(
                "start_failed", f"{now.name} could not be started: {cause(now)}"
            )
        if time.monotonic() >= deadline:
            text = (
                f"{now.name} is {now.state} after {timeout_s:g} s, not {state}."
                f" {known_cause(now)}"
            )
            raise OmniError(
                "timeout", text.strip(), "Look at its page, or wait longer.", retry=True
            )
        time.sleep(POLL_S)


def cause(deployment: Deployment) -> str:
    """Why it does not run, with the line of the log that tells."""
    return known_cause(deployment) or "no cause is known; its log may tell."


def known_cause(deployment: Deployment) -> str:
    if deployment.error:
        return deployment.error
    for instance in deployment.instances.all():
        if instance.error:
            return f"{instance.error} {instance.log_line}".strip()
    return ""
