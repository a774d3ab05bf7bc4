"""The administration by the table of rights: what stands in no row of omni.roles.admin_rows can
only be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from omni.roles.admin_rows import ADMIN, AdminRow
from omni.roles.rights import may

if TYPE_CHECKING:
    RowForm = forms.ModelForm[Any]
    UsersAdmin = DjangoUserAdmin[User]
else:
    # They take no parameter when they run.
    RowForm = forms.ModelForm
    UsersAdmin = DjangoUserAdmin


class RightsAdmin(ModelAdmin):
    """Django's permission is needed for each thing, and the row's right besides for all that is
    more than viewing."""

    @property
    def row(self) -> AdminRow:
        return ADMIN.get(self.model._meta.label_lower, AdminRow())

    # --- what may be done with rows ---------------------------------------------------------------
    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, self.row.look) and super().has_view_permission(
            request, obj
        )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "add") and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change") and super().has_change_permission(
            request, obj
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "delete") and super().has_delete_permission(
            request, obj
        )

    def _may(self, request: HttpRequest, what: str) -> bool:
        return what in self.row.can and may(request.user, self.row.right)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What goes along with a row needs no right of its own."""
        found, counts, _, protected = super().get_deleted_objects(objs, request)
        return found, counts, set(), protected

    # --- which fields -----------------------------------------------------------------------------
    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """While a row is made there is nothing to show yet."""
        if obj is None:
            return self._editable(obj)
        return super().get_fields(request, obj)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Model | None = None
    ) -> Any:
        shown = [
            field.name for field in self.model._meta.fields if not field.primary_key
        ]
        many = [field.name for field in self.model._meta.many_to_many]
        editable = self._editable(obj)
        return [name for name in [*shown, *many] if name not in editable]

    def _editable(self, obj: Model | None) -> list[str]:
        return [*(self.row.adding if obj is None else ()), *self.row.fields]

    # --- which actions ----------------------------------------------------------------------------
    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Those of the row, for whom they are; the list and the POST both ask here."""
        rights = dict(self.row.actions)
        found = super().get_actions(request)
        return {
            name: act
            for name, act in found.items()
            if name in rights and may(request.user, rights[name])
        }


class ShownRows(TabularInline):
    """Rows that belong to another one, to look at."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class UserAdmin(RightsAdmin, UsersAdmin):
    """Django's own, for administrators only: whoever changes users can make administrators."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return DjangoUserAdmin.get_fields(self, request, obj)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Model | None = None
    ) -> Any:
        return ("last_login", "date_joined")


class GroupAdmin(RightsAdmin):
    search_fields = ("name",)
    filter_horizontal = ("permissions",)


class AccessAttemptAdmin(RightsAdmin):
    list_display = (
        "attempt_time",
        "username",
        "ip_address",
        "failures_since_start",
        "path_info",
    )
    list_filter = ("attempt_time",)
    search_fields = ("username", "ip_address")


def register() -> None:
    """Puts these in the place of what other packages registered, and takes away what is not used
    here."""
    from axes.models import AccessAttempt, AccessFailureLog, AccessLog
    from rest_framework_api_key.models import APIKey

    admin.site.unregister([User, Group, AccessAttempt])
    # The gateway knows the keys of deployments.ApiKey alone; the logs are not kept.
    admin.site.unregister([APIKey, AccessLog, AccessFailureLog])

    admin.site.register(User, UserAdmin)
    admin.site.register(Group, GroupAdmin)
    admin.site.register(AccessAttempt, AccessAttemptAdmin)
