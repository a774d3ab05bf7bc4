"""`manage.py prepare`: what a panel needs before its parts start; `up` runs it."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from omni.launcher import last_lines
from omni.new_database import is_empty, make_tables

BROKER_TIMEOUT_S = 10.0
BROKER_TICK_S = 0.02


class Command(BaseCommand):
    help = "Make or update the database and the first administrator. `manage.py up` runs this."
    requires_system_checks = ()
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        self._migrate()
        self._ensure_admin()
        wait_for_broker()

    def _migrate(self) -> None:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if not plan:
            return
        self._say("Preparing the database …")
        if is_empty(connection):
            make_tables(connection, [migration for migration, _ in plan])
        else:
            call_command("migrate", interactive=False, verbosity=0)

    def _ensure_admin(self) -> None:
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return
        given = os.environ.get("OMNI_ADMIN_PASSWORD", "")
        if given:
            refuse_weak_password(given)
        password = given or secrets.token_urlsafe(12)
        users.create_superuser("admin", password=password)
        if given:
            shown = "the password from OMNI_ADMIN_PASSWORD"
        else:
            shown = f"password {password}  (shown this once)"
        self._say(f"Made the administrator: name admin, {shown}")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def refuse_weak_password(password: str) -> None:
    """The same rules as for a password that is typed into a page."""
    try:
        validate_password(password)
    except ValidationError as error:
        said = " ".join(error.messages)
        raise CommandError(
            f"OMNI_ADMIN_PASSWORD cannot be the administrator's password. {said} "
            "Set another one, or none: then one is made and shown once."
        ) from None


def wait_for_broker() -> None:
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL, socket_connect_timeout=1)
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    while True:
        try:
            client.ping()
            return client.close()
        except (redis.RedisError, OSError) as error:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"The broker does not answer: {error}. {_hint()}"
                ) from None
        time.sleep(BROKER_TICK_S)


def _hint() -> str:
    if settings.OMNI_BROKER_URL:
        return "Check OMNI_BROKER_URL."
    log = settings.OMNI_HOME.logs / "broker.log"
    return f"The end of {log}:\n{last_lines(log)}"
