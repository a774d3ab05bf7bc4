"""The table of rights is the only place that names a permission or asks Django for one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User

from omni.context import ENTRIES
from omni.errors import OmniError
from omni.roles.admin_rows import ADMIN
from omni.roles.pages import PAGES
from omni.roles.rights import (
    ANYBODY,
    CHAT,
    LOGGED_IN,
    OPERATE,
    RIGHTS,
    STAFF,
    SUPERUSER,
    Allowed,
    may,
    require,
    rights_of,
)

ROOT = Path(__file__).parents[2]
APPS = ("omni", "gpus", "deployments", "chat")
TABLE = ROOT / "omni" / "roles"
# Asking Django itself: methods, decorators and mixins, and the fields behind them.
ASKS = {
    "has_perm",
    "has_perms",
    "has_module_perms",
    "get_all_permissions",
    "permission_required",
    "PermissionRequiredMixin",
    "user_passes_test",
    "staff_member_required",
    "is_staff",
    "is_superuser",
}
# The command that makes the first administrator looks whether there is one.
MAKES_USERS = ROOT / "omni" / "management" / "commands" / "prepare.py"


def sources() -> Iterator[Path]:
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if (
                path != MAKES_USERS
                and TABLE not in path.parents
                and "migrations" not in path.parts
            ):
                yield path


def codenames() -> set[str]:
    """Of the permissions that are words of the table, with and without their app."""
    permissions = {right for right in RIGHTS if "." in right}
    return permissions | {right.partition(".")[2] for right in permissions}


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def texts_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_other_module_asks_django_who_may_do_what() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        for name in names_in(ast.parse(path.read_text()))
        if name in ASKS
    ]
    assert not found


def test_no_other_module_spells_the_name_of_a_permission() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sources()
        for text in texts_in(ast.parse(path.read_text()))
        if text in codenames()
    ]
    assert not found


def test_templates_ask_the_table_by_names_that_it_has() -> None:
    asked: set[str] = set()
    for path in sorted((ROOT / "templates").rglob("*.html")):
        text = path.read_text()
        assert not re.search(r"\bperms\.|\bis_staff\b|\bis_superuser\b", text), path
        asked |= set(re.findall(r"\bmay\.(\w+)", text))
    asked |= {entry.needs for entry in ENTRIES if entry.needs}
    assert asked == set(Allowed.NAMES)


def test_every_word_that_is_used_says_what_it_allows() -> None:
    used = {
        right for page in PAGES.values() for right in (page.look, page.act) if right
    }
    used |= {right for row in ADMIN.values() for right in (row.right, row.look)}
    used |= {right for row in ADMIN.values() for _, right in row.actions}
    assert used | set(Allowed.NAMES.values()) <= set(RIGHTS)
    for word, right in RIGHTS.items():
        assert right.allows.startswith("Can ") and not right.allows.endswith("."), word


@pytest.mark.django_db
def test_every_permission_of_the_table_is_one_of_djangos() -> None:
    known = {
        f"{label}.{codename}"
        for label, codename in Permission.objects.values_list(
            "content_type__app_label", "codename"
        )
    }
    assert {right for right in RIGHTS if "." in right} <= known


def test_who_is_refused_is_told_which_right_is_lacking(viewer_user: User) -> None:
    with pytest.raises(OmniError) as refused:
        require(viewer_user, OPERATE)
    assert refused.value.code == "forbidden"
    assert refused.value.text == "You may not operate deployments."
    require(None, OPERATE)


def test_may_when_nobody_is_logged_in_is_only_what_anybody_may() -> None:
    allowed = {right for right in RIGHTS if may(AnonymousUser(), right)}
    assert allowed == {ANYBODY}


def test_may_when_the_account_is_closed_is_only_what_anybody_may(
    admin_user: User,
) -> None:
    assert {right for right in RIGHTS if may(admin_user, right)} == set(RIGHTS)
    admin_user.is_active = False
    assert {right for right in RIGHTS if may(admin_user, right)} == {ANYBODY}


def test_rights_of_an_operator_are_those_of_the_role_and_no_word_of_staff(
    operator_user: User,
) -> None:
    assert rights_of(operator_user) == {OPERATE, CHAT}
    assert may(operator_user, LOGGED_IN)
    assert not may(operator_user, STAFF) and not may(operator_user, SUPERUSER)
