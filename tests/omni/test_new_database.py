"""The tables that are made at once are those to which the migrations lead."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from omni.home import Home
from tests import prepared
from tests.prepared import ROOT

ROWS = {
    "migrations": "SELECT app, name FROM django_migrations ORDER BY 1, 2",
    "kinds of rows": "SELECT app_label, model FROM django_content_type ORDER BY 1, 2",
    "permissions": (
        "SELECT app_label, model, codename, p.name FROM auth_permission p"
        " JOIN django_content_type c ON c.id = content_type_id ORDER BY 1, 2, 3"
    ),
    "roles": (
        "SELECT g.name, codename FROM auth_group g"
        " LEFT JOIN auth_group_permissions j ON j.group_id = g.id"
        " LEFT JOIN auth_permission p ON p.id = permission_id ORDER BY 1, 2"
    ),
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that Django made, one migration after the other."""
    home = Home(tmp_path_factory.mktemp("migrated") / "home")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMNI_", "DJANGO"))}
    env["OMNI_HOME"] = str(home.root)
    argv = [sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"]
    done = subprocess.run(
        argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return home.database


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that `manage.py prepare` made."""
    home = Home(tmp_path_factory.mktemp("made") / "home")
    prepared.put_database(home)
    return home.database


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def parts(sql: str) -> Iterator[str]:
    """Columns and constraints of a table, as its statement has them between commas."""
    inner, depth, begin = sql[sql.index("(") + 1 : sql.rindex(")")], 0, 0
    for place, sign in enumerate(inner):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            yield inner[begin:place].strip()
            begin = place + 1
    yield inner[begin:].strip()


def tables(database: Path) -> dict[str, list[str]]:
    """By name, in any order: a migration puts a new column behind the others."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
    found = rows(database, f"{query} AND name NOT LIKE 'sqlite%'")
    return {name: sorted(parts(sql)) for name, sql in found}


def indexes(database: Path) -> list[str]:
    query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    return sorted(re.sub(r"\s+", " ", sql) for (sql,) in rows(database, query))


def test_tables_and_indexes_are_the_same(migrated: Path, made: Path) -> None:
    assert tables(made) == tables(migrated) and len(tables(made)) > 40
    assert indexes(made) == indexes(migrated)


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_migrations_leave_are_the_same(
    migrated: Path, made: Path, what: str
) -> None:
    assert rows(made, ROWS[what]) == rows(migrated, ROWS[what]) != []
