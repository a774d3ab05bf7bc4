"""Pages of deployments: list, creation, one deployment with all that is known of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.conf import settings as django_settings
from django.contrib import messages
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.instances.demand import Demand
from deployments.instances.model_files import serves_old_file
from deployments.models import (
    HELPING_ROLES,
    Deployment,
    Engine,
    Instance,
    Model,
    Transition,
)
from deployments.planning.plan import Plan
from deployments.planning.settings import SETTINGS, with_defaults
from deployments.services import one_click
from deployments.services.defaults import default_device, default_engine, first_engine
from deployments.services.deployments import (
    deployment_delete,
    deployment_start,
    deployment_stop,
    plan_deployment,
)
from deployments.services.discovery import local_host
from deployments.services.effects import effects
from deployments.services.loadable import without_engine
from deployments.services.runnable import command_text, runnable
from deployments.services.speeds import deployment_speeds
from deployments.services.stored_plans import stored_plan
from deployments.services.suggested import suggested_for, suggested_purposes
from deployments.services.waiting import agent_is_running
from deployments.states import InstanceState
from deployments.strategies import STRATEGIES, strategy_title
from deployments.web.deployment_rows import row_figures
from deployments.web.forms import DeploymentForm, typed_so_far
from deployments.web.role_fields import MODEL
from deployments.web.speed_shown import SpeedShown, speed_shown
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, go_to, is_htmx, render_page_or_part

TRANSIENT = (
    InstanceState.STARTING,
    InstanceState.LOADING,
    InstanceState.STOPPING,
    InstanceState.CRASHED,
)
HISTORY_LENGTH = 30


def waiting_requests() -> Counter[int]:
    """How many wait in the gateway's queues, by deployment."""
    return Demand(django_settings.OMNI_HOME.demand).waiting()


# --- list -----------------------------------------------------------------------------------------
@require_GET
def deployments(request: HtmxHttpRequest) -> HttpResponse:
    rows = list(_with_relations(Deployment.objects.all()))
    waiting = waiting_requests()
    context = {
        "deployments": rows,
        "waiting": waiting,
        "figures": row_figures(rows),
        "is_serving": any(row.state == InstanceState.READY for row in rows),
        "in_transit": bool(waiting)
        or any(row.state in TRANSIENT or row.is_deleting for row in rows),
        "agent_runs": agent_is_running(local_host()),
        "has_models": Model.deployable().exists(),
    }
    return _shown(request, "deployments", context)


@require_GET
def quick(request: HtmxHttpRequest) -> HttpResponse:
    """For the Rig page: each model that can run, with the one button that makes it run."""
    offered = Deployment.objects.filter(is_deleting=False, trial_of=None)
    rows = list(_with_relations(offered))
    by_model: dict[int, Deployment] = {}
    for row in rows:
        # What a model only drafts for is another model's.
        for binding in (
            each for each in row.bindings.all() if each.role not in HELPING_ROLES
        ):
            by_model.setdefault(binding.model_id, row)
    models = list(Model.deployable().defer("facts", "shape", "vocab", "shards"))
    lacking = without_engine(models, local_host())
    context = {
        "offers": [
            (model, by_model.get(model.pk), lacking.get(model.pk, ""))
            for model in models
        ],
        "in_transit": any(row.state in TRANSIENT for row in rows),
    }
    return render(request, "deployments/_quick.html", context)


# --- one ------------------------------------------------------------------------------------------
@require_GET
def deployment(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = _with_relations(Deployment.objects.filter(name=name)).first()
    if found is None:
        if not is_htmx(request):
            raise Http404
        # Its row went away while the page was open: it has been deleted.
        messages.success(request, f"{name} is deleted.")
        return go_to(request, "deployments:deployments")
    return _shown(request, "deployment", _details(found))


@dataclass(frozen=True)
class CommandShown:
    role: str
    text: str


def _details(found: Deployment) -> dict[str, Any]:
    plan, plan_error = _planned(found)
    strategy = STRATEGIES.get(found.strategy)
    transitions = Transition.objects.filter(instance__deployment=found).select_related(
        "instance"
    )
    state = found.state
    waiting = waiting_requests()[found.pk]
    return {
        "deployment": found,
        "state": state,
        "waiting": waiting,
        "in_transit": state in TRANSIENT or found.is_deleting or waiting > 0,
        "instances": list(found.instances.all()),
        "replaced": any(
            serves_old_file(instance) for instance in found.instances.all()
        ),
        "failed_instances": [i for i in found.instances.all() if i.error],
        "plan": plan,
        "speed": _speed(found, plan),
        "plan_error": plan_error,
        "commands": _commands(found, plan),
        "history": transitions[:HISTORY_LENGTH],
        "strategy": strategy,
        "strategy_title": strategy_title(found.strategy),
        # An external server keeps its log to itself.
        "roles": strategy.roles if strategy and not found.is_external else (),
        "bindings": list(found.bindings.all()),
        "settings": _settings_shown(found),
        "suggested": () if found.purposes else suggested_for(found),
        "agent_runs": agent_is_running(found.host),
    }


def _planned(found: Deployment) -> tuple[Plan | None, OmniError | None]:
    """What runs is looked at with the plan that it runs by; what does not, as it would be now."""
    if _runs(found):
        stored = stored_plan(found)
        if stored or found.error:
            return stored, None
    try:
        return plan_deployment(found), None
    except OmniError as error:
        return None, error


def _speed(found: Deployment, plan: Plan | None) -> SpeedShown | None:
    """None where none is predicted: of external servers, and of what cannot run."""
    speeds = deployment_speeds(found, plan) if plan else None
    return speed_shown(speeds.predicted, speeds.runs) if speeds else None


def _runs(found: Deployment) -> bool:
    is_wanted = found.desired == Deployment.Desired.RUNNING
    return is_wanted or any(instance.pid for instance in found.instances.all())


def _commands(found: Deployment, plan: Plan | None) -> list[CommandShown]:
    """What runs, exactly; for what does not run, what would."""
    running = [i for i in found.instances.all() if i.argv and i.pid]
    if running:
        return [CommandShown(i.role, command_text(i.argv, i.env)) for i in running]
    if plan:
        planned = [runnable(instance, found.name) for instance in plan.instances]
    else:
        planned = []
    return [
        CommandShown(command.role, command_text(command.argv, command.env))
        for command in planned
    ]


def _settings_shown(found: Deployment) -> list[tuple[str, str, bool]]:
    """(title, value, whether it was set) of every setting that its strategy looks at; an external
    server takes none."""
    if found.is_external:
        return []
    strategy = STRATEGIES.get(found.strategy)
    values = with_defaults(
        {key: value for key, value in found.settings.items() if key in SETTINGS}
    )
    return [
        (
            s.title,
            f"{values[s.key]} {s.unit if values[s.key] != 'auto' else ''}".strip(),
            s.key in found.settings,
        )
        for s in SETTINGS.values()
        if strategy is None or strategy.looks_at(s)
    ]


# --- creating and changing ------------------------------------------------------------------------
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HtmxHttpRequest) -> HttpResponse:
    host = local_host()
    if request.method == "POST":
        form = DeploymentForm(request.POST, host=host)
        if form.is_valid() and (made := _saved(form, request)):
            if "start" in request.POST:
                _start_or_say(request, made)
            return redirect("deployments:deployment", made.name)
    else:
        initial = _first_choices(request.GET.get("model", "")) | typed_so_far(
            request.GET
        )
        form = DeploymentForm(host=host, initial=initial)
    return render(request, "deployments/form.html", _form_context(form))


