"""Pages of external servers: adding one, its key, and offering its models."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.engines.external import EXTERNAL
from deployments.models import Deployment, Engine
from deployments.services import servers
from deployments.services.deployments import deployment_change
from deployments.services.discovery import local_host
from deployments.web.server_forms import ExternalModelForm, KeyForm, ServerForm
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, render_page_or_part


@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HtmxHttpRequest) -> HttpResponse:
    form = ServerForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = servers.server_add(
                host=local_host(), user=request.user, **form.cleaned_data
            )
        except OmniError as error:
            form.add_error(form.FIELD_OF.get(error.code, "address"), str(error))
        else:
            messages.success(
                request,
                f"{made.name} answers. Choose which of its models the gateway offers.",
            )
            return redirect("deployments:server", made.name)
    return render(request, "deployments/server_add.html", {"form": form})


@require_GET
def server(request: HtmxHttpRequest, name: str) -> HttpResponse:
    context = _context(_found(name))
    return render_page_or_part(
        request, "deployments/server.html", "deployments/_server.html", context
    )


def _found(name: str) -> Engine:
    return get_object_or_404(Engine, name=name, flavour=EXTERNAL)


def _context(engine: Engine, **forms: Any) -> dict[str, Any]:
    used_by = engine.deployments.filter(is_deleting=False).prefetch_related("instances")
    context = {"server": engine, "has_key": servers.has_key(engine), "used_by": used_by}
    return {
        **context,
        "key_form": KeyForm(),
        "offer_form": ExternalModelForm(engine=engine),
        **forms,
    }


@require_POST
def offer(request: HtmxHttpRequest, name: str) -> HttpResponse:
    engine = _found(name)
    form = ExternalModelForm(request.POST, engine=engine)
    if form.is_valid():
        try:
            made = servers.model_offer(
                engine=engine, user=request.user, **form.cleaned_data
            )
            return redirect("deployments:deployment", made.name)
        except OmniError as error:
            form.add_error(
                "name" if error.code in ("bad_name", "name_taken") else None, str(error)
            )
    return render(request, "deployments/server.html", _context(engine, offer_form=form))


@require_http_methods(["GET", "HEAD", "POST"])
def change(request: HtmxHttpRequest, name: str) -> HttpResponse:
    """Another model for a deployment on an external server."""
    found = get_object_or_404(
        Deployment, name=name, is_deleting=False, external_model__gt=""
    )
    form = ExternalModelForm(
        request.POST or None,
        engine=found.engine,
        deployment=found,
        initial={"model": found.external_model},
    )
    if request.method == "POST" and form.is_valid():
        deployment_change(
            deployment=found,
            external_model=form.cleaned_data["model"],
            user=request.user,
        )
        messages.success(request, f"{found.name} is changed.")
        return redirect("deployments:deployment", found.name)
    return render(
        request, "deployments/server_change.html", {"form": form, "deployment": found}
    )


@require_POST
def ask(request: HtmxHttpRequest, name: str) -> HttpResponse:
    engine = servers.server_ask(engine=_found(name), user=request.user)
    _tell(request, engine, f"{engine.name} answers.")
    return redirect("deployments:server", name)


@require_POST
def key(request: HtmxHttpRequest, name: str) -> HttpResponse:
    engine = _found(name)
    form = KeyForm(request.POST)
    if form.is_valid():
        try:
            servers.server_set_key(
                engine=engine, key=form.cleaned_data["key"], user=request.user
            )
        except OmniError as error:
            form.add_error("key", str(error))
        else:
            if form.cleaned_data["key"]:
                said = "has another key"
            else:
                said = "has no key any more"
            _tell(request, engine, f"{engine.name} {said}, and it answers.")
            return redirect("deployments:server", name)
    return render(request, "deployments/server.html", _context(engine, key_form=form))


@require_POST
def remove(request: HtmxHttpRequest, name: str) -> HttpResponse:
    servers.server_remove(engine=_found(name), user=request.user)
    messages.success(
        request, f"{name} and its key are forgotten. The server itself was left alone."
    )
    return redirect("deployments:models")


def _tell(request: HtmxHttpRequest, engine: Engine, well: str) -> None:
    if engine.state == Engine.State.OK:
        messages.success(request, well)
    else:
        messages.error(request, f"{engine.name}: {engine.error}")
