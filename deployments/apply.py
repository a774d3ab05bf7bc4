"""Makes what a rig file says, all of it or nothing, or only says what that would change."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from deployments import services
from deployments.discovery import ensure_devices, local_host, local_host_name
from deployments.engines.external_plan import STRATEGY, check_remote
from deployments.engines.external_probe import allowed_address
from deployments.engines.probe import examine
from deployments.export import placed, rig_text
from deployments.library import announce, describe_file
from deployments.models import Deployment, Engine, Model, Route
from deployments.planning.plan import Plan, Verdict
from deployments.plans import Members, plan, plan_external
from deployments.rig import Entry, Problem, Rig, RigDeployment, RigEngine, RigError, RigRoute, parse
from deployments.rig_rights import refusals
from gpus.discovery import discover_devices
from gpus.models import Host
from omni.errors import OmniError

# Which key of a deployment an error is about.
KEY_OF = {
    "unknown_flag": "extra_args",
    "bad_extra_arg": "extra_args",
    "engine_unusable": "engine",
    "engine_not_probed": "engine",
    "no_engine": "engine",
    "wrong_format": "engine",
    "bad_name": "name",
    "name_taken": "name",
    "bad_setting": "settings",
}


@dataclass
class Wanted:
    """A rig file with every name in it resolved. Rows that are new are not saved yet."""

    host: Host
    text: str
    rig: Rig
    engines: dict[str, Engine] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)

    def members(self, entry: RigDeployment, engine: Engine) -> Members:
        """None on an external server: its models are not of the library."""
        if engine.is_external:
            return {}
        return {role: (self.models[name], entry.devices[role]) for role, name in entry.models.items()}

    def engine(self, entry: RigDeployment) -> Engine:
        """By name, else the first of that flavour, else the first that fits. Raises OmniError (no_engine)."""
        if entry.engine in self.engines:
            return self.engines[entry.engine]
        known = [e for e in self.engines.values() if e.state == Engine.State.OK and e.flavour == entry.engine]
        if not entry.engine:
            default = [e for e in self.engines.values() if e.state == Engine.State.OK and not e.is_external]
            if not _any_saved(default):
                return _first(default, "runs")
            named = [self.models[name] for name in entry.models.values() if name in self.models]
            return services.default_engine(self.host, next(iter(named), None))
        return _first(known, f"is named {entry.engine!r} or is of that flavour")


def _any_saved(engines: list[Engine]) -> bool:
    return any(engine.pk for engine in engines)


def _first(engines: list[Engine], what: str) -> Engine:
    if not engines:
        raise OmniError("no_engine", f"There is no engine that {what}.", "Run `scan`, or add it to the file.")
    return engines[0]


# --- looking --------------------------------------------------------------------------------------
def resolve(text: str, user: Any = None) -> Wanted:
    """Reads the file, asks its engines and models, and plans its deployments; changes nothing.

    Raises RigError with every mistake and its line, or with every line that this user may not change.
    """
    wanted = Wanted(local_host(), text, parse(text))
    ensure_devices(wanted.host)
    if refused := list(refusals(wanted.rig, wanted.host, user)):
        raise RigError(refused)
    problems = [*_resolve_engines(wanted), *_resolve_models(wanted)]
    for entry in wanted.rig.deployments:
        found = list(_deployment_problems(wanted, entry))
        problems += found or _plan_problems(wanted, entry)
    problems += _route_problems(wanted)
    if problems:
        raise RigError(problems)
    return wanted


def _resolve_engines(wanted: Wanted) -> Iterator[Problem]:
    wanted.engines = {engine.name: engine for engine in Engine.objects.filter(host=wanted.host)}
    for entry in wanted.rig.engines:
        if elsewhere := Engine.objects.filter(name=entry.name).exclude(host=wanted.host).first():
            text = f"The name {entry.name} belongs to an engine of the host {elsewhere.host}."
            yield Problem(entry.line("name"), text)
            continue
        engine = wanted.engines.get(entry.name) or Engine(host=wanted.host, name=entry.name)
        same_path = Engine.objects.filter(host=wanted.host, path=entry.path).exclude(name=entry.name).first()
        if same_path:
            text = f"The engine at {entry.path} is known as {same_path.name} already."
            yield Problem(entry.line("path"), text)
            continue
        engine.path, engine.flavour = entry.path, entry.flavour
        wanted.engines[entry.name] = engine
        if engine.is_external:
            yield from _server_problems(engine, entry)
            continue
        examine(engine)
        if engine.state != Engine.State.OK:
            yield Problem(entry.line("path"), engine.error)


def _server_problems(engine: Engine, entry: RigEngine) -> Iterator[Problem]:
    """Only of its address: a server that is away at this moment is no mistake in the file."""
    try:
        engine.path = allowed_address(entry.path)
    except OmniError as error:
        yield Problem(entry.line("path"), str(error))
        return
    twin = Engine.objects.filter(host=engine.host, path=engine.path).exclude(name=engine.name).first()
    if twin:
        yield Problem(entry.line("path"), f"The engine at {engine.path} is known as {twin.name} already.")
    examine(engine)


def _resolve_models(wanted: Wanted) -> Iterator[Problem]:
    wanted.models = {model.name: model for model in Model.objects.all()}
    by_path = {model.path: model for model in wanted.models.values()}
    for entry in wanted.rig.models:
        # A folder may be written with a slash at its end.
        path = str(Path(entry.path))
        named, placed = wanted.models.get(entry.name), by_path.get(path)
        if named and placed and named.pk != placed.pk:
            text = f"{entry.path} is known as {placed.name}, and {entry.name} is another model."
            yield Problem(entry.line("name"), text)
            continue
        model = placed or named or Model()
        model.name, model.path = entry.name, path
        wanted.models[entry.name] = describe_file(model, Path(path))
        if model.state != Model.State.OK:
            yield Problem(entry.line("path"), model.error)


def _deployment_problems(wanted: Wanted, entry: RigDeployment) -> Iterator[Problem]:
    """Names that lead nowhere, and roles without a place."""
    devices = set(wanted.host.devices.values_list("name", flat=True))
    is_remote = _is_remote(wanted, entry)
    for role, name in entry.models.items() if not is_remote else ():
        if role not in entry.devices:
            yield Problem(_role_line(entry, "devices", role), f"The role {role} has no device; CPU is one too.")
        if name not in wanted.models:
            yield Problem(_role_line(entry, "models", role), f"There is no model {name!r}.")
    for role, names in entry.devices.items():
        for name in (name for name in names if name not in devices):
            text = f"There is no device {name!r}; there are {', '.join(sorted(devices)) or 'none'}."
            yield Problem(_role_line(entry, "devices", role), text)
    if Route.objects.filter(name=entry.name).exists() or entry.name in services.RESERVED_NAMES:
        yield Problem(entry.line("name"), f"The name {entry.name!r} is taken or has another meaning.")
    known = Deployment.objects.filter(name=entry.name).first()
    if known and known.is_deleting:
        yield Problem(entry.line("name"), f"The deployment {entry.name} is being deleted; try again in a moment.")
    elif known and known.host_id != wanted.host.pk:
        yield Problem(entry.line("name"), f"The name {entry.name} belongs to a deployment of the host {known.host}.")


def _is_remote(wanted: Wanted, entry: RigDeployment) -> bool:
    try:
        return wanted.engine(entry).is_external
    except OmniError:
        return False  # what is wrong with the engine is said where it is planned


def _role_line(entry: Entry, key: str, role: str) -> int:
    return entry.lines.get(f"{key}.{role}", entry.line(key))


def _plan_problems(wanted: Wanted, entry: RigDeployment) -> list[Problem]:
    try:
        engine = wanted.engine(entry)
        if engine.is_external:
            return _remote_problems(wanted, entry, engine)
        services.check_formats(engine, (model for model, _ in wanted.members(entry, engine).values()))
        wanted.plans[entry.name] = plan(
            host=wanted.host,
            name=entry.name,
            strategy=entry.strategy,
            engine=engine,
            members=wanted.members(entry, engine),
            settings=entry.settings,
            extra_args=entry.extra_args,
        )
    except OmniError as error:
        # A device that is not served at this moment is no mistake in the file.
        return [] if error.retry else [Problem(entry.line(KEY_OF.get(error.code, "")), str(error))]
    return []


def _remote_problems(wanted: Wanted, entry: RigDeployment, engine: Engine) -> list[Problem]:
    """Of a deployment on an external server. Raises OmniError as check_remote does, but for the strategy: what that
    one says is the plan's verdict."""
    if entry.devices:
        text = f"{engine.name} is an external server: it has no devices of this machine."
        return [Problem(entry.line("devices"), text)]
    model = _remote_model(entry, engine)
    if entry.strategy == STRATEGY:
        check_remote(entry.strategy, model, entry.settings, entry.extra_args)
    wanted.plans[entry.name] = plan_external(engine, entry.strategy, model, entry.settings, entry.extra_args)
    return []


