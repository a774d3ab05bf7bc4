"""PostgreSQL instead of SQLite: OMNI_TEST_DATABASE_URL is a database of a throw-away server, which
tests fill."""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

URL = os.environ.get("OMNI_TEST_DATABASE_URL", "")


def url_of(database: str) -> str:
    return urlunsplit(urlsplit(URL)._replace(path=f"/{database}"))


def own_database(name: str) -> dict[str, str]:
    """The environment of a process that is to have an empty database of its own; empty with SQLite,
    which has one in each OMNI_HOME."""
    return {"OMNI_DATABASE_URL": _new_database(name)} if URL else {}


def _new_database(name: str) -> str:
    import psycopg
    from psycopg import sql

    with psycopg.connect(URL, autocommit=True) as server:
        server.execute(
            sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
        )
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return url_of(name)
