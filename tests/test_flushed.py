"""An emptied database has what the apps would make in it, whoever puts it back."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command

from tests import flushed


def made() -> tuple[set[object], set[object]]:
    """Permissions, and which group holds which; numbers of rows differ from flush to flush."""
    held = Group.objects.values_list("name", "permissions__codename")
    known = Permission.objects.values_list(
        "codename", "name", "content_type__app_label", "content_type__model"
    )
    return set(held), set(known)


@pytest.mark.django_db(transaction=True)
def test_rows_are_put_back_as_the_apps_make_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        call_command("flush", verbosity=0, interactive=False)
    put_back = made()
    assert {name for name, _ in put_back[0]} == {"operator", "viewer"}

    monkeypatch.setattr(flushed.flush, "emit_post_migrate_signal", flushed.make_rows)
    call_command("flush", verbosity=0, interactive=False)
    assert made() == put_back
