"""Administration of engines, library, deployments, routes and keys.

What is observed is shown and cannot be typed over; what is desired goes through the services, so that the
agent hears of it.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from deployments import library, services
from deployments.engines.probe import probe
from deployments.external_keys import forget_key
from deployments.models import (
    ApiKey,
    Binding,
    Deployment,
    Download,
    Engine,
    Instance,
    LibraryFolder,
    Model,
    Route,
    Transition,
)
from deployments.rig import NAME
from omni.errors import OmniError
from omni.units import bytes_text, count_text


class NamedForm(forms.ModelForm):  # type: ignore[type-arg]
    """A name that a rig file can say: what is exported can then be applied."""

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if "name" in self.changed_data and not NAME.fullmatch(name):
            raise forms.ValidationError("Use small letters, digits, hyphens and underscores; begin without - and _.")
        return name


class Observed(ModelAdmin):
    """Rows that only the agent writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Engine)
class EngineAdmin(ModelAdmin):
    form = NamedForm
    list_display = ("name", "flavour", "host", "build", "state", "probed_at")
    list_filter = ("state", "flavour", "host")
    search_fields = ("name", "path", "build")
    readonly_fields = ("build", "flags", "devices", "offers", "state", "error", "ran_at", "probed_at")
    actions = ("probe_again",)

    @admin.action(description="Ask the binary again")
    def probe_again(self, request: HttpRequest, queryset: QuerySet[Engine]) -> None:
        for engine in queryset:
            probe(engine)
            level = messages.SUCCESS if engine.state == Engine.State.OK else messages.ERROR
            self.message_user(request, f"{engine.name}: {engine.error or engine.build}", level)

    def save_model(self, request: HttpRequest, obj: Engine, form: Any, change: bool) -> None:
        """A path that was typed is asked at once."""
        probe(obj)

    def delete_model(self, request: HttpRequest, obj: Engine) -> None:
        forget_key(obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Engine]) -> None:
        for engine in queryset:
            forget_key(engine)
        super().delete_queryset(request, queryset)


@admin.register(LibraryFolder)
class LibraryFolderAdmin(ModelAdmin):
    list_display = ("path", "is_packaged", "scanned_at", "error")
    list_filter = ("is_packaged",)
    search_fields = ("path",)
    readonly_fields = ("is_packaged", "scanned_at", "error")


@admin.register(Model)
class ModelAdminPage(ModelAdmin):
    form = NamedForm
    list_display = ("name", "arch", "parameters", "quant", "size", "n_ctx_train", "state", "added_at")
    list_filter = ("state", "arch", "quant")
    search_fields = ("name", "title", "path")
    readonly_fields = (
        "path", "shards", "title", "arch", "quant", "n_params", "size_bytes", "n_layer", "n_ctx_train", "facts",
        "state", "error", "modified_ns", "added_at",
    )  # fmt: skip
    actions = ("read_again",)

    @admin.display(ordering="n_params")
    def parameters(self, row: Model) -> str:
        return count_text(row.n_params)

    @admin.display(ordering="size_bytes")
    def size(self, row: Model) -> str:
        return bytes_text(row.size_bytes)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Models come from files: a scan adds them."""
        return False

    @admin.action(description="Read the header again")
    def read_again(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        for model in queryset:
            library.describe_file(model, library.Path(model.path)).save()


@admin.register(Download)
class DownloadAdmin(Observed):
    list_display = ("repo", "label", "host", "state", "total_bytes", "done_bytes", "requested_by", "created_at")
    list_filter = ("state", "host")
    search_fields = ("repo", "label", "folder", "error")


class BindingInline(TabularInline):
    model = Binding
    extra = 0


class InstanceInline(TabularInline):
    model = Instance
    extra = 0
    can_delete = False
    fields = readonly_fields = ("role", "ordinal", "state", "pid", "port", "restarts", "error", "ready_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Deployment)
class DeploymentAdmin(ModelAdmin):
    form = NamedForm
    list_display = ("name", "strategy", "host", "engine", "desired", "shown_state", "changed_at")
    list_filter = ("strategy", "desired", "host", "engine")
    search_fields = ("name", "bindings__model__name")
    readonly_fields = ("generation", "is_deleting", "error_code", "error", "created_by", "created_at", "changed_at")
    inlines = (BindingInline, InstanceInline)
    actions = ("start", "stop")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return super().get_queryset(request).prefetch_related("instances")

    @admin.display(description="state")
    def shown_state(self, row: Deployment) -> str:
        return str(row.state)

    @admin.action(description="Start")
    def start(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        self._each(request, queryset, services.deployment_start)

    @admin.action(description="Stop")
    def stop(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        self._each(request, queryset, services.deployment_stop)

    def _each(self, request: HttpRequest, queryset: QuerySet[Deployment], act: Any) -> None:
        for row in queryset:
            try:
                act(deployment=row, user=request.user)
            except OmniError as error:
                self.message_user(request, str(error), messages.ERROR)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A change counts once the bindings are saved too: what runs is then started anew."""
        super().save_related(request, form, formsets, change)
        row = form.instance
        services.deployment_change(deployment=row, settings=row.settings, extra_args=row.extra_args, user=request.user)

    def delete_model(self, request: HttpRequest, obj: Deployment) -> None:
        self._each(request, Deployment.objects.filter(pk=obj.pk), services.deployment_delete)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        self._each(request, queryset, services.deployment_delete)


@admin.register(Instance)
class InstanceAdmin(Observed):
    list_display = ("__str__", "host", "state", "pid", "port", "restarts", "exit_code", "changed_at")
    list_filter = ("state", "role", "host")
    search_fields = ("deployment__name", "device__name", "error", "log_line")


@admin.register(Transition)
class TransitionAdmin(Observed):
    list_display = ("at", "instance", "old", "new", "pid", "reason")
    list_filter = ("new", "at")
    search_fields = ("instance__deployment__name", "reason")
    list_select_related = ("instance__deployment", "instance__device")


@admin.register(Route)
class RouteAdmin(ModelAdmin):
    form = NamedForm
    list_display = ("name", "deployment", "description")
    list_filter = ("deployment",)
    search_fields = ("name", "description", "deployment__name")


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ("name", "prefix", "owner", "created", "expiry_date", "revoked")
    list_filter = ("revoked", "created")
    search_fields = ("name", "prefix", "owner__username")
    fields = ("name", "owner", "expiry_date", "revoked", "prefix", "created")
    readonly_fields = ("prefix", "created")

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """A new key is shown once, here; only its hash is kept."""
        if change:
            obj.save()
            return
        key = ApiKey.objects.assign_key(obj)
        obj.save()
        self.message_user(request, f"The key, shown this once: {key}", messages.WARNING)
