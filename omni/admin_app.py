"""Django's administration, loaded by what serves it.

Its pages, their theme and the forms behind them take 26 MB and 0.4 s, which an agent, a sampler and
a command have no use for.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class AdministrationConfig(SimpleAdminConfig):
    """As Django's own, but `omni.urls` and the checks look for the apps' admin modules."""

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_administration, checks.Tags.admin)


def check_administration(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Django's check of what is registered, after all of it is."""
    admin.autodiscover()
    return list(check_admin_app(app_configs, **kwargs))
