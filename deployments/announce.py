"""Tells pages and agents that something is another now.

Pages hear of it on the state group and fetch what they show; a host's agent is asked by the name of
its task, so that nobody who announces needs the agent's code.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from omni.broadcast import broker_is_silent, publish
from omni.celery import app
from omni.errors import OmniError
from omni.events import STATE_GROUP
from omni.roles.rights import MANAGE_LIBRARY, require

if TYPE_CHECKING:
    from deployments.models import Deployment

log = logging.getLogger(__name__)

DEPLOYMENT_CHANGED = "deployment.changed"
KEYS_CHANGED = "keys.changed"
NUDGE_TASK = "deployments.tasks.nudge_agent"
SCAN_TASK = "deployments.tasks.scan_library"


# --- pages ----------------------------------------------------------------------------------------
def deployment_changed(deployment: Deployment) -> None:
    """Every page that shows it draws it again."""
    publish(
        STATE_GROUP,
        {
            "type": DEPLOYMENT_CHANGED,
            "deployment": deployment.pk,
            "name": deployment.name,
            "state": deployment.state,
        },
    )


def library_changed() -> None:
    """Every page that shows models, folders or engines fetches them again."""
    publish(STATE_GROUP, {"type": "library.changed"})


def downloads_changed() -> None:
    """Every page fetches its list of downloads again."""
    publish(STATE_GROUP, {"type": "download.changed"})


def benchmarks_changed() -> None:
    """Every page that shows a benchmark fetches it again."""
    publish(STATE_GROUP, {"type": "benchmark.changed"})


def keys_changed() -> None:
    """Every gateway process reads the keys again, and every page that shows them fetches them."""
    publish(STATE_GROUP, {"type": KEYS_CHANGED})


def alerts_changed() -> None:
    """Every page draws its line of alerts again, and the page of alerts all of them."""
    publish(STATE_GROUP, {"type": "alerts.changed"})


# --- agents ---------------------------------------------------------------------------------------
def nudge(host: str) -> None:
    """Asks a host's agent to look now. Without a broker it looks by itself within two seconds."""
    if broker_is_silent():
        return

    try:
        app.send_task(NUDGE_TASK, queue=queue_of(host), expires=10)
    except (KombuError, RedisError, OSError) as error:
        log.warning("broker unreachable, the agent was not nudged: %s", error)


def request_scan(host: str, *, user: Any = None) -> None:
    """Asks the host's agent to look for engines and models. Raises OmniError (no_broker)."""
    require(user, MANAGE_LIBRARY)
    try:
        app.send_task(SCAN_TASK, queue=queue_of(host), expires=60)
    except (KombuError, RedisError, OSError):
        text = "The broker does not answer, so the agent could not be asked."
        raise OmniError(
            "no_broker", text, "Try again in a moment.", retry=True
        ) from None


def queue_of(host: str) -> str:
    """The queue that only this host's agent reads."""
    return f"host.{host}"
