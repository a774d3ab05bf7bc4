"""Whether the cards of a host are looked at now; if not, since when, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.utils import timezone

from gpus.models import Host
from gpus.recent import read_frame

# Older figures are not of now.
FRESH = timedelta(seconds=15)
# How often an agent reports that it runs.
AGENT_REPORT_S = 4.0
# Two missed reports, and a little, mean that there is none.
AGENT_SILENT_AFTER = timedelta(seconds=2.5 * AGENT_REPORT_S)

BROKER = (
    "The broker does not answer",
    "Nothing is known of the cards now. It is started again by itself.",
)
AGENT = (
    "The agent of this machine does not report",
    "Nobody looks at the cards. It comes back by itself when the panel was started with"
    " `make up`.",
)
SAMPLER = (
    "The sampler does not report",
    "Nobody looks at the cards. The agent starts it again; agent.log in OMNI_HOME's logs"
    " says why it ended.",
)
FIRST = ("No sample yet", "The first comes a few seconds after the agent's start.")


@dataclass(frozen=True)
class Telemetry:
    """`at` is of the last sample; `title` and `text` say why none comes, empty while they do."""

    at: datetime | None = None
    title: str = ""
    text: str = ""

    @property
    def is_live(self) -> bool:
        return not self.title


def telemetry(host: Host) -> Telemetry:
    """As it is now."""
    try:
        frame: dict[str, Any] = json.loads(read_frame(host.name) or "{}")
    except (redis.RedisError, OSError):
        return Telemetry(None, *BROKER)
    at_ms = frame.get("at")
    at = datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
    if at and timezone.now() - at < FRESH:
        return Telemetry(at)
    if agent_is_silent(host):
        return Telemetry(at, *AGENT)
    return Telemetry(at, *(SAMPLER if at else FIRST))


def agent_is_silent(host: Host) -> bool:
    """Whether the host's agent has not reported lately."""
    seen = host.agent_seen_at
    return seen is None or timezone.now() - seen >= AGENT_SILENT_AFTER