def _remote_model(entry: RigDeployment, engine: Engine) -> str:
    return next(iter(entry.models.values()), "") if engine.is_external else ""


def _route_problems(wanted: Wanted) -> Iterator[Problem]:
    deployments = {entry.name for entry in wanted.rig.deployments}
    known = deployments | set(Deployment.objects.filter(is_deleting=False).values_list("name", flat=True))
    for route in wanted.rig.routes:
        if route.deployment not in known:
            yield Problem(route.line("deployment"), f"There is no deployment {route.deployment!r}.")
        if route.name in known or route.name == "auto":
            yield Problem(route.line("name"), f"The name {route.name!r} is taken or has another meaning.")


# --- changing -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """One sentence for each change, and the exported rig before and after as a unified diff."""

    changes: list[str]
    diff: str
    # Of the file and what it changes: whoever agrees to an outcome names it by this.
    digest: str


def apply(text: str, *, user: Any = None, start: bool = False, expected: str = "") -> Outcome:
    """Makes engines, models, deployments and routes as the file says; what it leaves out stays as it is.

    `expected` is the digest of the outcome that somebody agreed to. Raises RigError, or OmniError (changed_meanwhile)
    when it would be another one; then nothing is changed.
    """
    wanted = resolve(text, user)
    with transaction.atomic():
        outcome = _made(wanted, user, start)
        if expected and outcome.digest != expected:
            said = "The file or the rig is another than when the changes were shown."
            raise OmniError("changed_meanwhile", said, "Look at what it would change now. Nothing was changed.")
    return outcome


