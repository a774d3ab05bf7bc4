"""Administration of routes and keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from deployments.announce import keys_changed
from deployments.gateway.auto.rules import read_names, read_rules
from deployments.models import (
    ApiKey,
    Deployment,
    Route,
)
from deployments.services.checks import taken_names
from deployments.services.keys import check_words
from deployments.web.admin import NamedForm
from omni.administration import RightsAdmin, RowForm
from omni.errors import OmniError


class RouteForm(NamedForm):
    def clean_name(self) -> str:
        """As a deployment's: the gateway knows both by one name."""
        name = super().clean_name()
        if "name" in self.changed_data and name in taken_names():
            raise forms.ValidationError(
                f"The name {name} is taken or has another meaning."
            )
        return name

    def clean_rules(self) -> list[dict[str, Any]]:
        """As a rig file's: conditions that the gateway knows, and deployments that there are."""
        try:
            rules = read_rules(self.cleaned_data["rules"] or [])
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None
        _refuse_unknown(name for rule in rules for name in rule.to)
        return [rule.document() for rule in rules]

    def clean_fallbacks(self) -> list[str]:
        given = self.cleaned_data["fallbacks"] or []
        try:
            names = list(read_names(given, "fallbacks")) if given else []
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None
        _refuse_unknown(names)
        return names


def _routable() -> QuerySet[Deployment]:
    """A trial ends with its benchmark: nothing is sent there by name."""
    return Deployment.objects.filter(trial_of=None, is_deleting=False)


def _refuse_unknown(names: Iterable[str]) -> None:
    known = set(_routable().values_list("name", flat=True))
    unknown = sorted(set(names) - known)
    if unknown:
        raise forms.ValidationError(f"There is no deployment {unknown[0]!r}.")


@admin.register(Route)
class RouteAdmin(RightsAdmin):
    form = RouteForm
    list_display = ("name", "deployment", "description")
    list_filter = ("deployment",)
    search_fields = ("name", "description", "deployment__name")

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> Any:
        if db_field.name == "deployment":
            kwargs["queryset"] = _routable()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class ApiKeyForm(RowForm):
    LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.LIMITS:
            if name in self.fields:
                self.fields[name].required = False

    def clean(self) -> dict[str, Any]:
        """A limit that is left empty is none."""
        empty = {
            name: 0 for name in self.LIMITS if self.cleaned_data.get(name, 0) is None
        }
        return {**self.cleaned_data, **empty}

    def clean_allowed_names(self) -> list[str]:
        return self._words("allowed_names")

    def clean_allowed_purposes(self) -> list[str]:
        return self._words("allowed_purposes")

    def _words(self, field: str) -> list[str]:
        given = self.cleaned_data[field] or []
        try:
            check_words(given)
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None
        return list(given)


@admin.register(ApiKey)
class ApiKeyAdmin(RightsAdmin):
    form = ApiKeyForm
    list_display = (
        "name",
        "prefix",
        "owner",
        "created",
        "last_used_at",
        "expiry_date",
        "revoked",
    )
    list_filter = ("revoked", "created")
    search_fields = ("name", "prefix", "owner__username")
    fields = (
        "name",
        "owner",
        "expiry_date",
        "revoked",
        "allowed_names",
        "allowed_purposes",
        "requests_per_minute",
        "tokens_per_minute",
        "concurrent_requests",
        "prefix",
        "created",
        "last_used_at",
    )

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {
            **super().get_changeform_initial_data(request),
            "owner": request.user.pk,
        }

    def get_form(
        self,
        request: HttpRequest,
        obj: ApiKey | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A key is somebody's, and ends with its owner's rights; only the command line makes one of
        nobody's."""
        form = super().get_form(request, obj, change, **kwargs)
        owner = form.base_fields.get("owner")
        if owner:
            owner.required = True
        return form

    def save_model(
        self, request: HttpRequest, obj: ApiKey, form: Any, change: bool
    ) -> None:
        if not change:
            obj.shown_once = ApiKey.objects.assign_key(obj)
        obj.save()
        transaction.on_commit(keys_changed)

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """A new key is shown once, in this answer; only its hash is kept, and no message carries it
        on."""
        context = {
            **self.admin_site.each_context(request),
            "title": "New API key",
            "row": obj,
        }
        context["key"] = obj.shown_once
        response = TemplateResponse(request, "admin/new_key.html", context)
        response["Cache-Control"] = "no-store"
        return response
