"""Whether a panel can start with what is there: asked before Django is loaded to prepare it."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

# To import it ends the start where the environment has a word that cannot be used.
from omni import settings
from omni.identity import OMNI_BROKER_URL, OMNI_HOME

# Every app that has migrations: its label is the last word.
MIGRATED = (
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "axes",
    "rest_framework_api_key",
    "gpus",
    "deployments",
    "chat",
)
BROKER_TIMEOUT_S = 2.0
BROKER_TICK_S = 0.01


def is_prepared() -> bool:
    """False where anything is missing or cannot be told: then `manage.py prepare` does its work,
    and says what is wrong."""
    if OMNI_BROKER_URL or settings.database_url:
        return False
    return is_complete(OMNI_HOME.database) and answers(OMNI_HOME.valkey_socket)


def is_complete(database: Path) -> bool:
    """Whether every migration was applied and there is an administrator."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(database)) as connection:
            applied = connection.execute("SELECT app, name FROM django_migrations")
            if not migrations() <= set(applied):
                return False
            return has_administrator(connection)
    except sqlite3.Error:
        return False


def has_administrator(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM auth_user WHERE is_superuser LIMIT 1")
    return found.fetchone() is not None


def migrations() -> set[tuple[str, str]]:
    """All there are, by their files: app and name."""
    return {
        (package.rpartition(".")[2], file.stem)
        for package in MIGRATED
        for file in files_of(package)
    }


def files_of(package: str) -> Iterator[Path]:
    """Without importing it, which would load Django."""
    top, *rest = package.split(".")
    found = find_spec(top)
    for folder in found.submodule_search_locations or () if found else ():
        yield from Path(folder, *rest, "migrations").glob("[!_~]*.py")


def answers(broker: Path) -> bool:
    """Whether the embedded broker does, which was started a moment ago."""
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(BROKER_TIMEOUT_S)
                client.connect(str(broker))
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
        except OSError:
            time.sleep(BROKER_TICK_S)
    return False
