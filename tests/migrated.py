"""The empty database of the tests: migrated by the first of the processes that share them, copied
by the others.

All migrations, one after the other, take seconds of each process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from django.core.management.commands.migrate import Command
from django.db import connections

migrate = Command.handle


def migrate_or_copy(self: Command, *args: Any, **options: Any) -> None:
    """Stands where the command `migrate` does its work: the same as ever for a database that has
    tables, and for PostgreSQL."""
    connection = connections[options["database"]]
    if connection.vendor != "sqlite" or connection.introspection.table_names():
        migrate(self, *args, **options)
        return
    shared = Path(os.environ["OMNI_TEST_SHARED"])
    made = shared / "migrated.sqlite3"
    with (shared / "migrated.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            _copy(made, connection.connection)
        else:
            migrate(self, *args, **options)
            _keep(connection.connection, made)


def _copy(made: Path, database: sqlite3.Connection) -> None:
    source = sqlite3.connect(made)
    source.backup(database)
    source.close()


def _keep(database: sqlite3.Connection, made: Path) -> None:
    half = made.with_suffix(".half")
    kept = sqlite3.connect(half)
    database.backup(kept)
    kept.close()
    half.replace(made)
