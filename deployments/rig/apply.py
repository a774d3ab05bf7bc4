"""Makes what a rig file says, all of it or nothing, or only says what that would change."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from deployments.announce import library_changed
from deployments.models import Deployment, Engine, Model, Route
from deployments.planning.plan import Verdict
from deployments.rig.export import placed, rig_text
from deployments.rig.together import not_together
from deployments.rig.wanted import Wanted, external_model, is_external, resolve
from deployments.rig.words import Problem, RigDeployment, RigError, RigRoute
from deployments.services.deployments import (
    deployment_change,
    deployment_create,
    deployment_start,
)
from deployments.services.discovery import local_host, local_host_name
from deployments.services.readiness import Overtaken, Ready, step_of, until_it_holds
from deployments.services.tenancy import Occupied, held, holders_now, place_taken, swaps
from gpus.discovery import discover_devices
from gpus.models import Host
from omni.errors import OmniError


@dataclass(frozen=True)
class Outcome:
    """One sentence for each change, and the exported rig before and after as a unified diff."""

    changes: list[str]
    diff: str
    # Of the file and what it changes: whoever agrees to an outcome names it by this.
    digest: str
    # What the file asks for that cannot all be at the same time.
    warnings: tuple[str, ...] = ()


def apply(
    text: str, *, user: Any = None, start: bool = False, expected: str = ""
) -> Outcome:
    """Makes engines, models, deployments and routes as the file says; what it leaves out stays as
    it is.

    `expected` is the digest of the outcome that somebody agreed to. Raises RigError, or OmniError
    (changed_meanwhile) when it would be another one; then nothing is changed.
    """

    def attempt() -> Outcome:
        wanted = resolve(text, user)
        taken = held(wanted.host)
        with transaction.atomic():
            _check_still(taken, wanted)
            outcome = _made(wanted, taken, user, start)
            if expected and outcome.digest != expected:
                said = (
                    "The file or the rig is another than when the changes were shown."
                )
                fix = "Look at what it would change now. Nothing was changed."
                raise OmniError("changed_meanwhile", said, fix)
        return outcome

    return until_it_holds(attempt)


def _check_still(taken: Occupied, wanted: Wanted) -> None:
    """Raises Overtaken when others hold memory now than when it was looked at, or when a deployment
    has got another engine, of which the file says nothing."""
    kept = [entry for entry in wanted.rig.deployments if not entry.engine]
    now = dict(Deployment.objects.values_list("name", "engine"))
    has_other = any(now.get(e.name) not in (None, wanted.engine(e).pk) for e in kept)
    if has_other or holders_now(wanted.host) - taken.seen:
        raise Overtaken("The rig")


def preview(text: str, *, user: Any = None, start: bool = False) -> Outcome:
    """What apply() would change, found out by doing it and taking it back. Raises RigError."""
    was_looked_at = Host.objects.filter(
        name=local_host_name(), devices__isnull=False
    ).exists()
    # Programs are asked before the transaction, which keeps everybody else from writing.
    wanted = resolve(text, user) if was_looked_at else None
    taken = held(wanted.host) if wanted else None
    with transaction.atomic():
        if wanted is None or taken is None:
            discover_devices(local_host())
            wanted = resolve(text, user)
            taken = held(wanted.host)
        outcome = _made(wanted, taken, user, start)
        transaction.set_rollback(True)
    return outcome


def _made(wanted: Wanted, taken: Occupied, user: Any, start: bool) -> Outcome:
    """`taken` is who holds memory, looked at before: here nothing is planned any more."""
    refused = list(_refused_strategies(wanted))
    if refused:
        raise RigError(refused)
    before = rig_text(wanted.host)
    changes: list[str] = []
    for engine in wanted.rig.engines:
        changes += _saved("engine", wanted.engines[engine.name], ("path", "flavour"))
    for model in wanted.rig.models:
        changes += _saved("model", wanted.models[model.name], ("name", "path"))
    for entry in wanted.rig.deployments:
        said, taken = _apply_deployment(wanted, taken, entry, user)
        changes += said
        changes += _started(wanted, taken, entry, user) if start else ()
    for route in wanted.rig.routes:
        changes += _apply_route(route)
    if changes:
        transaction.on_commit(library_changed)
    digest = hashlib.sha256(json.dumps([wanted.text, changes]).encode()).hexdigest()
    warnings = tuple(crowd.text for crowd in not_together(wanted))
    return Outcome(changes, _diff(before, rig_text(wanted.host)), digest, warnings)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "rig now", "rig after", lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)


def _refused_strategies(wanted: Wanted) -> Iterator[Problem]:
    """Unlike devices that may yet become free, an external server will never take a strategy."""
    for entry in wanted.rig.deployments:
        if (
            is_external(wanted, entry)
            and wanted.plans[entry.name].verdict == Verdict.NOT_VIABLE
        ):
            (reason,) = wanted.plans[entry.name].reasons
            yield Problem(entry.line("strategy"), f"{reason.text} {reason.fix}")


def _saved(kind: str, row: Engine | Model, keys: tuple[str, ...]) -> list[str]:
    if row.pk:
        before = type(row).objects.filter(pk=row.pk).values(*keys).first()
    else:
        before = None
    row.save()
    if before is None:
        return [f"{kind} {row.name} added"]
    changed = [
        f"{key} {before[key]} → {getattr(row, key)}"
        for key in keys
        if before[key] != getattr(row, key)
    ]
    if changed:
        return [f"{kind} {row.name} changed: {', '.join(changed)}"]
    return []


def _apply_deployment(
    wanted: Wanted, taken: Occupied, entry: RigDeployment, user: Any
) -> tuple[list[str], Occupied]:
    """What is said of it, and who holds what afterwards."""
    found = Deployment.objects.filter(name=entry.name).first()
    engine = wanted.engine(entry)
    values: dict[str, Any] = {
        "strategy": entry.strategy,
        "engine": engine,
        "members": wanted.members(entry, engine),
        "external_model": external_model(entry, engine),
        "settings": entry.settings,
        "extra_args": list(entry.extra_args),
        "purposes": list(entry.purposes),
    }
    if found is None:
        deployment_create(name=entry.name, user=user, **values)
        return [f"deployment {entry.name} added"], taken
    changes = [
        f"deployment {entry.name}: {text}"
        for text in _differences(found, entry, engine)
    ]
    if changes:
        planned = wanted.planned.get(entry.name)
        deployment_change(deployment=found, user=user, ready=Ready(planned), **values)
        taken = taken.changed(entry.name, wanted.plans.get(entry.name), entry.settings)
    return changes, taken


def _started(
    wanted: Wanted, taken: Occupied, entry: RigDeployment, user: Any
) -> list[str]:
    """Raises OmniError (place_taken) when others are in its way that it may not unload."""
    found = Deployment.objects.select_related("engine").get(name=entry.name)
    if not step_of(found, again=False).changes:
        return []
    plan = wanted.plans.get(entry.name)
    if swaps(found):
        rivals = []
    else:
        rivals = taken.in_the_way_of(plan, entry.name, entry.settings)
    if rivals:
        raise place_taken(entry.name, rivals)
    deployment_start(
        deployment=found, user=user, ready=Ready(wanted.planned.get(entry.name))
    )
    return [f"deployment {entry.name} started"]


def _differences(found: Deployment, entry: RigDeployment, engine: Engine) -> list[str]:
    old_models, old_devices = placed(found)
    pairs: dict[str, tuple[Any, Any]] = {
        "strategy": (found.strategy, entry.strategy),
        "engine": (found.engine.name, engine.name),
        "extra_args": (list(found.extra_args), list(entry.extra_args)),
        "purposes": (list(found.purposes), list(entry.purposes)),
    }
    for role in {*old_models, *entry.models}:
        pairs[f"{role} model"] = (old_models.get(role), entry.models.get(role))
        pairs[f"{role} devices"] = (
            list(old_devices.get(role, ())),
            list(entry.devices.get(role, ())),
        )
    for key in {*found.settings, *entry.settings}:
        pairs[key] = (
            found.settings.get(key, "default"),
            entry.settings.get(key, "default"),
        )
    return [
        f"{key} {_shown(old)} → {_shown(new)}"
        for key, (old, new) in sorted(pairs.items())
        if old != new
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _apply_route(entry: RigRoute) -> list[str]:
    target = Deployment.objects.get(name=entry.deployment)
    values = {
        "deployment": target,
        "description": entry.description,
        "rules": [dict(rule) for rule in entry.rules],
        "fallbacks": list(entry.fallbacks),
    }
    found = Route.objects.filter(name=entry.name).first()
    if found and all(getattr(found, key) == value for key, value in values.items()):
        return []
    Route.objects.update_or_create(name=entry.name, defaults=values)
    return [
        f"route {entry.name} → {entry.deployment} {'changed' if found else 'added'}"
    ]
