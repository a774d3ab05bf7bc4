"""What ought to be: whether there is anything to look after, the rows of a host's instances, and
what is wanted of a process that lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Exists, Q, QuerySet

from deployments.engines.external import EXTERNAL
from deployments.instances.model_files import file_bytes
from deployments.models import BenchmarkRun, Deployment, Engine, Instance
from deployments.planning.settings import with_defaults
from deployments.states import LIVE
from deployments.supervision import device_servers
from deployments.supervision.decision import Desired
from deployments.supervision.instances import is_newer, servers_of, slow_load_s
from deployments.supervision.planned import Plans
from deployments.supervision.process import Record
from gpus.models import Host


class Kinds(NamedTuple):
    """Which kinds of rows there are at all: those of the other kinds need not be asked for."""

    external: bool = False
    deleted: bool = False
    benchmarks: bool = False
    served_devices: bool = False


class WantedQuery:
    """Asks whether a row calls for a look at the instances: one question, for a host that has none.

    Its SQL is made once, which is nearly all that it costs.
    """

    def __init__(self, host: Host) -> None:
        self._rows_that_matter = _rows_that_matter(host).query.sql_with_params()
        self._kinds = _kinds(host).query.sql_with_params()

    def is_anything_wanted(self) -> bool:
        return _first(self._rows_that_matter) is not None

    def kinds(self) -> Kinds:
        """Before a look at the instances; what is written meanwhile is for the next one."""
        found = _first(self._kinds) or ()
        return Kinds(*map(bool, found))


def _first(asked: tuple[str, Sequence[Any]]) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(*asked)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def _kinds(host: Host) -> QuerySet[Host, Any]:
    deployments = host.deployments.all()
    instances = Instance.objects.filter(host=host)
    engines = Engine.objects.filter(host=host, flavour=EXTERNAL)
    benchmarks = BenchmarkRun.objects.filter(
        host=host, state__in=BenchmarkRun.UNFINISHED
    )
    kinds = {
        "external": Exists(engines)
        | Exists(deployments.filter(external_model__gt=""))
        | Exists(instances.filter(address__gt="")),
        "deleted": Q(Exists(deployments.filter(is_deleting=True))),
        "benchmarks": Exists(benchmarks)
        | Exists(deployments.filter(trial_of__isnull=False)),
        "served_devices": Exists(device_servers.devices_to_serve(host))
        | Exists(instances.filter(device__isnull=False)),
    }
    rows = Host.objects.filter(pk=host.pk).order_by().annotate(**kinds)
    return rows.values_list(*Kinds._fields)


def _rows_that_matter(host: Host) -> QuerySet[Host, tuple[int]]:
    """The host's row if there is anything to do. Whoever gives the agent another kind of work names
    its rows here, and in `_kinds` where a tick does not ask for them anyway."""
    deployments = host.deployments.filter(
        Q(desired=Deployment.Desired.RUNNING)
        | Q(is_deleting=True)
        | Q(trial_of__isnull=False)
        | Q(external_model__gt="")
    )
    wanted = (
        deployments,
        Instance.objects.filter(host=host),
        device_servers.devices_to_serve(host),
        Engine.objects.filter(host=host, flavour=EXTERNAL),
        BenchmarkRun.objects.filter(host=host, state__in=BenchmarkRun.UNFINISHED),
    )
    any_of_them = Q()
    for rows in wanted:
        any_of_them |= Q(Exists(rows))
    return Host.objects.filter(any_of_them, pk=host.pk).order_by().values_list("pk")


def own_deployments(host: Host) -> list[Deployment]:
    """Those that are wanted running by processes of the host's own, with their instances."""
    rows = host.deployments.filter(
        desired=Deployment.Desired.RUNNING, external_model=""
    )
    return list(rows.prefetch_related("instances"))


def wanted_instances(
    host: Host, plans: Plans, deployments: Sequence[Deployment]
) -> list[Instance]:
    """Every instance of this host, device servers first; missing rows of these deployments are
    made."""
    for deployment in deployments:
        _ensure_rows(deployment, plans)
    found = Instance.objects.filter(host=host, address="").select_related(
        "deployment__engine", "deployment__host", "device"
    )
    return sorted(found, key=lambda instance: instance.device_id is None)


def _ensure_rows(deployment: Deployment, plans: Plans) -> None:
    rows = {(row.role, row.ordinal): row for row in deployment.instances.all()}
    if rows and all(row.generation == deployment.generation for row in rows.values()):
        return
    plan = plans.of(deployment)
    if plan is None:
        return
    wanted = {(planned.role, planned.ordinal) for planned in plan.instances}
    for role, ordinal in wanted - set(rows):
        Instance.objects.create(
            host=deployment.host, deployment=deployment, role=role, ordinal=ordinal
        )
    for key in set(rows) - wanted:
        if rows[key].state not in LIVE:
            rows[key].delete()


def desired_of_living(
    deployment: Deployment,
    mine: Record,
    instances: list[Instance],
    records: dict[int, Record | None],
) -> Desired:
    # Asked of the process itself: a plan may no longer be possible, and it runs all the same.
    servers = servers_of(mine.launch, instances)
    restarted = any(is_newer(records[server.pk], mine) for server in servers)
    drain_s = int(with_defaults(deployment.settings)["drain_s"])
    return Desired(
        deployment.ought_to_run,
        deployment.generation,
        file_bytes(mine.launch),
        # Whoever uses a server that is gone waits in vain.
        drain_s=0.0 if deployment.ends_now or restarted else float(drain_s),
        needs_restart=restarted,
        slow_load_s=slow_load_s(mine.launch),
        why_not=(
            f"it is unloaded {deployment.unloaded_why}"
            if deployment.is_unloaded
            else "stop was asked for"
        ),
    )
