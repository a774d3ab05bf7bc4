"""The rights, and whether somebody has one: what services, sockets and templates ask.

A right is a Django permission, or one of the words below. What stands in no row is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni.errors import OmniError

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
# What is known to one is hidden from all.
HIDE_FINDINGS = SUPERUSER


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
        "hide_findings": HIDE_FINDINGS,
        "acknowledge_alerts": ACKNOWLEDGE_ALERTS,
        "manage_alerts": MANAGE_ALERTS,
    }

    def __init__(self, user: Any) -> None:
        self._user = user

    def __getitem__(self, name: str) -> bool:
        return may(self._user, self.NAMES[name])
