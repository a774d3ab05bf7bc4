"""The only writers of what is desired.

Each write is one transaction; the agent hears of it afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction

from deployments.announce import deployment_changed, nudge
from deployments.engines import get_flavour, reads_gguf
from deployments.engines.flags import allowed_args
from deployments.models import Binding, Deployment, Engine, Model
from deployments.planning.settings import validated
from deployments.services.checks import check_location, check_name, name_taken
from deployments.services.discovery import engine_paths
from deployments.services.plans import Members
from deployments.services.plans import plan_deployment as plan_deployment
from deployments.services.tenancy import check_place
from deployments.states import InstanceState
from gpus.models import Device, Host
from omni.errors import OmniError
from omni.roles import MANAGE_LIBRARY, OPERATE, require

log = logging.getLogger(__name__)


# --- reading --------------------------------------------------------------------------------------
def get_deployment(name: str) -> Deployment:
    """Raises OmniError (not_found)."""
    found = Deployment.objects.filter(name=name).first()
    if found is None:
        known = ", ".join(Deployment.objects.values_list("name", flat=True)[:20]) or "none yet"
        raise OmniError("not_found", f"There is no deployment {name!r}.", f"There are: {known}.")
    return found


def default_engine(host: Host, model: Model | None = None) -> Engine:
    """The first engine that runs and loads the model, GGUF files without one, in the order of
    discovery.

    Raises OmniError (no_engine).
    """
    engine = first_engine(
        Engine.objects.select_related("host").filter(host=host, state=Engine.State.OK), model
    )
    if engine and model and model.is_folder and reads_gguf(engine.flavour):
        text = f"{model.name} is a folder with safetensors, and no engine on this host loads such."
        raise OmniError(
            "no_engine", text, "Name a vLLM or TabbyAPI in OMNI_ENGINES and run `scan`."
        )
    if engine is None:
        fix = "Set OMNI_LLAMA_SERVER to a llama-server binary and run `scan`."
        raise OmniError("no_engine", "No engine that runs is known on this host.", fix)
    return engine


def first_engine(engines: Iterable[Engine], model: Model | None = None) -> Engine | None:
    """The one to take for a model, for GGUF files without one; one that cannot load it where there
    is no other."""
    found = {str(path): place for place, path in enumerate(engine_paths())}
    # An external server loads nothing of ours.
    engines = [engine for engine in engines if not engine.is_external]
    wants_gguf = not (model and model.is_folder)
    return min(
        engines,
        key=lambda e: (reads_gguf(e.flavour) != wants_gguf, found.get(e.path, len(found)), e.pk),
        default=None,
    )


def default_device(host: Host, engine: Engine | None = None) -> Device:
    """The first accelerator: CUDA and its like before RPC before the CPU, of those the engine can
    compute on.

    Of several alike the first that no running deployment uses. Raises OmniError (no_device).
    """
    devices = list(Device.objects.filter(host=host, is_present=True))
    kind = get_flavour(engine.flavour).device_kind(engine.build) if engine else ""
    devices = [device for device in devices if device.kind == kind] or devices
    if not devices:
        raise OmniError(
            "no_device", "No device is known on this host.", "Start the agent; it looks for them."
        )
    rank = {Device.Kind.CPU: 2, Device.Kind.RPC: 1}
    used = devices_in_use(host)

    def place(device: Device) -> tuple[int, bool, int, str]:
        return (
            rank.get(Device.Kind(device.kind), 0),
            device.name in used,
            device.position,
            device.name,
        )

    return min(devices, key=place)


def devices_in_use(host: Host) -> set[str]:
    """The devices of the deployments that are to run."""
    running = Deployment.objects.filter(
        host=host, desired=Deployment.Desired.RUNNING, is_deleting=False
    )
    devices = running.values_list("bindings__devices", flat=True)
    return {name for names in devices for name in names or ()}


# --- deployments ----------------------------------------------------------------------------------
def deployment_create(
    *,
    name: str,
    strategy: str,
    engine: Engine,
    members: Members,
    settings: Mapping[str, object],
    extra_args: Sequence[str] = (),
    remote_model: str = "",
    user: Any = None,
) -> Deployment:
    """A stopped deployment. Raises OmniError that names the field; then nothing is kept.

    On an external server there are no members: `remote_model` is the name of the model there.
    """
    require(user, OPERATE)
    check_name(name)
    check_location(strategy, engine, members, remote_model, settings, extra_args)
    allowed_args(extra_args)
    try:
        with transaction.atomic():
            deployment = Deployment.objects.create(
                host=engine.host,
                name=name,
                strategy=strategy,
                engine=engine,
                remote_model=remote_model,
                settings=validated(settings),
                extra_args=list(extra_args),
                created_by=user,
            )
            _bind(deployment, members)
            _announce(deployment)
    except IntegrityError:
        raise name_taken(name) from None
    _note("%s created deployment %s", user or "somebody", name)
    return deployment


def deployment_change(
    *,
    deployment: Deployment,
    strategy: str | None = None,
    engine: Engine | None = None,
    members: Members | None = None,
    settings: Mapping[str, object] | None = None,
    extra_args: Sequence[str] | None = None,
    remote_model: str | None = None,
    user: Any = None,
) -> Deployment:
    """Changes what is given; one that runs is started again. Raises OmniError that names the
    field."""
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment)
        row.strategy = strategy or row.strategy
        row.engine = engine or row.engine
        row.remote_model = row.remote_model if remote_model is None else remote_model
        if members is not None or row.engine.is_external or row.is_external:
            check_location(
                row.strategy,
                row.engine,
                members or {},
                row.remote_model,
                row.settings if settings is None else settings,
                row.extra_args if extra_args is None else extra_args,
            )
        if members is not None or row.engine.is_external:
            row.bindings.all().delete()
            _bind(row, members or {})
        if extra_args is not None:
            allowed_args(extra_args)
            row.extra_args = list(extra_args)
        row.settings = row.settings if settings is None else validated(settings)
        row.generation += 1
        row.ends_now = False
        row.error = row.error_code = ""
        row.save()
        _announce(row)
    _note("%s changed deployment %s", user or "somebody", row.name)
    return row


def deployment_start(*, deployment: Deployment, again: bool = False, user: Any = None) -> bool:
    """Wants it running and loaded; one that has failed is tried again.

    False: it was wanted already, nothing changed.

    `again`: one that runs with another file than the one that lies there now is started with that.

    Raises OmniError (place_taken) when others are in its way that it may not unload.
    """
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment)
        given_up = row.instances.filter(
            generation=row.generation, state=InstanceState.FAILED
        ).exists()
        restarts = row.desired != Deployment.Desired.RUNNING or bool(row.error) or given_up or again
        changed = restarts or row.is_unloaded
        if changed:
            check_place(row)
            row.desired = Deployment.Desired.RUNNING
            row.generation += 1 if restarts else 0
            row.error = row.error_code = row.unloaded_why = ""
            row.is_unloaded = row.ends_now = False
            row.save()
            _note("%s started deployment %s", user or "somebody", row.name)
        _announce(row)
    return changed


def deployment_stop(*, deployment: Deployment, now: bool = False, user: Any = None) -> None:
    """Wants it stopped, whatever it is doing.

    `now`: answers in progress are cut and not waited for.
    """
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment, deleting_too=True)
        row.desired = Deployment.Desired.STOPPED
        row.error = row.error_code = row.unloaded_why = ""
        row.is_unloaded, row.ends_now = False, now
        row.save()
        _announce(row)
    log.info("%s stopped deployment %s%s", user or "somebody", row.name, " at once" if now else "")


def deployment_delete(*, deployment: Deployment, user: Any = None) -> None:
    """Wants it gone: the agent removes the row once its processes are gone.

    Raises OmniError (in_use).
    """
    require(user, OPERATE)
    with transaction.atomic():
        row = _locked(deployment, deleting_too=True)
        if routes := list(row.routes.values_list("name", flat=True)):
            text = f"The deployment {row.name} is the target of the routes {', '.join(routes)}."
            raise OmniError("in_use", text, "Point the routes elsewhere or delete them first.")
        row.desired = Deployment.Desired.STOPPED
        row.is_deleting, row.is_unloaded = True, False
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
        raise OmniError("in_use", text, "Delete the deployments first, or give them another model.")
    log.info("%s removed model %s", user or "somebody", model.name)
    model.delete()


# --- writing --------------------------------------------------------------------------------------
def _locked(deployment: Deployment, *, deleting_too: bool = False) -> Deployment:
    """The row as it is now, held until the transaction ends."""
    row = Deployment.objects.select_for_update().filter(pk=deployment.pk).first()
    if row is None:
        raise OmniError(
            "not_found", f"The deployment {deployment.name} is gone.", "Look at the list."
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
