"""Pages of the library: what models there are, in which folders, and what their headers say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from deployments.announce import request_scan
from deployments.engines import FLAVOURS, flavour_titles
from deployments.formats.kinds import Kind
from deployments.formats.model_facts import ModelFacts
from deployments.formats.partners import Belonging, PartnerFile, partners
from deployments.library import folders
from deployments.library.copies import other_places, place_counts
from deployments.models import Binding, Engine, LibraryFolder, Model
from deployments.models.library import KINDS
from deployments.services.defaults import first_engine
from deployments.services.deployments import model_delete
from deployments.services.discovery import USUAL_FLAVOUR, local_host
from deployments.services.loadable import without_engine
from deployments.services.model_advice import advice
from deployments.services.projectors import as_partner
from deployments.services.waiting import agent_is_running
from deployments.web.forms import FolderForm
from deployments.web.model_words import fact_rows
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, is_htmx, render_page_or_part

PAGE_LENGTH = 100
MOST_PARTNERS = 200
FILTERS = ("arch", "quant", "kind", "state")
SORTS = {
    "name": "name",
    "size": "-size_bytes",
    "params": "-n_params",
    "newest": "-added_at",
}


@require_GET
def models(request: HtmxHttpRequest) -> HttpResponse:
    context = _models_context(request) | {"folder_form": FolderForm()}
    return render_page_or_part(
        request, "deployments/models.html", "deployments/_models.html", context
    )


def _models_context(request: HtmxHttpRequest) -> dict[str, Any]:
    wanted = {key: request.GET.get(key, "") for key in ("q", *FILTERS, "sort")}
    page = Paginator(_wanted_models(wanted), PAGE_LENGTH).get_page(
        request.GET.get("page")
    )
    engines = Engine.objects.filter(host=local_host())
    titles = flavour_titles()
    every = Model.objects.order_by()
    archs, quants = (
        every.exclude(**{key: ""}).values_list(key, flat=True).distinct()
        for key in ("arch", "quant")
    )
    return {
        "page": page,
        "rows": _rows(list(page)),
        "total": every.count(),
        "wanted": wanted,
        "is_filtered": any(wanted[key] for key in ("q", *FILTERS)),
        "archs": sorted(archs),
        "quants": sorted(quants),
        "kinds": KINDS,
        "states": Model.State.choices,
        "sorts": [
            ("name", "By name"),
            ("size", "Largest first"),
            ("params", "Most parameters"),
            ("newest", "Newest"),
        ],
        "folders": LibraryFolder.objects.all(),
        "engines": [
            (engine, titles.get(engine.flavour, engine.flavour)) for engine in engines
        ],
        "unverified_flavours": _unverified(engines),
    }


def _wanted_models(wanted: Mapping[str, str]) -> QuerySet[Model]:
    # What a header says is large, and no row of the list shows it.
    rows = Model.objects.defer("facts", "shape", "vocab", "shards")
    text = wanted["q"].strip().replace("\0", "")
    if text:
        rows = rows.filter(
            Q(name__icontains=text) | Q(title__icontains=text) | Q(path__icontains=text)
        )
    chosen = {key: wanted[key].replace("\0", "") for key in FILTERS if wanted[key]}
    return rows.filter(**chosen).order_by(SORTS.get(wanted["sort"], "name"), "name")


def _rows(models: Sequence[Model]) -> list[tuple[Model, int, int, str]]:
    """(model, its deployments, places where the same file lies, why no engine loads it)."""
    bindings = Binding.objects.filter(model__in=models).order_by().values_list("model")
    deployments = dict(bindings.annotate(count=Count("deployment", distinct=True)))
    places = place_counts([model.fingerprint for model in models])
    lacking = without_engine(models, local_host())
    return [
        (
            model,
            deployments.get(model.pk, 0),
            places.get(model.fingerprint, 1),
            lacking.get(model.pk, ""),
        )
        for model in models
    ]


def _unverified(engines: Iterable[Engine]) -> list[str]:
    """Titles of the flavours Omni can run and knows no engine of on this machine."""
    seen = {engine.flavour for engine in engines}
    return [flavour.title for name, flavour in FLAVOURS.items() if name not in seen]


@require_GET
def model(request: HtmxHttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Model, name=name)
    used_by = [
        b.deployment
        for b in found.bindings.select_related("deployment").prefetch_related(
            "deployment__instances"
        )
    ]
    share = found.facts.get("quant_bytes") or {}
    total = sum(share.values()) or 1
    own = as_partner(found)
    others = _others(found)
    context = {
        "model": found,
        "facts": found.facts,
        "rows": _fact_rows(found) if found.facts else [],
        "used_by": used_by,
        "shares": sorted(
            ((kind, size, 100 * size / total) for kind, size in share.items()),
            key=lambda row: -row[1],
        ),
        "partners": partners(own, others),
        "possible_partners": partners(own, others, Belonging.PERHAPS),
        "copies": other_places(found),
        "no_engine": without_engine([found], local_host()).get(found.pk, ""),
        "files": [(path, _file_size(path)) for path in found.shards or [found.path]],
    }
    return render(request, "deployments/model.html", context)


@require_GET
def model_advice(request: HtmxHttpRequest, name: str) -> HttpResponse:
    """A part of the model's page: what could draft for it, and number formats."""
    found = get_object_or_404(Model, name=name)
    host = local_host()
    engine = first_engine(Engine.objects.filter(host=host, state=Engine.State.OK))
    context: dict[str, Any] = {"model": found}
    try:
        context["advice"] = advice(
            found, host, engine.flavour if engine else USUAL_FLAVOUR
        )
    except OmniError as error:
        context["problem"] = error
    return render(request, "deployments/_model_advice.html", context)


