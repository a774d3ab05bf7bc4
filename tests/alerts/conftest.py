"""A host whose telemetry says what a test wants, and a clock that only goes when it is told to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from deployments.services.discovery import local_host
from deployments.supervision.alert_watch import AlertWatch
from gpus.models import Gpu, Host

GIB = 1 << 30


class Telemetry:
    """What the sampler would have published."""

    def __init__(self) -> None:
        self.card: dict[str, Any] = {"key": "GPU-1", "name": "RTX 5090", "state": "ok"}
        self.is_away = False
        self.now_s = 1000.0

    def frame(self, host: str) -> str:
        if self.is_away:
            return ""
        host_now = {"ram_used_bytes": 1 * GIB, "ram_total_bytes": 100 * GIB}
        frame = {"at": time.time() * 1000, "cards": [self.card], "host": host_now}
        return json.dumps(frame)

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def watched_host(db: None) -> Host:
    host = local_host()
    Gpu.objects.create(host=host, uuid="GPU-1", name="RTX 5090")
    return host


@pytest.fixture
def agent(watched_host: Host, telemetry: Telemetry) -> Callable[[], AlertWatch]:
    """A new one each time, as after a restart."""
    return lambda: AlertWatch(
        watched_host, clock=telemetry.clock, frame=telemetry.frame
    )


@pytest.fixture
def looks(telemetry: Telemetry) -> Callable[..., list[bool]]:
    """So many looks at five seconds' distance; whether something happened at each."""

    def look(watch: AlertWatch, count: int = 1, **card: Any) -> list[bool]:
        telemetry.card |= card
        found = []
        for _ in range(count):
            telemetry.now_s += 5
            found.append(watch.tick())
        return found

    return look
