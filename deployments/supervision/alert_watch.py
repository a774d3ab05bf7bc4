"""Looks at what the alerts of this host are about, and has written what fires and clears.

An idle look reads one frame of telemetry and a counter of the database; its rows are read when
somebody has written to it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments.alerts.facts import (
    DeploymentFacts,
    KnownCard,
    OtherHost,
    RequestFacts,
    agent_readings,
    card_readings,
    deployment_readings,
    host_readings,
    lost_readings,
    request_readings,
)
from deployments.alerts.machine import State
from deployments.alerts.rules import Rule
from deployments.alerts.watch import Facts, Key, firing, look
from deployments.models import Deployment, GatewayRequest
from deployments.services.alert_sending import prune_deliveries
from deployments.services.alerting import firing_keys, prune_alerts, record, rules_now
from gpus.facts import known_cards
from gpus.models import Gpu, Host
from gpus.recent import LastFrame
from gpus.telemetry import AGENT_SILENT_AFTER
from omni.database import ReadOnChange

REQUESTS_S = 300
# Of more requests than these the newest say enough.
MOST_REQUESTS = 2000
REQUESTS_EVERY_S = 10.0
PRUNE_EVERY_S = 3600.0
CARD_RULES = (
    "gpu_temperature",
    "gpu_throttle",
    "gpu_link",
    "gpu_memory",
    "gpu_xid",
    "gpu_ecc",
    "gpu_lost",
)
DEPLOYMENT_RULES = ("deployment_failed", "deployment_restarting")
REQUEST_RULES = ("first_token", "gateway_errors")


@dataclass(frozen=True)
class Rows:
    """What the database says."""

    rules: Mapping[str, Rule]
    cards: tuple[KnownCard, ...]
    deployments: tuple[DeploymentFacts, ...]
    hosts: tuple[OtherHost, ...] = ()

    @property
    def running(self) -> list[str]:
        return [row.name for row in self.deployments if row.ought_to_run]


class AlertWatch:
    """`tick` is one look; the loop around it lives in agent.py."""

    def __init__(
        self,
        host: Host,
        *,
        clock: Callable[[], float] = time.monotonic,
        frame: Callable[[str], str] | None = None,
    ) -> None:
        self.host = host
        self.clock = clock
        self.frame = frame or LastFrame()
        self.states: Mapping[Key, State] = firing(firing_keys(host))
        self._rows = ReadOnChange(self._read_rows)
        self._requests = ReadOnChange(self._read_requests)
        self._last_requests: tuple[RequestFacts, ...] = ()
        self._requests_due_s = float("-inf")
        self._pruned_s = float("-inf")

    def tick(self) -> bool:
        """Whether something fired or cleared. States move on only once that is written."""
        rows = self._rows()
        found = look(rows.rules, self.states, self._facts(rows), self.clock())
        if found.changes:
            record(self.host, found.changes)
        self.states = found.states
        self._prune()
        return bool(found.changes)

    def _prune(self) -> None:
        if self.clock() - self._pruned_s >= PRUNE_EVERY_S:
            prune_alerts()
            prune_deliveries()
            self._pruned_s = self.clock()

    # --- facts ------------------------------------------------------------------------------------
    def _facts(self, rows: Rows) -> Facts:
        frame, now_ms = self._frame(), time.time() * 1000
        disk = shutil.disk_usage(settings.OMNI_HOME.root).free
        readings = (
            *card_readings(frame, now_ms),
            *lost_readings(rows.cards),
            *host_readings(self.host.name, frame, now_ms, disk),
            *agent_readings(
                self.host.name,
                rows.hosts,
                now_ms / 1000,
                AGENT_SILENT_AFTER.total_seconds(),
            ),
            *deployment_readings(rows.deployments),
            *request_readings(self._requests_now(rows), rows.running),
        )
        cards = {card.uuid for card in rows.cards}
        named = {row.name for row in rows.deployments}
        present = (
            dict.fromkeys(CARD_RULES, cards)
            | dict.fromkeys(DEPLOYMENT_RULES, named)
            | {code: set(rows.running) for code in REQUEST_RULES}
            | {"agent_away": {host.name for host in rows.hosts}}
        )
        return Facts(readings, present)

    def _frame(self) -> dict[str, Any]:
        """Empty where nobody samples, or the broker is away."""
        text = self.frame(self.host.name)
        frame = json.loads(text) if text else None
        return frame if isinstance(frame, dict) else {}

    def _requests_now(self, rows: Rows) -> tuple[RequestFacts, ...]:
        if self.clock() >= self._requests_due_s:
            self._requests_due_s = self.clock() + REQUESTS_EVERY_S
            self._last_requests = self._requests() if rows.running else ()
        return self._last_requests

    # --- rows -------------------------------------------------------------------------------------
    def _read_rows(self) -> Rows:
        names = {card.uuid: card.shown_name for card in known_cards(self.host)}
        fields = ("uuid", "state", "error")
        cards = Gpu.objects.filter(host=self.host).values_list(*fields)
        deployments = self.host.deployments.filter(is_deleting=False, trial_of=None)
        hosts = Host.objects.exclude(pk=self.host.pk).exclude(agent_seen_at=None)
        return Rows(
            rules_now(),
            tuple(
                KnownCard(uuid, names.get(uuid, uuid), state, error)
                for uuid, state, error in cards
            ),
            tuple(
                _deployment_facts(row)
                for row in deployments.prefetch_related("instances")
            ),
            tuple(
                OtherHost(name, seen_at.timestamp())
                for name, seen_at in hosts.values_list("name", "agent_seen_at")
                if seen_at
            ),
        )

    def _read_requests(self) -> tuple[RequestFacts, ...]:
        since = timezone.now() - timedelta(seconds=REQUESTS_S)
        fields = ("deployment_name", "status", "first_token_ms")
        rows = GatewayRequest.objects.filter(at__gte=since).order_by("-at")
        return tuple(
            RequestFacts(*row) for row in rows.values_list(*fields)[:MOST_REQUESTS]
        )


def _deployment_facts(row: Deployment) -> DeploymentFacts:
    instances = list(row.instances.all())
    failures = [each.failures for each in instances]
    errors = (row.error, *(each.error for each in instances))
    return DeploymentFacts(
        name=row.name,
        state=row.state,
        failures=max(failures, default=0),
        error=next((error for error in errors if error), ""),
        ought_to_run=row.desired == Deployment.Desired.RUNNING and not row.is_unloaded,
    )