def _fact_rows(model: Model) -> list[tuple[str, str]]:
    rows = fact_rows(ModelFacts.from_dict(model.facts))
    if not model.is_folder:
        return rows
    classes = model.facts.get("hparams", {}).get("architectures", "")
    # A folder names its licence nowhere but in a text for people.
    kept = [row for row in rows if row[0] != "Licence"]
    return [
        ("Format", model.get_format_display()),
        *kept,
        *([("Class", classes)] if classes else []),
    ]


def _others(model: Model) -> list[PartnerFile]:
    """Files of the library that could go with it: of a projector models, of a model projectors."""
    if model.is_folder:
        return []
    wanted = Model.objects.filter(
        state=Model.State.OK, format=Model.Format.GGUF
    ).exclude(pk=model.pk)
    if model.kind == Kind.PROJECTOR:
        width = model.facts.get("projection_dim")
        wanted = wanted.filter(kind=Kind.TEXT, facts__n_embd=width)
    else:
        wanted = wanted.filter(kind=Kind.PROJECTOR)
    rows = wanted.values_list("name", "path", "facts")[:MOST_PARTNERS]
    return [PartnerFile.of(*row) for row in rows]


def _file_size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


# --- acting ---------------------------------------------------------------------------------------
@require_POST
def scan(request: HtmxHttpRequest) -> HttpResponse:
    """Asks the agent; the table fetches itself again as models are found."""
    host = local_host()
    if not agent_is_running(host):
        text = f"No agent runs on {host.name}, so nobody would scan."
        raise OmniError(
            "no_agent", text, "Start the panel with `make up`, or run `manage.py scan`."
        )
    request_scan(host.name, user=request.user)
    return _said(request, "Scanning. The list changes as models are found.")


@require_POST
def folder_add(request: HtmxHttpRequest) -> HttpResponse:
    form = FolderForm(request.POST)
    if form.is_valid():
        try:
            folder = folders.folder_add(form.cleaned_data["path"], user=request.user)
        except OmniError as error:
            form.add_error("path", str(error))
        else:
            report = folders.scan([Path(folder.path)])
            messages.success(
                request,
                f"{folder.path} is in the library. Models found in it: {len(report.models)}.",
            )
            return redirect("deployments:models")
    return render(
        request,
        "deployments/models.html",
        _models_context(request) | {"folder_form": form},
    )


@require_POST
def folder_remove(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    folder = get_object_or_404(LibraryFolder, pk=pk)
    count = folders.folder_remove(folder, user=request.user)
    messages.success(
        request,
        f"{folder.path} is out of the library, {count} models with it. The files stay.",
    )
    return redirect("deployments:models")


@require_POST
def model_remove(request: HtmxHttpRequest, name: str) -> HttpResponse:
    model_delete(model=get_object_or_404(Model, name=name), user=request.user)
    messages.success(
        request,
        f"{name} is out of the library. The file stays; the next scan finds it again.",
    )
    return redirect("deployments:models")


def _said(request: HtmxHttpRequest, text: str) -> HttpResponse:
    if not is_htmx(request):
        messages.info(request, text)
        return redirect("deployments:models")
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps({"toast": {"text": text, "kind": "info"}})
    return response
