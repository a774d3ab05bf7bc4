"""Looks after external servers, beside the agent's ticks: it asks, and starts and
signals nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from django.db.models import Q
from django.utils import timezone

from deployments.announce import library_changed
from deployments.engines.external import EXTERNAL, ServerReport
from deployments.external.keys import key_of
from deployments.external.probe import ask
from deployments.external.report import keep_report
from deployments.external.state import Shown, settled, shown_state
from deployments.models import Deployment, Engine, Instance, Role
from deployments.states import LIVE, InstanceState
from deployments.supervision.instances import ran_here
from deployments.supervision.saving import keep
from gpus.models import Host

ASKED_EVERY_S = 2.0


@dataclass
class Asked:
    """What is known of one server, and the question that is on its way."""

    address: str
    key: str = field(repr=False)
    at_s: float = float("-inf")
    future: Future[ServerReport] | None = None
    report: ServerReport | None = None
    silences: int = 0


class ExternalServers:
    """Belongs to the agent's thread; only the questions themselves run beside it."""

    def __init__(
        self,
        host: Host,
        tell: Callable[[Deployment], None],
        every_s: float = ASKED_EVERY_S,
    ) -> None:
        self.host = host
        self.tell = tell
        self.every_s = every_s
        self.pool = ThreadPoolExecutor(4, thread_name_prefix="external")
        self.asked: dict[int, Asked] = {}

    def tick(self) -> bool:
        """One look; True while something is on its way and worth a quick look."""
        engines = list(Engine.objects.filter(host=self.host, flavour=EXTERNAL))
        self.asked = {engine.pk: self._asked(engine) for engine in engines}
        for engine in engines:
            self._look(engine, self.asked[engine.pk])
        external = Q(instances__address__gt="") | Q(external_model__gt="")
        rows = (
            self.host.deployments.filter(external)
            .distinct()
            .select_related("engine")
            .prefetch_related("instances")
        )
        states = [self._step(row) for row in rows]
        return InstanceState.STARTING in states

    # --- servers ----------------------------------------------------------------------------------
    def _asked(self, engine: Engine) -> Asked:
        known = self.asked.get(engine.pk)
        key = key_of(engine)
        if known and (known.address, known.key) == (engine.path, key):
            return known
        return Asked(engine.path, key)

    def _look(self, engine: Engine, asked: Asked) -> None:
        if asked.future and asked.future.done():
            found = asked.future.result()
            asked.future = None
            asked.silences = asked.silences + 1 if found.is_silent else 0
            asked.report = settled(asked.report, found, asked.silences)
            if keep_report(engine, asked.report):
                library_changed()
        now_s = time.monotonic()
        if asked.future is None and now_s - asked.at_s >= self.every_s:
            asked.at_s, asked.future = (
                now_s,
                self.pool.submit(ask, asked.address, asked.key),
            )

    # --- deployments ------------------------------------------------------------------------------
    def _step(self, deployment: Deployment) -> InstanceState | None:
        """The state it is in now; None where it is not on such a server, or not yet."""
        rows = list(deployment.instances.all())
        external_rows = [row for row in rows if row.address]
        if not deployment.is_external:
            for row in external_rows:
                row.delete()
            return None
        for row in (row for row in rows if not row.address and row.state not in LIVE):
            row.delete()
        if any(not row.address and row.state in LIVE for row in rows):
            # A process of ours, from before the deployment moved, is being ended.
            return InstanceState.STARTING
        running = (
            deployment.desired == Deployment.Desired.RUNNING
            and not deployment.is_deleting
        )
        if not external_rows and not running:
            return None
        if external_rows:
            instance = external_rows[0]
        else:
            instance = Instance(host=self.host, deployment=deployment, role=Role.MODEL)
        asked = self.asked.get(deployment.engine_id)
        report = asked.report if asked else None
        shown = shown_state(
            running, InstanceState(instance.state), deployment.external_model, report
        )
        self._keep(instance, deployment, shown)
        return shown.state

    def _keep(self, instance: Instance, deployment: Deployment, shown: Shown) -> None:
        error = shown.error
        old = instance.state
        values = {
            "address": deployment.engine.path,
            "state": str(shown.state),
            "generation": deployment.generation,
            "error_code": error.code if error else "",
            "error": str(error) if error else "",
        }
        if instance.pk and all(
            getattr(instance, name) == value for name, value in values.items()
        ):
            return
        for name, value in values.items():
            setattr(instance, name, value)
        if shown.state == InstanceState.READY and old != InstanceState.READY:
            instance.ready_at = timezone.now()
            ran_here(instance)
        keep(instance, old, shown.reason)
        self.tell(deployment)
