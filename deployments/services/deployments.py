"""The only writers of what is desired.

Each write is one transaction; the agent hears of it afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings as django_settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from deployments.advice.purposes import checked_purposes
from deployments.announce import deployment_changed, nudge
from deployments.engines.flags import allowed_args
from deployments.instances.demand import Demand
from deployments.models import Binding, Deployment, Engine, Model
from deployments.planning.settings import validated
from deployments.services.checks import check_location, check_name, name_taken
from deployments.services.plans import Members, Setup, holds_memory, setup_of
from deployments.services.plans import plan_deployment as plan_deployment
from deployments.services.readiness import (
    Ready,
    Step,
    planned_or_none,
    ready_for_new,
    ready_to_start,
    step_of,
    until_it_holds,
)
from omni.errors import OmniError
from omni.roles.rights import MANAGE_LIBRARY, OPERATE, require

log = logging.getLogger(__name__)


# --- reading --------------------------------------------------------------------------------------
def get_deployment(name: str) -> Deployment:
    """Raises OmniError (not_found)."""
    found = Deployment.objects.filter(name=name).first()
    if found is None:
        known = (
            ", ".join(Deployment.objects.values_list("name", flat=True)[:20])
            or "none yet"
        )
        raise OmniError(
            "not_found", f"There is no deployment {name!r}.", f"There are: {known}."
        )
    return found


# --- deployments ----------------------------------------------------------------------------------
def deployment_create(
    *,
    name: str,
    strategy: str,
    engine: Engine,
    members: Members,
    settings: Mapping[str, object],
    extra_args: Sequence[str] = (),
    external_model: str = "",
    purposes: Sequence[str] = (),
    user: Any = None,
) -> Deployment:
    """A stopped deployment. Raises OmniError that names the field; then nothing is kept.

    On an external server there are no members: `external_model` is the name of the model there.
    """
    require(user, OPERATE)
    setup = Setup(
        engine.host,
        name,
        strategy,
        engine,
        members,
        settings,
        extra_args,
        external_model,
    )
    _check_new(setup)
    named = checked_purposes(purposes)
    try:
        with transaction.atomic():
            return _created(setup, user, named)
    except IntegrityError:
        raise name_taken(name) from None


def deployment_launch(setup: Setup, user: Any = None) -> Deployment:
    """Creates a deployment and wants it running, both or neither.

    Raises OmniError as deployment_create and deployment_start do.
    """
    require(user, OPERATE)
    _check_new(setup)

    def attempt() -> Deployment:
        ready = ready_for_new(setup)
        with transaction.atomic():
            made = _created(setup, user)
            ready.check(made)
            _begin(made, Step(is_anew=True, changes=True), ready, user)
            _announce(made)
        return made

    try:
        return until_it_holds(attempt)
    except IntegrityError:
        raise name_taken(setup.name) from None


def _check_new(setup: Setup) -> None:
    check_name(setup.name)
    _check_location(setup)
    allowed_args(setup.extra_args)
    validated(setup.settings)


def _check_location(setup: Setup) -> None:
    check_location(
        setup.strategy,
        setup.engine,
        setup.members,
        setup.external_model,
        setup.settings,
        setup.extra_args,
    )


def _created(setup: Setup, user: Any, purposes: Sequence[str] = ()) -> Deployment:
    made = Deployment.objects.create(
        host=setup.host,
        name=setup.name,
        strategy=setup.strategy,
        engine=setup.engine,
        external_model=setup.external_model,
        settings=validated(setup.settings),
        extra_args=list(setup.extra_args),
        purposes=list(purposes),
        created_by=user,
    )
    _bind(made, setup.members)
    _announce(made)
    _note("%s created deployment %s", user or "somebody", setup.name)
    return made


def deployment_change(
    *,
    deployment: Deployment,
    strategy: str | None = None,
    engine: Engine | None = None,
    members: Members | None = None,
    settings: Mapping[str, object] | None = None,
    extra_args: Sequence[str] | None = None,
    external_model: str | None = None,
    purposes: Sequence[str] | None = None,
    user: Any = None,
    ready: Ready | None = None,
) -> Deployment:
    """Changes what is given; one that runs is started again where its command is another one.
    Raises OmniError that names the field.

    `ready` is what whoever holds a transaction has worked out before it.
    """
    require(user, OPERATE)

    def attempt() -> Deployment:
        row = _current(deployment)
        changed = Setup(
            row.host,
            row.name,
            strategy or row.strategy,
            engine or row.engine,
            _members_after(row, engine, members),
            row.settings if settings is None else validated(settings),
            row.extra_args if extra_args is None else extra_args,
            row.external_model if external_model is None else external_model,
        )
        has_new_members = members is not None or changed.engine.is_external
        if has_new_members or row.is_external:
            _check_location(changed)
        allowed_args(extra_args or ())
        named = row.purposes if purposes is None else checked_purposes(purposes)
        worked_out = ready or _ready_to_change(row, changed)
        with transaction.atomic():
            row = _locked(deployment)
            worked_out.check(row)
            _change(row, changed, named)
            if has_new_members:
                row.bindings.all().delete()
                _bind(row, changed.members)
            if row.desired == Deployment.Desired.RUNNING:
                worked_out.keep(row)
            _announce(row)
        return row

    changed_row = until_it_holds(attempt)
    _note("%s changed deployment %s", user or "somebody", changed_row.name)
    return changed_row


def _members_after(
    row: Deployment, engine: Engine | None, members: Members | None
) -> Members:
    if members is not None or (engine or row.engine).is_external:
        return members or {}
    return setup_of(row).members


def _ready_to_change(row: Deployment, changed: Setup) -> Ready:
    """One that is stopped is planned when it is started."""
    is_planned = (
        row.desired == Deployment.Desired.RUNNING and not changed.engine.is_external
    )
    if is_planned:
        planned = planned_or_none(changed, holds=holds_memory(row))
    else:
        planned = None
    return Ready(planned, row.generation)


def _change(row: Deployment, changed: Setup, purposes: Sequence[str]) -> None:
    row.strategy = changed.strategy
    row.engine = changed.engine
    row.external_model = changed.external_model
    row.settings, row.extra_args = dict(changed.settings), list(changed.extra_args)
    row.purposes = list(purposes)
    row.generation += 1
    row.ends_now = False
    row.error = row.error_code = ""
    row.save()


def deployment_start(
    *,
    deployment: Deployment,
    again: bool = False,
    user: Any = None,
    ready: Ready | None = None,
) -> bool:
    """Wants it running and loaded; one that has failed is tried again.

    False: it was wanted already, nothing changed.

    `again`: one that runs with another file than the one that lies there now is started with that.

    `ready` is what whoever holds a transaction has worked out before it.

    Raises OmniError (place_taken) when others are in its way that it may not unload.
    """
    require(user, OPERATE)

    def attempt() -> bool:
        worked_out = ready or ready_to_start(_current(deployment), again)
        with transaction.atomic():
            row = _locked(deployment)
            step = step_of(row, again)
            if step.changes:
                worked_out.check(row)
                _begin(row, step, worked_out, user)
            _announce(row)
        # A person wants it now: what is in its way is not kept for as long as for requests.
        Demand(django_settings.OMNI_HOME.demand).clear(row.pk)
        return step.changes

    return until_it_holds(attempt)


def _begin(row: Deployment, step: Step, ready: Ready, user: Any) -> None:
    row.desired = Deployment.Desired.RUNNING
    row.generation += 1 if step.is_anew else 0
    row.error = row.error_code = row.unloaded_why = ""
    row.is_unloaded = row.ends_now = False
    row.save()
    ready.keep(row)
    _note("%s started deployment %s", user or "somebody", row.name)


def deployment_stop(
    *, deployment: Deployment, now: bool = False, user: Any = None
) -> None:
    """Wants it stopped, whatever it is doing.

    `now`: answers in progress are cut and not waited for.
    """
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment, deleting_too=True)
        row.desired = Deployment.Desired.STOPPED
        row.error = row.error_code = row.unloaded_why = ""
        row.is_unloaded = False
        row.ends_now = now
        row.save()
        _announce(row)
    log.info(
        "%s stopped deployment %s%s",
        user or "somebody",
        row.name,
        " at once" if now else "",
    )


def deployment_delete(*, deployment: Deployment, user: Any = None) -> None:
    """Wants it gone: the agent removes the row once its processes are gone.

    Raises OmniError (in_use).
    """
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment, deleting_too=True)
        routes = list(row.routes.values_list("name", flat=True))
        if routes:
            text = f"The deployment {row.name} is the target of the routes {', '.join(routes)}."
            raise OmniError(
                "in_use", text, "Point the routes elsewhere or delete them first."
            )
        row.desired = Deployment.Desired.STOPPED
        row.is_deleting = True
        row.is_unloaded = False
        row.save()
        _announce(row)
    log.info("%s deleted deployment %s", user or "somebody", row.name)


def model_delete(*, model: Model, user: Any = None) -> None:
    """Removes it from the library; the file stays.

    Raises OmniError (in_use) that names the deployments.
    """
    require(user, MANAGE_LIBRARY)
    names = list(model.bindings.values_list("deployment__name", flat=True).distinct())
    if names:
        text = f"The model {model.name} is used by {', '.join(names)}."
        raise OmniError(
            "in_use", text, "Delete the deployments first, or give them another model."
        )
    log.info("%s removed model %s", user or "somebody", model.name)
    model.delete()


# --- writing --------------------------------------------------------------------------------------
def _locked(deployment: Deployment, *, deleting_too: bool = False) -> Deployment:
    """The row as it is now, held until the transaction ends."""
    return _found(
        Deployment.objects.select_for_update(), deployment, deleting_too=deleting_too
    )


def _current(deployment: Deployment) -> Deployment:
    """The row as it is now, and may not be any more when something is written."""
    return _found(Deployment.objects.select_related("host", "engine"), deployment)


def _found(
    rows: QuerySet[Deployment], deployment: Deployment, *, deleting_too: bool = False
) -> Deployment:
    row = rows.filter(pk=deployment.pk).first()
    if row is None:
        raise OmniError(
            "not_found",
            f"The deployment {deployment.name} is gone.",
            "Look at the list.",
        )
    if row.is_deleting and not deleting_too:
        raise OmniError(
            "deleting",
            f"The deployment {row.name} is being deleted.",
            "Create it again once it is gone.",
        )
    return row


def _bind(deployment: Deployment, members: Members) -> None:
    Binding.objects.bulk_create(
        Binding(deployment=deployment, role=role, model=model, devices=list(names))
        for role, (model, names) in members.items()
    )


def _note(text: str, *words: object) -> None:
    """In the log once the write holds: what a preview takes back has not happened."""
    transaction.on_commit(lambda: log.info(text, *words))


def _announce(deployment: Deployment) -> None:
    """Once the write holds, every page hears of it and the host's agent acts now, not at its next
    tick."""
    transaction.on_commit(lambda: _tell(deployment))


def _tell(deployment: Deployment) -> None:
    deployment_changed(deployment)
    nudge(deployment.host.name)
