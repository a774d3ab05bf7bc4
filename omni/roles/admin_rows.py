"""What the administration lets be done with the rows of each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni.roles.rights import (
    ADD_DEVICES,
    LOGGED_IN,
    MANAGE_LIBRARY,
    MANAGE_PROGRAMS,
    MANAGE_ROUTES,
    OPERATE,
    REMOVE_DEVICES,
    SUPERUSER,
)


@dataclass(frozen=True)
class AdminRow:
    """What the administration lets be done with the rows of a model.

    Django's own permission for it (view, add, change, delete) is needed each time, and `right`
    besides for all that is more than viewing. `fields` can be edited; those in `adding` only while
    a row is made; all others are shown. `actions` are named with the right that each needs.
    """

    right: str = SUPERUSER
    # Besides Django's permission to view.
    look: str = LOGGED_IN
    can: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    adding: tuple[str, ...] = ()
    actions: tuple[tuple[str, str], ...] = ()


def _row(right: str, can: str, **more: Any) -> AdminRow:
    return AdminRow(right, can=frozenset(can.split()), **more)


ALL = "add change delete"

USER_FIELDS = (
    "username",
    "password",
    "first_name",
    "last_name",
    "email",
    "is_active",
    "is_staff",
    "is_superuser",
    "groups",
    "user_permissions",
)

ADMIN: dict[str, AdminRow] = {
    # Whoever changes users can make administrators.
    "auth.user": _row(
        SUPERUSER, ALL, fields=USER_FIELDS, actions=(("delete_selected", SUPERUSER),)
    ),
    "auth.group": _row(
        SUPERUSER,
        ALL,
        fields=("name", "permissions"),
        actions=(("delete_selected", SUPERUSER),),
    ),
    # --- rig
    "gpus.host": _row(SUPERUSER, "delete", actions=(("delete_selected", SUPERUSER),)),
    "gpus.gpu": _row(SUPERUSER, "delete", actions=(("delete_selected", SUPERUSER),)),
    "gpus.device": _row(
        ADD_DEVICES,
        ALL,
        fields=("endpoint", "description", "position", "bandwidth_gbps", "tflops"),
        adding=("host", "name"),
        actions=(("delete_selected", REMOVE_DEVICES),),
    ),
    "gpus.historysubject": _row(
        SUPERUSER, "delete", actions=(("delete_selected", SUPERUSER),)
    ),
    "gpus.historymark": _row(
        SUPERUSER, "delete", actions=(("delete_selected", SUPERUSER),)
    ),
    # --- library
    "deployments.engine": _row(
        MANAGE_PROGRAMS,
        ALL,
        fields=("name", "flavour", "path"),
        adding=("host",),
        actions=(
            ("probe_again", MANAGE_PROGRAMS),
            ("delete_selected", MANAGE_PROGRAMS),
        ),
    ),
    "deployments.libraryfolder": _row(
        MANAGE_LIBRARY,
        "add delete",
        adding=("path",),
        actions=(("delete_selected", MANAGE_LIBRARY),),
    ),
    "deployments.model": _row(
        MANAGE_LIBRARY,
        "change delete",
        fields=("name",),
        actions=(("read_again", MANAGE_LIBRARY), ("delete_selected", MANAGE_LIBRARY)),
    ),
    "deployments.download": _row(MANAGE_LIBRARY, ""),
    # --- deployments
    "deployments.deployment": _row(
        OPERATE,
        "change delete",
        fields=("settings", "extra_args", "purposes"),
        actions=(("start", OPERATE), ("stop", OPERATE), ("delete_selected", OPERATE)),
    ),
    "deployments.instance": _row(OPERATE, ""),
    "deployments.transition": _row(OPERATE, ""),
    "deployments.benchmarkrun": _row(
        OPERATE, "delete", actions=(("delete_selected", OPERATE),)
    ),
    # --- gateway
    "deployments.route": _row(
        MANAGE_ROUTES,
        ALL,
        fields=("name", "deployment", "description", "rules", "fallbacks"),
        actions=(("delete_selected", MANAGE_ROUTES),),
    ),
    "deployments.apikey": _row(
        SUPERUSER,
        ALL,
        fields=(
            "name",
            "expiry_date",
            "revoked",
            "allowed_names",
            "allowed_purposes",
            "requests_per_minute",
            "tokens_per_minute",
            "concurrent_requests",
        ),
        adding=("owner",),
        actions=(("delete_selected", SUPERUSER),),
    ),
    # --- chat: what people wrote is read here by administrators, and written by nobody
    "chat.conversation": _row(
        SUPERUSER, "delete", look=SUPERUSER, actions=(("delete_selected", SUPERUSER),)
    ),
    "chat.message": _row(SUPERUSER, "", look=SUPERUSER),
    # --- who tried to log in; deleting an attempt lets its name in again
    "axes.accessattempt": _row(
        SUPERUSER, "delete", actions=(("delete_selected", SUPERUSER),)
    ),
}
