"""What benchmarks measured of each layout, and whether what the figures depend on is as it was.

A layout is what a deployment is made of: models and devices by role, strategy, engine, and the
settings that are in its command. Figures depend on more: the engine's build, the driver, the links
of the devices and the files of the models. Where one of these changed, a result is stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deployments.models import BenchmarkRun, Deployment, Engine, LayoutResult
from deployments.planning.plan import Plan
from deployments.planning.setting import Group
from deployments.planning.settings import SETTINGS, with_defaults
from deployments.services.layout_plans import Planned
from deployments.services.plans import Members, setup_of
from deployments.services.stored_plans import stored_plan
from deployments.states import Judgement
from deployments.strategies import STRATEGIES
from gpus.models import Device, Host
from omni.units import bytes_text

Document = Mapping[str, Any]
MEASURED = ("decode_tps", "prefill_tps", "first_token_ms", "total_tps")
# Of one layout with so many users in one scenario; older ones go.
KEPT_EACH = 5
UNREAD = ("facts", "shape", "vocab", "shards")


# --- which layout it is ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Identity:
    """A layout, by the hash of what it is made of, and the rows that its figures depend on."""

    key: str
    layout: Mapping[str, Any]
    engine: Engine
    members: Members

    @property
    def devices(self) -> list[str]:
        """Each once, in the order of the roles."""
        named = [name for _, names in self.members.values() for name in names]
        return list(dict.fromkeys(named))


def identity_of(subject: Deployment | Planned) -> Identity:
    """A planned layout and the deployment that is made of it have the same one."""
    if isinstance(subject, Planned):
        strategy, engine = subject.layout.strategy, subject.engine
        members, extra_args = subject.members, []
        settings = _decided(subject.settings, strategy, subject.plan)
    else:
        setup = setup_of(subject, without=UNREAD)
        strategy, engine = setup.strategy, setup.engine
        members, extra_args = setup.members, list(setup.extra_args)
        settings = settings_of(subject)
    layout = {
        "strategy": strategy,
        "engine": engine.name,
        "models": {role: model.name for role, (model, _) in sorted(members.items())},
        "devices": {role: list(names) for role, (_, names) in sorted(members.items())},
        "settings": settings,
        "extra_args": extra_args,
    }
    text = json.dumps(layout, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Identity(key, layout, engine, members)


def settings_of(deployment: Deployment) -> dict[str, int | str]:
    """Those that make its command, with what its plan decided where they are auto."""
    return _decided(deployment.settings, deployment.strategy, stored_plan(deployment))


def _decided(
    given: Mapping[str, object], strategy_name: str, plan: Plan | None
) -> dict[str, int | str]:
    chosen = {**given, **(plan.settings if plan else {})}
    strategy = STRATEGIES.get(strategy_name)
    return {
        key: value
        for key, value in with_defaults(chosen).items()
        if SETTINGS[key].group != Group.SERVICE
        and (strategy is None or strategy.looks_at(SETTINGS[key]))
    }


# --- what its figures depend on -------------------------------------------------------------------
@dataclass(frozen=True)
class Surroundings:
    """Of a host, what figures depend on besides the layout; read once for many layouts."""

    driver: str
    links: Mapping[str, str]

    @classmethod
    def of(cls, host: Host) -> Surroundings:
        # Another process than this one has looked at the driver.
        driver = Host.objects.values_list("driver_version", flat=True).get(pk=host.pk)
        devices = Device.objects.filter(host=host).select_related("gpu")
        return cls(driver, {device.name: _link(device) for device in devices})

    def depends(self, identity: Identity) -> dict[str, Any]:
        """As it is now."""
        return {
            "build": identity.engine.build,
            "driver": self.driver,
            "links": {name: self.links.get(name, "") for name in identity.devices},
            "models": {
                role: {"size_bytes": model.size_bytes, "fingerprint": model.fingerprint}
                for role, (model, _) in sorted(identity.members.items())
            },
        }


def _link(device: Device) -> str:
    """For example `gen4 x16`; '' where there is none or it is not known."""
    gpu = device.gpu
    if gpu is None or not (gpu.pcie_generation_max and gpu.pcie_width_max):
        return ""
    return f"gen{gpu.pcie_generation_max} x{gpu.pcie_width_max}"


def changes(then: Document, now: Document) -> str:
    """What is not as it was when something was measured, as one sentence; '' where nothing is."""
    return ", ".join(_changes(then, now))


def _changes(then: Document, now: Document) -> Iterator[str]:
    if then["build"] != now["build"]:
        yield f"engine build {_named(then['build'])} → {_named(now['build'])}"
    if then["driver"] != now["driver"]:
        yield f"driver {_named(then['driver'])} → {_named(now['driver'])}"
    for name, link in now["links"].items():
        before = then["links"].get(name, "")
        if before != link:
            yield f"link of {name} {_named(before)} → {_named(link)}"
    for role, file in now["models"].items():
        yield from _changes_of_file(role, then["models"].get(role, {}), file)


def _changes_of_file(role: str, then: Document, now: Document) -> Iterator[str]:
    sizes = [bytes_text(one["size_bytes"]) for one in (then, now) if one]
    if len(set(sizes)) > 1:
        yield f"file of the {role} {' → '.join(sizes)}"
    elif then != now:
        yield f"file of the {role} has other contents"


def _named(text: str) -> str:
    return text or "unknown"


# --- keeping --------------------------------------------------------------------------------------
def keep_result(
    run: BenchmarkRun, deployment: Deployment, arm: Document, measured: Document
) -> bool:
    """Keeps what an arm of a run says of its layout; False where that is kept already.

    `measured` is what the report says of the deployment as it was then.
    """
    identity = identity_of(deployment)
    concurrency = int(arm["concurrency"])
    _, is_new = LayoutResult.objects.get_or_create(
        benchmark=run.pk,
        deployment_name=deployment.name,
        concurrency=concurrency,
        defaults={
            "host": deployment.host,
            "key": identity.key,
            "layout": identity.layout,
            "depends": Surroundings.of(deployment.host).depends(identity),
            "scenario": run.scenario,
            "figures": {name: _figure(arm.get(name)) for name in MEASURED},
            "joules_per_token": arm.get("joules_per_token"),
            "mean_watts": arm.get("mean_watts"),
            "is_disturbed": not (run.document or {}).get("valid", True),
            "answer_check": measured.get("answer_check") or Judgement.UNKNOWN,
        },
    )
    if is_new:
        _forget_old(deployment.host, identity.key, concurrency, run.scenario)
    return is_new


def _figure(found: Any) -> dict[str, float | None]:
    """Throughput has no bounds in a report."""
    if isinstance(found, Mapping):
        return {name: found.get(name) for name in ("p50", "low", "high")}
    return {"p50": found, "low": None, "high": None}


def _forget_old(host: Host, key: str, concurrency: int, scenario: str) -> None:
    rows = LayoutResult.objects.filter(
        host=host, key=key, concurrency=concurrency, scenario=scenario
    )
    old = list(rows.order_by("-pk").values_list("pk", flat=True)[KEPT_EACH:])
    LayoutResult.objects.filter(pk__in=old).delete()


# --- reading --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Figure:
    """A median with its 95 % bounds; None is unknown."""

    p50: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """What was measured of a layout last; `stale` says what changed since, '' is nothing.

    `answer_check` is one of states.Judgement: how its first answer was beside that of the model's
    independent deployment.
    """

    decode_tps: Figure
    prefill_tps: Figure
    first_token_ms: Figure
    total_tps: Figure
    concurrency: int
    joules_per_token: float | None
    mean_watts: float | None
    answer_check: str
    scenario: str
    benchmark: int
    at: datetime
    stale: str = ""
    is_disturbed: bool = False


@dataclass(frozen=True)
class Results:
    """All of a host, read once for many layouts."""

    surroundings: Surroundings
    rows: Mapping[tuple[str, int], LayoutResult]

    def of(self, identity: Identity, concurrency: int = 1) -> Result | None:
        """The newest of this layout with so many users at once."""
        row = self.rows.get((identity.key, concurrency))
        if row is None:
            return None
        return _result(row, changes(row.depends, self.surroundings.depends(identity)))

    def by_users(self, identity: Identity) -> dict[int, Result]:
        """The newest of this layout for each number of users."""
        users = sorted(count for key, count in self.rows if key == identity.key)
        found = {count: self.of(identity, count) for count in users}
        return {count: result for count, result in found.items() if result}


def results_of(host: Host) -> Results:
    """What was measured on the host, the newest of each layout and number of users; what nothing
    disturbed goes before."""
    rows = LayoutResult.objects.filter(host=host).order_by("-is_disturbed", "pk")
    newest = {(row.key, row.concurrency): row for row in rows}
    return Results(Surroundings.of(host), newest)


def _result(row: LayoutResult, stale: str) -> Result:
    decode, prefill, first, total = (Figure(**row.figures[name]) for name in MEASURED)
    return Result(
        decode,
        prefill,
        first,
        total,
        row.concurrency,
        row.joules_per_token,
        row.mean_watts,
        row.answer_check,
        row.scenario,
        row.benchmark,
        row.at,
        stale,
        row.is_disturbed,
    )
