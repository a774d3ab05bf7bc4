"""Pages of gateway keys: everybody's own, for administrators all."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.models import ApiKey, Deployment
from deployments.services.keys import (
    key_change,
    key_delete,
    key_make,
    key_revoke,
    keys_of,
    public_names,
    uses_now,
)
from deployments.web.key_form import KeyForm
from deployments.web.key_rows import key_rows
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, render_page_or_part
from omni.roles.rights import MANAGE_KEYS, may


@require_GET
def keys(request: HtmxHttpRequest) -> HttpResponse:
    found = list(keys_of(request.user))
    context = {
        "rows": key_rows(found, uses_now(found)),
        "shows_owners": may(request.user, MANAGE_KEYS),
    }
    return render_page_or_part(
        request, "deployments/keys.html", "deployments/_keys.html", context
    )


@require_http_methods(["GET", "HEAD", "POST"])
def make(request: HtmxHttpRequest) -> HttpResponse:
    """A new key is shown once, in the answer that makes it; no message carries it on."""
    form = _form(request)
    if request.method == "POST" and form.is_valid():
        try:
            made, secret = key_make(
                terms=form.terms(), owner=request.user, user=request.user
            )
        except OmniError as error:
            form.add_error(form.FIELD_OF.get(error.code), str(error))
        else:
            context = {"key": made, "secret": secret}
            response = render(request, "deployments/key_made.html", context)
            response["Cache-Control"] = "no-store"
            return response
    return render(request, "deployments/key_form.html", {"form": form})


@require_http_methods(["GET", "HEAD", "POST"])
def change(request: HtmxHttpRequest, prefix: str) -> HttpResponse:
    found = _found(request, prefix)
    form = _form(request, found)
    if request.method == "POST" and form.is_valid():
        try:
            key_change(key=found, terms=form.terms(), user=request.user)
        except OmniError as error:
            form.add_error(form.FIELD_OF.get(error.code), str(error))
        else:
            messages.success(request, f"The key {found.name} is changed.")
            return redirect("deployments:keys")
    return render(request, "deployments/key_form.html", {"form": form, "key": found})


@require_POST
def revoke(request: HtmxHttpRequest, prefix: str) -> HttpResponse:
    found = _found(request, prefix)
    key_revoke(key=found, user=request.user)
    messages.success(request, f"The key {found.name} is revoked.")
    return redirect("deployments:keys")


@require_POST
def delete(request: HtmxHttpRequest, prefix: str) -> HttpResponse:
    found = _found(request, prefix)
    key_delete(key=found, user=request.user)
    messages.success(request, f"The key {found.name} is deleted.")
    return redirect("deployments:keys")


def _found(request: HtmxHttpRequest, prefix: str) -> ApiKey:
    """Somebody else's is not there."""
    return get_object_or_404(keys_of(request.user), prefix=prefix)


def _form(request: HtmxHttpRequest, key: ApiKey | None = None) -> KeyForm:
    sent: Any = request.POST if request.method == "POST" else None
    written = Deployment.objects.filter(is_deleting=False, trial_of=None)
    purposes = {
        name for each in written.values_list("purposes", flat=True) for name in each
    }
    return KeyForm(sent, names=public_names(), purposes=sorted(purposes), key=key)
