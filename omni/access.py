"""Tells open sockets that somebody's rights may have changed, so that they look again at once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from omni.broadcast import publish

# Every open socket is in this group, and in the one of its user.
ACCESS_GROUP = "access"
CHANGED = {"type": "access.changed"}
LOST = {"post_remove", "post_clear"}


def access_group(user_id: int) -> str:
    return f"access.{user_id}"


def watch_access() -> None:
    """Connects what follows with the rows that decide what a person may do."""
    post_save.connect(_user_saved, sender=User)
    post_delete.connect(_user_deleted, sender=User)
    post_delete.connect(_session_deleted, sender=Session)
    post_delete.connect(_group_deleted, sender=Group)
    m2m_changed.connect(_membership_changed, sender=User.groups.through)
    m2m_changed.connect(_membership_changed, sender=User.user_permissions.through)
    m2m_changed.connect(_role_changed, sender=Group.permissions.through)


def _user_saved(
    instance: User, created: bool, update_fields: Iterable[str] | None, **kwargs: Any
) -> None:
    """Password, active, staff, superuser. A log-in saves the user too, and changes nothing."""
    if not created and set(update_fields or ()) != {"last_login"}:
        _tell(access_group(instance.pk))


def _user_deleted(instance: User, **kwargs: Any) -> None:
    _tell(access_group(instance.pk))


def _session_deleted(instance: Session, **kwargs: Any) -> None:
    """Logged out, here or in the administration."""
    user_id = str(instance.get_decoded().get("_auth_user_id", ""))
    if user_id.isdecimal():
        _tell(access_group(int(user_id)))


def _group_deleted(instance: Group, **kwargs: Any) -> None:
    _tell(ACCESS_GROUP)


def _membership_changed(instance: User | Any, action: str, **kwargs: Any) -> None:
    if action in LOST:
        _tell(access_group(instance.pk) if isinstance(instance, User) else ACCESS_GROUP)


def _role_changed(action: str, **kwargs: Any) -> None:
    if action in LOST:
        _tell(ACCESS_GROUP)


def _tell(group: str) -> None:
    """Once the change holds: who looks before would find the old rights."""
    transaction.on_commit(partial(publish, group, CHANGED))
