"""What a rig file asks for, with every name in it resolved and every deployment planned; changes
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.external.plan import check_external
from deployments.external.probe import allowed_address
from deployments.library.reading import describe_file
from deployments.models import Deployment, Engine, Model, Route
from deployments.names import HUB, RESERVED
from deployments.planning.plan import Plan
from deployments.planning.roles import PROJECTOR
from deployments.rig.reader import parse
from deployments.rig.rights import refusals
from deployments.rig.words import (
    Entry,
    Problem,
    Rig,
    RigDeployment,
    RigEngine,
    RigError,
    RigRoute,
)
from deployments.services.checks import check_formats, not_downloaded
from deployments.services.defaults import default_engine
from deployments.services.discovery import ensure_devices, local_host
from deployments.services.engines import examine
from deployments.services.plans import Members, Setup, holds_memory, plan_external
from deployments.services.stored_plans import Planned, make
from deployments.states import DEFAULT_STRATEGY
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
    "bad_purpose": "purposes",
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
    # The same as they are stored; what others run is only looked at.
    planned: dict[str, Planned] = field(default_factory=dict)
    _chosen: dict[str, Engine] = field(default_factory=dict)

    def members(self, entry: RigDeployment, engine: Engine) -> Members:
        """None on an external server: its models are not of the library."""
        if engine.is_external:
            return {}
        return {
            role: (self.models[name], entry.devices.get(role, ()))
            for role, name in entry.models.items()
        }

    def engine(self, entry: RigDeployment) -> Engine:
        """By name, else the one that it has, else the first of that flavour, else the first that
        fits; found out once.

        Raises OmniError (no_engine).
        """
        if entry.name not in self._chosen:
            self._chosen[entry.name] = self._engine(entry)
        return self._chosen[entry.name]

    def _engine(self, entry: RigDeployment) -> Engine:
        if entry.engine in self.engines:
            return self.engines[entry.engine]
        known = [
            e
            for e in self.engines.values()
            if e.state == Engine.State.OK and e.flavour == entry.engine
        ]
        if entry.engine:
            return _first(known, f"is named {entry.engine!r} or is of that flavour")
        has = Deployment.objects.filter(name=entry.name, host=self.host).select_related(
            "engine"
        )
        found = has.first()
        if found:
            return self.engines.get(found.engine.name, found.engine)
        default = [
            e
            for e in self.engines.values()
            if e.state == Engine.State.OK and not e.is_external
        ]
        if not _any_saved(default):
            return _first(default, "runs")
        named = [
            self.models[name]
            for role, name in entry.models.items()
            if name in self.models and role != PROJECTOR
        ]
        return default_engine(self.host, next(iter(named), None))


def _any_saved(engines: list[Engine]) -> bool:
    return any(engine.pk for engine in engines)


def _first(engines: list[Engine], what: str) -> Engine:
    if not engines:
        raise OmniError(
            "no_engine",
            f"There is no engine that {what}.",
            "Run `scan`, or add it to the file.",
        )
    return engines[0]


def resolve(text: str, user: Any = None, *, asks_hub: bool = False) -> Wanted:
    """Reads the file, asks its engines and models, and plans its deployments; changes nothing.

    Models at a hub (services/hub_models.py) are looked up where it may be asked: they can be
    planned, and are a mistake in a file that is to be applied. Raises RigError with every mistake
    and its line, or with every line that this user may not change.
    """
    wanted = Wanted(local_host(), text, parse(text))
    ensure_devices(wanted.host)
    refused = list(refusals(wanted.rig, wanted.host, user))
    if refused:
        raise RigError(refused)
    problems = [
        *_resolve_engines(wanted),
        *_resolve_models(wanted),
        *_resolve_hub_models(wanted, asks_hub),
    ]
    for entry in wanted.rig.deployments:
        found = list(_deployment_problems(wanted, entry))
        if not found and _has_its_models(wanted, entry):
            found = _plan_problems(wanted, entry)
        problems += found
    problems += _route_problems(wanted)
    if problems:
        raise RigError(problems)
    return wanted


def _has_its_models(wanted: Wanted, entry: RigDeployment) -> bool:
    names = entry.models.values()
    return is_external(wanted, entry) or all(name in wanted.models for name in names)


def _resolve_engines(wanted: Wanted) -> Iterator[Problem]:
    wanted.engines = {
        engine.name: engine for engine in Engine.objects.filter(host=wanted.host)
    }
    for entry in wanted.rig.engines:
        elsewhere = (
            Engine.objects.filter(name=entry.name).exclude(host=wanted.host).first()
        )
        if elsewhere:
            text = f"The name {entry.name} belongs to an engine of the host {elsewhere.host}."
            yield Problem(entry.line("name"), text)
            continue
        engine = wanted.engines.get(entry.name) or Engine(
            host=wanted.host, name=entry.name
        )
        same_path = (
            Engine.objects.filter(host=wanted.host, path=entry.path)
            .exclude(name=entry.name)
            .first()
        )
        if same_path:
            text = f"The engine at {entry.path} is known as {same_path.name} already."
            yield Problem(entry.line("path"), text)
            continue
        engine.path = entry.path
        engine.flavour = entry.flavour
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
    twin = (
        Engine.objects.filter(host=engine.host, path=engine.path)
        .exclude(name=engine.name)
        .first()
    )
    if twin:
        yield Problem(
            entry.line("path"),
            f"The engine at {engine.path} is known as {twin.name} already.",
        )
    examine(engine)


def _resolve_models(wanted: Wanted) -> Iterator[Problem]:
    wanted.models = {model.name: model for model in Model.objects.all()}
    by_path = {model.path: model for model in wanted.models.values()}
    for entry in wanted.rig.models:
        # A folder may be written with a slash at its end.
        path = str(Path(entry.path))
        named = wanted.models.get(entry.name)
        placed = by_path.get(path)
        if named and placed and named.pk != placed.pk:
            text = f"{entry.path} is known as {placed.name}, and {entry.name} is another model."
            yield Problem(entry.line("name"), text)
            continue
        model = placed or named or Model()
        model.name = entry.name
        model.path = path
        wanted.models[entry.name] = describe_file(model, Path(path))
        if model.state != Model.State.OK:
            yield Problem(entry.line("path"), model.error)


def _resolve_hub_models(wanted: Wanted, asks_hub: bool) -> Iterator[Problem]:
    for entry in wanted.rig.deployments:
        for role, name in entry.models.items():
            if not name.startswith(HUB) or is_external(wanted, entry):
                continue
            try:
                _resolve_hub_model(wanted, name, asks_hub)
            except OmniError as error:
                yield Problem(_role_line(entry, "models", role), str(error))


def _resolve_hub_model(wanted: Wanted, name: str, asks_hub: bool) -> None:
    """Raises OmniError, also where the hub is not to be asked."""
    if not asks_hub:
        raise not_downloaded(name)
    # Whoever applies files has no use for the hub's client and its 7 MB.
    from deployments.services.hub_models import ask_engines, hub_model

    wanted.models[name] = hub_model(name)
    ask_engines(wanted.engines.values(), wanted.models[name])


def _deployment_problems(wanted: Wanted, entry: RigDeployment) -> Iterator[Problem]:
    """Names that lead nowhere, and roles without a place."""
    devices = set(wanted.host.devices.values_list("name", flat=True))
    on_a_server = is_external(wanted, entry)
    for role, name in entry.models.items() if not on_a_server else ():
        if role not in entry.devices and role != PROJECTOR:
            yield Problem(
                _role_line(entry, "devices", role),
                f"The role {role} has no device; CPU is one too.",
            )
        # What is wrong with a model at a hub has been said.
        if name not in wanted.models and not name.startswith(HUB):
            yield Problem(
                _role_line(entry, "models", role), f"There is no model {name!r}."
            )
    for role, names in entry.devices.items():
        for name in (name for name in names if name not in devices):
            text = f"There is no device {name!r}; there are {', '.join(sorted(devices)) or 'none'}."
            yield Problem(_role_line(entry, "devices", role), text)
    if (
        Route.objects.filter(name=entry.name).exists()
        or entry.name in RESERVED["deployments"]
    ):
        yield Problem(
            entry.line("name"),
            f"The name {entry.name!r} is taken or has another meaning.",
        )
    known = Deployment.objects.filter(name=entry.name).first()
    if known and known.is_deleting:
        yield Problem(
            entry.line("name"),
            f"The deployment {entry.name} is being deleted; try again in a moment.",
        )
    elif known and known.host_id != wanted.host.pk:
        yield Problem(
            entry.line("name"),
            f"The name {entry.name} belongs to a deployment of the host {known.host}.",
        )


def is_external(wanted: Wanted, entry: RigDeployment) -> bool:
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
            return _external_problems(wanted, entry, engine)
        check_formats(
            engine, (model for model, _ in wanted.members(entry, engine).values())
        )
        planned = make(_setup(wanted, entry, engine), holds=_runs_already(entry))
    except OmniError as error:
        # A device that is not served at this moment is no mistake in the file.
        if error.retry:
            return []
        return [Problem(entry.line(KEY_OF.get(error.code, "")), str(error))]
    wanted.planned[entry.name], wanted.plans[entry.name] = planned, planned.plan
    return []


def _setup(wanted: Wanted, entry: RigDeployment, engine: Engine) -> Setup:
    return Setup(
        wanted.host,
        entry.name,
        entry.strategy,
        engine,
        wanted.members(entry, engine),
        entry.settings,
        entry.extra_args,
    )


def _runs_already(entry: RigDeployment) -> bool:
    found = Deployment.objects.filter(name=entry.name).first()
    return found is not None and holds_memory(found)


def _external_problems(
    wanted: Wanted, entry: RigDeployment, engine: Engine
) -> list[Problem]:
    """Of a deployment on an external server.

    Raises OmniError as check_external does, but for the strategy: what that one says is the plan's
    verdict.
    """
    if entry.devices:
        text = (
            f"{engine.name} is an external server: it has no devices of this machine."
        )
        return [Problem(entry.line("devices"), text)]
    model = external_model(entry, engine)
    if entry.strategy == DEFAULT_STRATEGY:
        check_external(entry.strategy, model, entry.settings, entry.extra_args)
    wanted.plans[entry.name] = plan_external(
        engine, entry.strategy, model, entry.settings, entry.extra_args
    )
    return []


def external_model(entry: RigDeployment, engine: Engine) -> str:
    if engine.is_external:
        return next(iter(entry.models.values()), "")
    return ""


def _route_problems(wanted: Wanted) -> Iterator[Problem]:
    deployments = {entry.name for entry in wanted.rig.deployments}
    known = deployments | set(
        Deployment.objects.filter(is_deleting=False).values_list("name", flat=True)
    )
    for route in wanted.rig.routes:
        if route.deployment not in known:
            yield Problem(
                route.line("deployment"),
                f"There is no deployment {route.deployment!r}.",
            )
        for key, name in _others_of(route):
            if name not in known:
                text = f"There is no deployment {name!r}."
                yield Problem(route.line(key), text)
        if route.name in known or route.name in RESERVED["routes"]:
            yield Problem(
                route.line("name"),
                f"The name {route.name!r} is taken or has another meaning.",
            )


def _others_of(route: RigRoute) -> Iterator[tuple[str, str]]:
    """The deployments that a route's rules and fall-backs name, each with the key it stands in."""
    for rule in route.rules:
        yield from (("rules", name) for name in rule["to"])
    yield from (("fallbacks", name) for name in route.fallbacks)