def _start_or_say(request: HtmxHttpRequest, made: Deployment) -> None:
    """It is kept all the same: what was filled in is not to be typed again."""
    try:
        deployment_start(deployment=made, user=request.user)
    except OmniError as error:
        messages.error(request, f"{made.name} is created and not started. {error}")


def _form_context(form: DeploymentForm) -> dict[str, Any]:
    model = Model.objects.filter(name=str(form[MODEL].value() or "")).first()
    measured = effects(form.host, model) if model else []
    return {
        "form": form,
        "deployment": form.deployment,
        "measured": measured,
        "model": model,
        "suggested": suggested_purposes(model) if model else (),
    }


def _first_choices(wanted: str) -> dict[str, Any]:
    """The model that was asked for and the device and engine that fit best."""
    host = local_host()
    initial: dict[str, Any] = {}
    model = Model.objects.filter(name=wanted).first() or Model.deployable().first()
    if model:
        initial["model"] = model.name
    engines = Engine.objects.filter(host=host, state=Engine.State.OK)
    engine = first_engine(engines, model)
    try:
        initial["devices"] = [default_device(host, engine).name]
        initial["engine"] = engine.pk if engine else default_engine(host).pk
    except OmniError:
        # The form then says that there is no device or engine to choose.
        return initial
    return initial


@require_http_methods(["GET", "HEAD", "POST"])
def change(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Deployment, name=name, is_deleting=False)
    if found.is_external:
        return redirect("deployments:server_change", found.name)
    form = DeploymentForm(
        request.POST or None,
        host=found.host,
        deployment=found,
        initial=typed_so_far(request.GET),
    )
    if request.method == "POST" and form.is_valid() and _saved(form, request):
        messages.success(request, f"{found.name} is changed.")
        return redirect("deployments:deployment", found.name)
    return render(request, "deployments/form.html", _form_context(form))


def _saved(form: DeploymentForm, request: HtmxHttpRequest) -> Deployment | None:
    try:
        return form.save(request.user)
    except OmniError as error:
        form.add_error(
            "name" if error.code in ("name_taken", "bad_name") else None, str(error)
        )
        return None


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def quick_deploy(request: HtmxHttpRequest, name: str) -> HttpResponse:
    made = one_click.deploy(
        model=get_object_or_404(Model, name=name), user=request.user
    )
    return go_to(request, "deployments:deployment", made.name)


@require_POST
def start(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Deployment, name=name)
    deployment_start(deployment=found, again="again" in request.POST, user=request.user)
    return _acted(request, found)


@require_POST
def stop(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Deployment, name=name)
    deployment_stop(deployment=found, now="now" in request.POST, user=request.user)
    return _acted(request, found)


@require_POST
def delete(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Deployment, name=name)
    deployment_delete(deployment=found, user=request.user)
    if is_htmx(request):
        return _acted(request, found)
    messages.info(request, f"{found.name} goes away once its processes are gone.")
    return redirect("deployments:deployments")


def _acted(request: HtmxHttpRequest, found: Deployment) -> HttpResponse:
    """Nothing to swap: the parts of the page fetch themselves when the socket tells them to."""
    if not is_htmx(request):
        return redirect("deployments:deployment", found.name)
    news = [f"deployment-{found.pk}", "deployments-changed"]
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps({"acted": {"news": news}})
    return response


# --- shared ---------------------------------------------------------------------------------------
def _shown(
    request: HtmxHttpRequest, page: str, context: dict[str, Any]
) -> HttpResponse:
    return render_page_or_part(
        request, f"deployments/{page}.html", f"deployments/_{page}.html", context
    )


def _with_relations(rows: QuerySet[Deployment]) -> QuerySet[Deployment]:
    instances = Prefetch("instances", Instance.objects.order_by("role", "ordinal"))
    return rows.select_related("host", "engine").prefetch_related(
        instances, "bindings__model"
    )
