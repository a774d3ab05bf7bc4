"""A start that finds all prepared loads no Django for it; every other one is prepared."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from django.db.migrations.loader import MigrationLoader

from omni.home import Home
from omni.launcher import valkey_child
from omni.prepared import answers, is_complete, migrations
from tests import prepared

Change = Callable[[Path], object]


def test_the_files_are_the_migrations_that_django_finds() -> None:
    found = MigrationLoader(None).disk_migrations
    assert migrations() == set(found)


def sql(statement: str) -> Change:
    def change(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda database: None, True),
        # A newer version was here.
        (
            sql("INSERT INTO django_migrations VALUES (9999, 'chat', '9999_x', '')"),
            True,
        ),
        (lambda database: database.unlink(), False),
        (lambda database: database.write_bytes(b""), False),
        (lambda database: database.write_bytes(b"no database at all" * 500), False),
        (sql("DELETE FROM django_migrations WHERE app = 'gpus' AND id % 2"), False),
        (sql("DROP TABLE django_migrations"), False),
        (sql("UPDATE auth_user SET is_superuser = 0"), False),
    ],
    ids=["as made", "newer", "none", "empty", "damaged", "older", "bare", "no admin"],
)
def test_a_database_is_complete_with_all_migrations_and_an_administrator(
    tmp_path: Path, change: Change, expected: bool
) -> None:
    home = Home(tmp_path / "home")
    prepared.put_database(home)
    change(home.database)
    assert is_complete(home.database) is expected


def test_the_broker_is_asked_whether_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    monkeypatch.setattr("omni.prepared.BROKER_TIMEOUT_S", 0.05)
    assert not answers(home.valkey_socket)
    monkeypatch.undo()
    broker = valkey_child(home.valkey_socket, home.run, home.logs)
    broker.start()
    try:
        assert answers(home.valkey_socket)
    finally:
        broker.stop(timeout_s=5)
