"""Roles are Django groups: an administrator is a superuser, an operator runs models, a viewer looks on."""

from __future__ import annotations

from typing import Any

OPERATOR, VIEWER = "operator", "viewer"

# Permission codenames, as app_label.codename. Who is logged in may look at every page.
OPERATE = "deployments.operate_deployment"
MANAGE_LIBRARY = "deployments.manage_library"
CHAT = "chat.use_chat"
# An engine's program is run as soon as it is named, so naming one is more than operating.
MANAGE_ENGINES = "deployments.add_engine"
MANAGE_ROUTES = "deployments.add_route"
ADD_DEVICES, REMOVE_DEVICES = "gpus.add_device", "gpus.delete_device"

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
            found = Permission.objects.filter(content_type__app_label=app_label, codename=codename)
            group.permissions.add(*found)
