"""Administration of engines, library, deployments, routes and keys.

What is observed is shown and cannot be typed over; what is desired goes through the services, so
that the agent hears of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Field, QuerySet
from django.db.models import Model as Row
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget

from deployments.advice.purposes import checked_purposes
from deployments.bench.runs import benchmark_forget
from deployments.engines import flavour_titles
from deployments.engines.flags import allowed_args
from deployments.external.keys import forget_key
from deployments.library import folders
from deployments.library.reading import describe_file
from deployments.models import (
    BenchmarkRun,
    Binding,
    Deployment,
    Download,
    Engine,
    Instance,
    LibraryFolder,
    Model,
    Transition,
)
from deployments.names import NAME
from deployments.planning.settings import validated
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_start,
    deployment_stop,
)
from deployments.services.engines import probe
from deployments.services.readiness import Ready
from deployments.strategies import strategy_title
from omni.administration import RightsAdmin, RowForm, ShownRows
from omni.errors import OmniError
from omni.units import bytes_text, count_text


class NamedForm(RowForm):
    """A name that a rig file can say: what is exported can then be applied."""

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if "name" in self.changed_data and not NAME.fullmatch(name):
            raise forms.ValidationError(
                "Use lowercase letters, digits, hyphens and underscores; begin without - and _."
            )
        return name


@admin.register(Engine)
class EngineAdmin(RightsAdmin):
    form = NamedForm
    list_display = ("name", "flavour_title", "host", "build", "state", "probed_at")
    list_filter = ("state", "flavour", "host")
    search_fields = ("name", "path", "build")
    actions = ("probe_again",)

    def formfield_for_dbfield(
        self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        """Flavours are rows of the registry in engines/, not of the database."""
        if db_field.name != "flavour":
            return super().formfield_for_dbfield(db_field, request, **kwargs)
        return forms.ChoiceField(
            choices=list(flavour_titles().items()), widget=UnfoldAdminSelectWidget
        )

    @admin.display(description="flavour", ordering="flavour")
    def flavour_title(self, engine: Engine) -> str:
        return flavour_titles().get(engine.flavour, engine.flavour)

    @admin.action(description="Ask the binary again")
    def probe_again(self, request: HttpRequest, queryset: QuerySet[Engine]) -> None:
        for engine in queryset:
            probe(engine, user=request.user)
            if engine.state == Engine.State.OK:
                level = messages.SUCCESS
            else:
                level = messages.ERROR
            self.message_user(
                request, f"{engine.name}: {engine.error or engine.build}", level
            )

    def save_model(
        self, request: HttpRequest, obj: Engine, form: Any, change: bool
    ) -> None:
        """A path that was typed is asked at once."""
        probe(obj, user=request.user)

    def delete_model(self, request: HttpRequest, obj: Engine) -> None:
        forget_key(obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Engine]) -> None:
        for engine in queryset:
            forget_key(engine)
        super().delete_queryset(request, queryset)


@admin.register(LibraryFolder)
class LibraryFolderAdmin(RightsAdmin):
    list_display = ("path", "is_packaged", "scanned_at", "error")
    list_filter = ("is_packaged",)
    search_fields = ("path",)

    def save_model(
        self, request: HttpRequest, obj: LibraryFolder, form: Any, change: bool
    ) -> None:
        """Through the service, which says what is wrong with a folder."""
        obj.pk = folders.folder_add(obj.path, user=request.user).pk

    def delete_model(self, request: HttpRequest, obj: LibraryFolder) -> None:
        folders.folder_remove(obj, user=request.user)

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[LibraryFolder]
    ) -> None:
        for folder in queryset:
            folders.folder_remove(folder, user=request.user)


@admin.register(Model)
class ModelAdminPage(RightsAdmin):
    form = NamedForm
    list_display = (
        "name",
        "arch",
        "parameters",
        "quant",
        "size",
        "n_ctx_train",
        "state",
        "added_at",
    )
    list_filter = ("state", "arch", "quant")
    search_fields = ("name", "title", "path")
    actions = ("read_again",)

    @admin.display(ordering="n_params")
    def parameters(self, row: Model) -> str:
        return count_text(row.n_params)

    @admin.display(ordering="size_bytes")
    def size(self, row: Model) -> str:
        return bytes_text(row.size_bytes)

    @admin.action(description="Read the header again")
    def read_again(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        for model in queryset:
            describe_file(model, Path(model.path)).save()


@admin.register(Download)
class DownloadAdmin(RightsAdmin):
    list_display = (
        "repo",
        "label",
        "host",
        "state",
        "total_bytes",
        "done_bytes",
        "requested_by",
        "created_at",
    )
    list_filter = ("state", "host")
    search_fields = ("repo", "label", "folder", "error")


class BindingInline(ShownRows):
    model = Binding
    fields = readonly_fields = ("role", "model", "devices")


class InstanceInline(ShownRows):
    model = Instance
    fields = readonly_fields = (
        "role",
        "ordinal",
        "state",
        "pid",
        "port",
        "restarts",
        "error",
        "ready_at",
    )


class PlainJSONField(forms.JSONField):
    """Also for what is JSON and cannot be read: numbers of thousands of digits, thousands of
    brackets."""

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError):
            raise forms.ValidationError(
                self.error_messages["invalid"], code="invalid"
            ) from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)


class DeploymentForm(RowForm):
    """Settings and flags, held against the same tables as everywhere else."""

    class Meta:
        field_classes = {
            "settings": PlainJSONField,
            "extra_args": PlainJSONField,
            "purposes": PlainJSONField,
        }

    def clean_settings(self) -> dict[str, int | str]:
        given = self.cleaned_data["settings"]
        if not isinstance(given, dict):
            raise forms.ValidationError(
                'Write the settings as an object, such as {"context": 8192}.'
            )
        try:
            return validated(given)
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_extra_args(self) -> list[str]:
        given = self._texts("extra_args", "flags", "--jinja")
        try:
            allowed_args(given)
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None
        return given

    def clean_purposes(self) -> list[str]:
        given = self._texts("purposes", "purposes", "coding")
        try:
            return checked_purposes(given)
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None

    def _texts(self, field: str, what: str, such_as: str) -> list[str]:
        """Nothing typed is none. Raises ValidationError where it is no list of texts."""
        given = self.cleaned_data[field]
        if given is None:
            return []
        if isinstance(given, list) and all(isinstance(each, str) for each in given):
            return given
        raise forms.ValidationError(
            f'Write the {what} as a list of texts, such as ["{such_as}"].'
        )


@admin.register(Deployment)
class DeploymentAdmin(RightsAdmin):
    form = DeploymentForm
    list_display = (
        "name",
        "strategy_shown",
        "host",
        "engine",
        "desired",
        "shown_state",
        "changed_at",
    )
    list_filter = ("strategy", "desired", "host", "engine")
    search_fields = ("name", "bindings__model__name")
    inlines = (BindingInline, InstanceInline)
    actions = ("start", "stop")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return super().get_queryset(request).prefetch_related("instances")

    @admin.display(description="strategy", ordering="strategy")
    def strategy_shown(self, row: Deployment) -> str:
        return strategy_title(row.strategy)

    @admin.display(description="state")
    def shown_state(self, row: Deployment) -> str:
        return str(row.state)

    @admin.action(description="Start")
    def start(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        self._each(request, queryset, deployment_start)

    @admin.action(description="Stop")
    def stop(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        self._each(request, queryset, deployment_stop)

    def _each(
        self, request: HttpRequest, queryset: QuerySet[Deployment], act: Any
    ) -> None:
        for row in queryset:
            try:
                act(deployment=row, user=request.user)
            except OmniError as error:
                self.message_user(request, str(error), messages.ERROR)

    def save_model(
        self, request: HttpRequest, obj: Deployment, form: Any, change: bool
    ) -> None:
        """Through the service: what runs is started again with it, and the agent hears of it."""
        deployment_change(
            deployment=obj,
            settings=obj.settings,
            extra_args=obj.extra_args,
            purposes=obj.purposes,
            user=request.user,
            # Django's transaction is open, in which nothing is planned: the agent does it.
            ready=Ready(),
        )

    def delete_model(self, request: HttpRequest, obj: Deployment) -> None:
        self._each(request, Deployment.objects.filter(pk=obj.pk), deployment_delete)

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[Deployment]
    ) -> None:
        self._each(request, queryset, deployment_delete)


@admin.register(Instance)
class InstanceAdmin(RightsAdmin):
    list_display = (
        "__str__",
        "host",
        "state",
        "pid",
        "port",
        "restarts",
        "exit_code",
        "changed_at",
    )
    list_filter = ("state", "role", "host")
    search_fields = ("deployment__name", "device__name", "error", "log_line")


@admin.register(Transition)
class TransitionAdmin(RightsAdmin):
    list_display = ("at", "instance", "old", "new", "pid", "reason")
    list_filter = ("new", "at")
    search_fields = ("instance__deployment__name", "reason")
    list_select_related = ("instance__deployment", "instance__device")


@admin.register(BenchmarkRun)
class BenchmarkRunAdmin(RightsAdmin):
    # The first is shown on its page; the second may be what somebody wrote for themselves.
    exclude = ("document", "prompts")
    list_display = (
        "__str__",
        "host",
        "state",
        "rounds_done",
        "requested_by",
        "created_at",
        "finished_at",
    )
    list_filter = ("state", "scenario", "host")
    search_fields = ("scenario", "error")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BenchmarkRun]:
        return super().get_queryset(request).defer(*self.exclude)

    def get_readonly_fields(self, request: HttpRequest, obj: Row | None = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return [name for name in fields if name not in self.exclude]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One that is not over has a process, which puts the rig back: it is cancelled first."""
        is_open = obj is not None and not obj.is_over
        return not is_open and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: BenchmarkRun) -> None:
        benchmark_forget(run=obj, user=request.user)

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[BenchmarkRun]
    ) -> None:
        for run in queryset:
            try:
                benchmark_forget(run=run, user=request.user)
            except OmniError as error:
                self.message_user(request, str(error), messages.ERROR)