def preview(text: str, *, user: Any = None, start: bool = False) -> Outcome:
    """What apply() would change, found out by doing it and taking it back. Raises RigError."""
    was_looked_at = Host.objects.filter(name=local_host_name(), devices__isnull=False).exists()
    # Programs are asked before the transaction, which keeps everybody else from writing.
    wanted = resolve(text, user) if was_looked_at else None
    with transaction.atomic():
        if wanted is None:
            discover_devices(local_host())
        outcome = _made(wanted or resolve(text, user), user, start)
        transaction.set_rollback(True)
    return outcome


def _made(wanted: Wanted, user: Any, start: bool) -> Outcome:
    if refused := list(_refused_strategies(wanted)):
        raise RigError(refused)
    before = rig_text(wanted.host)
    changes: list[str] = []
    for engine in wanted.rig.engines:
        changes += _saved("engine", wanted.engines[engine.name], ("path", "flavour"))
    for model in wanted.rig.models:
        changes += _saved("model", wanted.models[model.name], ("name", "path"))
    for entry in wanted.rig.deployments:
        changes += _apply_deployment(wanted, entry, user, start)
    for route in wanted.rig.routes:
        changes += _apply_route(route)
    if changes:
        transaction.on_commit(announce)
    digest = hashlib.sha256(json.dumps([wanted.text, changes]).encode()).hexdigest()
    return Outcome(changes, _diff(before, rig_text(wanted.host)), digest)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "rig now", "rig after", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _refused_strategies(wanted: Wanted) -> Iterator[Problem]:
    """Unlike devices that may yet become free, an external server will never take a strategy."""
    for entry in wanted.rig.deployments:
        if _is_remote(wanted, entry) and wanted.plans[entry.name].verdict == Verdict.NOT_VIABLE:
            (reason,) = wanted.plans[entry.name].reasons
            yield Problem(entry.line("strategy"), f"{reason.text} {reason.fix}")


def _saved(kind: str, row: Engine | Model, keys: tuple[str, ...]) -> list[str]:
    before = type(row).objects.filter(pk=row.pk).values(*keys).first() if row.pk else None
    row.save()
    if before is None:
        return [f"{kind} {row.name} added"]
    changed = [f"{key} {before[key]} → {getattr(row, key)}" for key in keys if before[key] != getattr(row, key)]
    return [f"{kind} {row.name} changed: {', '.join(changed)}"] if changed else []


def _apply_deployment(wanted: Wanted, entry: RigDeployment, user: Any, start: bool) -> list[str]:
    found = Deployment.objects.filter(name=entry.name).first()
    engine = wanted.engine(entry) if entry.engine or found is None else found.engine
    values: dict[str, Any] = {
        "strategy": entry.strategy,
        "engine": engine,
        "members": wanted.members(entry, engine),
        "remote_model": _remote_model(entry, engine),
        "settings": entry.settings,
        "extra_args": list(entry.extra_args),
    }
    if found is None:
        found = services.deployment_create(name=entry.name, user=user, **values)
        changes = [f"deployment {entry.name} added"]
    else:
        changes = [f"deployment {entry.name}: {text}" for text in _differences(found, entry, engine)]
        if changes:
            services.deployment_change(deployment=found, user=user, **values)
    if start and services.deployment_start(deployment=found, user=user):
        changes.append(f"deployment {entry.name} started")
    return changes


def _differences(found: Deployment, entry: RigDeployment, engine: Engine) -> list[str]:
    old_models, old_devices = placed(found)
    pairs: dict[str, tuple[Any, Any]] = {
        "strategy": (found.strategy, entry.strategy),
        "engine": (found.engine.name, engine.name),
        "extra_args": (list(found.extra_args), list(entry.extra_args)),
    }
    for role in {*old_models, *entry.models}:
        pairs[f"{role} model"] = (old_models.get(role), entry.models.get(role))
        pairs[f"{role} devices"] = (list(old_devices.get(role, ())), list(entry.devices.get(role, ())))
    for key in {*found.settings, *entry.settings}:
        pairs[key] = (found.settings.get(key, "default"), entry.settings.get(key, "default"))
    return [f"{key} {_shown(old)} → {_shown(new)}" for key, (old, new) in sorted(pairs.items()) if old != new]


def _shown(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _apply_route(entry: RigRoute) -> list[str]:
    target = Deployment.objects.get(name=entry.deployment)
    values = {"deployment": target, "description": entry.description}
    found = Route.objects.filter(name=entry.name).first()
    if found and (found.deployment_id, found.description) == (target.pk, values["description"]):
        return []
    Route.objects.update_or_create(name=entry.name, defaults=values)
    return [f"route {entry.name} → {entry.deployment} {'changed' if found else 'added'}"]
