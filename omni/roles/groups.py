"""Roles are Django groups: an administrator is a superuser, an operator runs models, a viewer looks
on."""

from __future__ import annotations

from typing import Any

from omni.roles.rights import CHAT, OPERATE

OPERATOR = "operator"
VIEWER = "viewer"

ROLE_PERMISSIONS: dict[str, tuple[str, ...]] = {
    OPERATOR: (OPERATE, CHAT),
    VIEWER: (),
}


def ensure_roles(**kwargs: Any) -> None:
    """Makes the groups after a migration; permissions an administrator added to them stay."""
    from django.contrib.auth.models import Group, Permission

    for role, names in ROLE_PERMISSIONS.items():
        group, _ = Group.objects.get_or_create(name=role)
        for name in names:
            app_label, codename = name.split(".")
            found = Permission.objects.filter(
                content_type__app_label=app_label, codename=codename
            )
            group.permissions.add(*found)
