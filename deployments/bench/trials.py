"""Benchmarks of layouts that need not be deployed: what is not gets a trial deployment for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from deployments.bench.prompts import Prompt
from deployments.bench.runs import benchmark_request
from deployments.models import BenchmarkRun, Deployment, Engine, Model
from deployments.planning.settings import validated, with_defaults
from deployments.services.defaults import default_engine
from deployments.services.deployments import deployment_create
from deployments.services.discovery import local_host
from deployments.services.layout_results import settings_of
from deployments.services.plans import Members
from deployments.services.trials import mark_trials, trial_name
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import OPERATE, require

# Of each layout: enough for medians, and no long wait. Who wants differences benchmarks longer.
TRIAL_ROUNDS = 6
SECONDS_EACH = 30.0


@dataclass(frozen=True)
class Layout:
    """A deployment as a rig file has it, with the rows that it names."""

    strategy: str
    engine: Engine
    members: Members
    settings: Mapping[str, int | str]
    extra_args: tuple[str, ...] = field(default=())

    @property
    def bindings(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        return {
            role: (model.pk, tuple(devices))
            for role, (model, devices) in self.members.items()
        }


def trial_request(
    *,
    wanted: Sequence[Mapping[str, Any]],
    gateway: str,
    scenario: str = "chat",
    concurrency: Sequence[int] = (1,),
    prompts: Sequence[Prompt] | None = None,
    most_rounds: int = TRIAL_ROUNDS,
    seconds: float | None = None,
    user: Any = None,
) -> BenchmarkRun:
    """A benchmark of layouts, each written as a deployment in a rig file; the first is the
    baseline.

    One that is deployed is measured as it is, each other gets a trial deployment, which goes away
    with the run. What is in their way is stopped meanwhile. Without `seconds` each layout has
    half a minute for each number of users. Raises OmniError; then nothing is kept.
    """
    require(user, OPERATE)
    host = local_host()
    layouts = list(_each_once(_layout(host, each) for each in wanted))
    if seconds is None:
        seconds = SECONDS_EACH * max(len(layouts), 1) * max(len(concurrency), 1)
    found = [_deployed(host, layout) for layout in layouts]
    with transaction.atomic():
        rows = [
            row or _trial(layout, user)
            for row, layout in zip(found, layouts, strict=True)
        ]
        trials = [row for row, known in zip(rows, found, strict=True) if known is None]
        run = benchmark_request(
            names=list(dict.fromkeys(row.name for row in rows)),
            scenario=scenario,
            gateway=gateway,
            concurrency=concurrency,
            prompts=prompts,
            most_rounds=most_rounds,
            seconds=seconds,
            # Nobody has planned them beside each other.
            swaps=bool(trials) and len(rows) > 1,
            makes_room=True,
            user=user,
        )
        mark_trials(run, trials)
    return run


def trial_requests(
    *, each_wanted: Sequence[Mapping[str, Any]], gateway: str, user: Any = None
) -> list[BenchmarkRun]:
    """A benchmark of its own for each: one that cannot start does not keep the others from it.

    Raises OmniError; then none of them is kept.
    """
    with transaction.atomic():
        return [
            trial_request(wanted=[wanted], gateway=gateway, user=user)
            for wanted in each_wanted
        ]


def _trial(layout: Layout, user: Any) -> Deployment:
    model, _ = next(iter(layout.members.values()))
    return deployment_create(
        name=trial_name(model.name, layout.strategy),
        strategy=layout.strategy,
        engine=layout.engine,
        members=layout.members,
        settings=layout.settings,
        extra_args=layout.extra_args,
        user=user,
    )


# --- what is meant --------------------------------------------------------------------------------
def _layout(host: Host, wanted: Mapping[str, Any]) -> Layout:
    """Raises OmniError: unknown_model, unknown_engine, no_device, no_engine, unknown_setting …"""
    models = {role: _model(name) for role, name in wanted.get("models", {}).items()}
    if not models:
        raise OmniError(
            "no_model", "A layout to measure names no model.", "Name one for each role."
        )
    first = next(iter(models.values()))
    devices: Mapping[str, Sequence[str]] = wanted.get("devices", {})
    return Layout(
        str(wanted["strategy"]),
        _engine(host, str(wanted.get("engine", "")), first),
        {role: (model, list(devices.get(role, ()))) for role, model in models.items()},
        validated(wanted.get("settings", {})),
        tuple(wanted.get("extra_args", ())),
    )


def _model(name: str) -> Model:
    found = Model.objects.filter(name=name).first()
    if found is None:
        raise OmniError(
            "unknown_model",
            f"There is no model {name[:120]!r}.",
            "Scan its folder, or download it first.",
        )
    return found


def _engine(host: Host, name: str, model: Model) -> Engine:
    if not name:
        return default_engine(host, model)
    found = Engine.objects.filter(host=host, name=name).select_related("host").first()
    if found is None:
        raise OmniError(
            "unknown_engine",
            f"There is no engine {name[:120]!r} on {host.name}.",
            "Look at the engines on the Rig page.",
        )
    return found


def _each_once(layouts: Iterable[Layout]) -> Iterable[Layout]:
    seen: list[Layout] = []
    for layout in layouts:
        if layout not in seen:
            seen.append(layout)
            yield layout


def _deployed(host: Host, layout: Layout) -> Deployment | None:
    """What runs the same; of its settings only those are looked at that the layout names."""
    rows = Deployment.objects.filter(
        host=host,
        engine=layout.engine,
        strategy=layout.strategy,
        trial_of=None,
        is_deleting=False,
    )
    for row in rows.prefetch_related("bindings").order_by("pk"):
        if _is_same(row, layout):
            return row
    return None


def _is_same(row: Deployment, layout: Layout) -> bool:
    bindings = {
        each.role: (each.model_id, tuple(each.devices)) for each in row.bindings.all()
    }
    if bindings != layout.bindings or tuple(row.extra_args) != layout.extra_args:
        return False
    wanted = with_defaults(layout.settings)
    as_given, as_planned = with_defaults(row.settings), settings_of(row)
    return all(
        wanted[key] in (as_given[key], as_planned.get(key)) for key in layout.settings
    )
