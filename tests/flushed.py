"""What stands in an empty database, put back after a flush by copying rows.

After every test with real transactions Django empties all tables and lets each app make its
permissions and groups again, one query after the other: a dozen times as long as to empty them.
Here that is done the first time; later the same rows are written as they were.
"""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.management.commands import flush
from django.db import connections, transaction

Rows = list[tuple[Any, ...]]
make_rows = flush.emit_post_migrate_signal
# By the name of the database; the migrations' own record is not flushed.
_known: dict[str, dict[str, Rows]] = {}
NOT_FLUSHED = {"django_migrations"}


def put_back(verbosity: int, interactive: bool, db: str, **options: Any) -> None:
    """Stands where the command `flush` sends the signal to all apps."""
    name = str(connections[db].settings_dict["NAME"])
    if name not in _known:
        make_rows(verbosity, interactive, db, **options)
        _known[name] = _all_rows(db)
        return
    ContentType.objects.clear_cache()
    with transaction.atomic(using=db), connections[db].cursor() as cursor:
        for table, rows in _known[name].items():
            marks = ", ".join(["%s"] * len(rows[0]))
            quoted = connections[db].ops.quote_name(table)
            cursor.executemany(f"INSERT INTO {quoted} VALUES ({marks})", rows)


def _all_rows(db: str) -> dict[str, Rows]:
    """Of each table that has any."""
    connection = connections[db]
    found: dict[str, Rows] = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows = cursor.fetchall()
            if rows and table not in NOT_FLUSHED:
                found[table] = rows
    return found
