"""A database without tables gets all of them at once, as the models have them now.

That is where the migrations lead, which a test holds against it, in a twentieth of the time that
they take one after the other: Django makes every model anew for each of their steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core.management.sql import emit_post_migrate_signal
from django.db.migrations import Migration
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model


def is_empty(connection: Any) -> bool:
    """Whether it is an SQLite database without any table; others are made by their migrations."""
    return connection.vendor == "sqlite" and not connection.introspection.table_names()


def make_tables(connection: Any, migrations: Sequence[Migration]) -> None:
    """All tables with what migrations leave in them, and that these were applied; or nothing."""
    recorder = MigrationRecorder(connection)
    applied = [
        recorder.Migration(app=migration.app_label, name=migration.name)
        for migration in migrations
    ]
    with connection.schema_editor() as editor:
        editor.create_model(recorder.Migration)
        for model in models_of({migration.app_label for migration in migrations}):
            editor.create_model(model)
        recorder.migration_qs.bulk_create(applied)
        # Kinds of rows, permissions and roles.
        emit_post_migrate_signal(0, False, connection.alias)


def models_of(labels: set[str]) -> Iterator[type[Model]]:
    """Of these apps, all that have a table; those between two others come with one of them."""
    for config in apps.get_app_configs():
        if config.label in labels:
            for model in config.get_models():
                if model._meta.managed and not model._meta.proxy:
                    yield model
