"""Who may do what: the one table of rights, and the only module that asks Django for a permission.

Pages (omni.middleware holds them against PAGES), sockets (PageSocket.permission), the
administration (RightsAdmin holds it against ADMIN), services (`require`) and templates
(`{% if may.operate %}`) all ask it. A test keeps codenames and `has_perm` out of every other file.

Roles are Django groups: an administrator is a superuser, an operator runs models, a viewer looks
on. A right is a Django permission, or one of the words below. What stands in no row is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni.errors import OmniError

OPERATOR = "operator"
VIEWER = "viewer"

# --- rights ---------------------------------------------------------------------------------------
ANYBODY = "anybody"
LOGGED_IN = "logged in"
STAFF = "staff"
SUPERUSER = "superuser"
# Permissions, as app_label.codename. Who is logged in may look at every page.
OPERATE = "deployments.operate_deployment"
MANAGE_LIBRARY = "deployments.manage_library"
CHAT = "chat.use_chat"
# External servers and their keys. The program of an engine is more than that: whoever names one
# runs it.
MANAGE_ENGINES = "deployments.add_engine"
MANAGE_PROGRAMS = SUPERUSER
MANAGE_ROUTES = "deployments.add_route"
# Other people's; who may chat has keys of their own.
MANAGE_KEYS = SUPERUSER
# Of others: everybody sees, counts and cancels their own. What was said in a request is for
# administrators alone, however it was asked.
SEE_REQUESTS = SUPERUSER
CANCEL_REQUESTS = OPERATE
KEEP_BODIES = SUPERUSER
ACKNOWLEDGE_ALERTS = OPERATE
# Their rules, where they are told, and who may scrape: an address that is set is asked by us.
MANAGE_ALERTS = SUPERUSER
SCRAPE = SUPERUSER
ADD_DEVICES = "gpus.add_device"
REMOVE_DEVICES = "gpus.delete_device"


@dataclass(frozen=True)
class Right:
    """What a word means: `to_do` completes "You may not …", `allows` is what its holder can do."""

    to_do: str
    allows: str


RIGHTS: dict[str, Right] = {
    ANYBODY: Right("see this", "Can log in, and ask whether the panel is there"),
    LOGGED_IN: Right(
        "do this without logging in", "Can look at every page but others' conversations"
    ),
    STAFF: Right(
        "open the administration",
        "Can open the administration, where every page needs a permission of its own besides",
    ),
    SUPERUSER: Right(
        "do this: it is for administrators",
        "Can do everything; alone names the programs that are run as engines, users, and others'"
        " keys",
    ),
    OPERATE: Right(
        "operate deployments", "Can create, start, stop and delete deployments"
    ),
    MANAGE_LIBRARY: Right(
        "manage the library", "Can scan folders and add or remove models"
    ),
    CHAT: Right("chat", "Can chat with deployments"),
    MANAGE_ENGINES: Right(
        "manage external servers",
        "Can add, ask and remove external servers and set their keys",
    ),
    MANAGE_ROUTES: Right(
        "manage routes", "Can point the gateway's further names at other deployments"
    ),
    ADD_DEVICES: Right(
        "add devices", "Can add devices of other hosts and switch stand-ins"
    ),
    REMOVE_DEVICES: Right(
        "remove devices", "Can take devices of other hosts off this one"
    ),
}

ROLE_PERMISSIONS: dict[str, tuple[str, ...]] = {
    OPERATOR: (OPERATE, CHAT),
    VIEWER: (),
}


def declared(right: str) -> tuple[str, str]:
    """A permission as the Meta of a model declares it: codename, and what it allows."""
    return right.partition(".")[2], RIGHTS[right].allows


def may(user: Any, right: str) -> bool:
    """Whether this user, who may be anonymous, has the right."""
    if right == ANYBODY:
        return True
    if not (user.is_authenticated and user.is_active):
        return False
    if right == LOGGED_IN:
        return True
    if right == STAFF:
        return bool(user.is_staff)
    if right == SUPERUSER:
        return bool(user.is_superuser)
    return bool(user.has_perm(right))


def require(user: Any, right: str) -> None:
    """Raises OmniError (forbidden).

    None is the machine's owner at the command line, or Omni itself.
    """
    if user is not None and not may(user, right):
        raise OmniError(
            "forbidden", f"You may not {RIGHTS[right].to_do}.", "Ask an administrator."
        )


def holders(right: str) -> Any:
    """All users who may use a permission now, as a query."""
    from django.contrib.auth import get_user_model

    backend = "django.contrib.auth.backends.ModelBackend"
    return get_user_model()._default_manager.with_perm(right, backend=backend)


def rights_of(user: Any) -> frozenset[str]:
    """All that a user holds at this moment, to notice when some of it goes."""
    words = frozenset(word for word in (STAFF, SUPERUSER) if may(user, word))
    return words | frozenset(user.get_all_permissions())


class Allowed:
    """What the user of a page may do, for its templates: `{% if may.operate %}`."""

    NAMES = {
        "administer": STAFF,
        "operate": OPERATE,
        "manage_library": MANAGE_LIBRARY,
        "manage_engines": MANAGE_ENGINES,
        "chat": CHAT,
        "add_devices": ADD_DEVICES,
        "remove_devices": REMOVE_DEVICES,
        "see_requests": SEE_REQUESTS,
        "keep_bodies": KEEP_BODIES,
        "acknowledge_alerts": ACKNOWLEDGE_ALERTS,
        "manage_alerts": MANAGE_ALERTS,
    }

    def __init__(self, user: Any) -> None:
        self._user = user

    def __getitem__(self, name: str) -> bool:
        return may(self._user, self.NAMES[name])


# --- pages ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Page:
    """The right to look (GET, HEAD), and the one to act (every other method); empty: the page has
    no such method."""

    look: str = ""
    act: str = ""


SEEN = Page(LOGGED_IN)

PAGES: dict[str, Page] = {
    "healthz": Page(ANYBODY, ANYBODY),
    # It says 401 by itself: a script asks for it.
    "socket_token": Page(ANYBODY),
    # It says 401 by itself: a scraper asks with a token or a key, and is not sent to a form.
    "metrics": Page(ANYBODY),
    "login": Page(ANYBODY, ANYBODY),
    "logout": Page("", LOGGED_IN),
    "password_change": Page(LOGGED_IN, LOGGED_IN),
    "glossary": SEEN,
    # --- what is best
    "deployments:advice": SEEN,
    "deployments:answer": SEEN,
    "deployments:advice_ask": Page("", OPERATE),
    "deployments:advice_deploy": Page("", OPERATE),
    "deployments:advice_measure": Page("", OPERATE),
    "deployments:advice_export": SEEN,
    "deployments:advice_running": SEEN,
    # --- rig
    "gpus:rig": SEEN,
    "gpus:card": SEEN,
    "gpus:history": SEEN,
    "gpus:history_points": SEEN,
    "gpus:history_export": SEEN,
    "deployments:across": SEEN,
    "deployments:card_processes": SEEN,
    "deployments:device_server": SEEN,
    "deployments:device_add": Page("", ADD_DEVICES),
    "deployments:device_remove": Page("", REMOVE_DEVICES),
    "deployments:stand_ins": SEEN,
    "deployments:stand_ins_switch": Page("", ADD_DEVICES),
    # --- models
    "deployments:models": SEEN,
    "deployments:model": SEEN,
    "deployments:model_advice": SEEN,
    "deployments:scan": Page("", MANAGE_LIBRARY),
    "deployments:folder_add": Page("", MANAGE_LIBRARY),
    "deployments:folder_remove": Page("", MANAGE_LIBRARY),
    "deployments:model_remove": Page("", MANAGE_LIBRARY),
    # Asking the hub, by ?repo=, needs MANAGE_LIBRARY as well.
    "deployments:download": SEEN,
    "deployments:download_list": SEEN,
    "deployments:hub_plan": Page(MANAGE_LIBRARY),
    "deployments:download_start": Page("", MANAGE_LIBRARY),
    "deployments:download_pause": Page("", MANAGE_LIBRARY),
    "deployments:download_resume": Page("", MANAGE_LIBRARY),
    "deployments:download_cancel": Page("", MANAGE_LIBRARY),
    "deployments:download_forget": Page("", MANAGE_LIBRARY),
    # --- external servers
    "deployments:server": SEEN,
    "deployments:server_add": Page(MANAGE_ENGINES, MANAGE_ENGINES),
    "deployments:server_ask": Page("", MANAGE_ENGINES),
    "deployments:server_key": Page("", MANAGE_ENGINES),
    "deployments:server_remove": Page("", MANAGE_ENGINES),
    "deployments:server_offer": Page("", OPERATE),
    "deployments:server_change": Page(OPERATE, OPERATE),
    # --- plan and rig file
    "deployments:plan": Page(LOGGED_IN, OPERATE),
    "deployments:plan_presets": SEEN,
    "deployments:accuracy": SEEN,
    # What a file may change is judged entry by entry besides (deployments.rig.rights).
    "deployments:rig_file": Page(LOGGED_IN, OPERATE),
    "deployments:rig_download": SEEN,
    "deployments:rig_schema": SEEN,
    # Shows where a prompt would go; nothing is sent or kept.
    "deployments:routing": Page(LOGGED_IN, LOGGED_IN),
    "deployments:connect": SEEN,
    # --- deployments
    "deployments:deployments": SEEN,
    "deployments:deployment": SEEN,
    "deployments:quick": SEEN,
    "deployments:quick_deploy": Page("", OPERATE),
    "deployments:create": Page(OPERATE, OPERATE),
    "deployments:change": Page(OPERATE, OPERATE),
    "deployments:start": Page("", OPERATE),
    "deployments:stop": Page("", OPERATE),
    "deployments:delete": Page("", OPERATE),
    # --- keys: one of somebody else is, for all but administrators, not there
    "deployments:keys": SEEN,
    "deployments:key_new": Page(CHAT, CHAT),
    "deployments:key_change": Page(CHAT, CHAT),
    "deployments:key_revoke": Page("", CHAT),
    "deployments:key_delete": Page("", CHAT),
    # --- benchmarks
    "deployments:benchmark_export": SEEN,
    "deployments:benchmarks_compared": SEEN,
    "deployments:benchmarks": SEEN,
    "deployments:benchmark": SEEN,
    "deployments:benchmark_new": Page(OPERATE, OPERATE),
    "deployments:benchmark_cancel": Page("", OPERATE),
    "deployments:benchmark_forget": Page("", OPERATE),
    # --- activity: their own requests, and everybody's for administrators
    "deployments:activity": SEEN,
    "deployments:activity_running": SEEN,
    "deployments:activity_request": SEEN,
    "deployments:activity_export": SEEN,
    # Their own; those of others need CANCEL_REQUESTS besides.
    "deployments:activity_cancel": Page("", LOGGED_IN),
    "deployments:activity_bodies": Page("", KEEP_BODIES),
    "deployments:usage": SEEN,
    "deployments:usage_export": SEEN,
    # --- alerts
    "deployments:alerts": SEEN,
    "deployments:alert_line": SEEN,
    "deployments:alert_acknowledge": Page("", ACKNOWLEDGE_ALERTS),
    "deployments:alert_rule": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel_add": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel_test": Page("", MANAGE_ALERTS),
    "deployments:alert_channel_remove": Page("", MANAGE_ALERTS),
    "deployments:scrape_token_make": Page("", MANAGE_ALERTS),
    "deployments:scrape_token_remove": Page("", MANAGE_ALERTS),
    # --- chat: a conversation is its owner's, and for everybody else not there
    "chat:list": SEEN,
    "chat:conversation": SEEN,
    "chat:thread": SEEN,
    "chat:lanes": SEEN,
    "chat:differences": SEEN,
    "chat:export": SEEN,
    "chat:benchmark": Page(OPERATE),
    # Votes of everybody, without what was said.
    "chat:standings": SEEN,
    "chat:new": Page("", CHAT),
    "chat:blind": Page("", CHAT),
    "chat:in-turn": Page("", CHAT),
    "chat:lane-add": Page("", CHAT),
    "chat:lane-change": Page("", CHAT),
    "chat:lane-remove": Page("", CHAT),
    "chat:settings": Page("", CHAT),
    "chat:rename": Page("", CHAT),
    "chat:delete": Page("", CHAT),
}


def right_for(view: str, method: str) -> str | None:
    """What a request needs; None for a page without a row, empty for a method that the page does
    not have."""
    page = PAGES.get(view)
    if page is None:
        return None
    if method in ("GET", "HEAD"):
        return page.look
    return page.act


# --- administration -------------------------------------------------------------------------------
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


# --- groups ---------------------------------------------------------------------------------------
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
