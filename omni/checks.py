"""System checks: what would fail later fails at start, with a hint."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from omni.roles.admin_rows import ADMIN
from omni.roles.pages import PAGES


@register()
def home_is_writable(**kwargs: Any) -> list[CheckMessage]:
    home = settings.OMNI_HOME
    try:
        home.create()
        with tempfile.TemporaryFile(dir=home.run):
            return []
    except OSError as error:
        return [
            Error(
                f"OMNI_HOME ({home.root}) cannot be written: {error.strerror}.",
                hint="Set OMNI_HOME to a folder that belongs to you.",
                id="omni.E001",
            )
        ]


@register()
def llama_server_is_executable(**kwargs: Any) -> list[CheckMessage]:
    path = settings.OMNI_LLAMA_SERVER
    if not path or os.access(path, os.X_OK):
        return []
    hint = "Set OMNI_LLAMA_SERVER to the llama-server binary, or unset it."
    return [
        Warning(
            f"OMNI_LLAMA_SERVER ({path}) is not an executable file.",
            hint=hint,
            id="omni.W001",
        )
    ]


@register(deploy=True)
def every_host_allowed(**kwargs: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = (
        "List the panel's names in OMNI_ALLOWED_HOSTS: any name may be pointed at this machine's"
        " address."
    )
    return [Error("ALLOWED_HOSTS has a star.", hint=hint, id="omni.E002")]


@register()
def every_page_has_a_row(**kwargs: Any) -> list[CheckMessage]:
    """A page without a row in the table of rights is refused to everybody."""
    from django.urls import get_resolver

    lacking = sorted(set(view_names(get_resolver())) - set(PAGES))
    hint = "Give it a row in omni.roles.pages.PAGES."
    return [
        Error(
            f"The page {name} stands in no row of the table of rights.",
            hint=hint,
            id="omni.E003",
        )
        for name in lacking
    ]


@register()
def every_admin_page_has_a_row(**kwargs: Any) -> list[CheckMessage]:
    from django.contrib import admin

    from omni.administration import RightsAdmin

    admin.autodiscover()
    registered = {
        model._meta.label_lower: page for model, page in admin.site._registry.items()
    }
    hint = "Register a RightsAdmin, with a row in omni.roles.admin_rows.ADMIN."
    return [
        Error(
            f"The administration of {label} asks no table of rights.",
            hint=hint,
            id="omni.E004",
        )
        for label, page in registered.items()
        if label not in ADMIN or not isinstance(page, RightsAdmin)
    ]


def view_names(resolver: Any, app: str = "") -> Iterator[str]:
    """Of every page but the administration's, which asks by itself."""
    for pattern in resolver.url_patterns:
        if not hasattr(pattern, "url_patterns"):
            yield f"{app}{pattern.name}"
        elif pattern.app_name != "admin":
            yield from view_names(
                pattern, f"{pattern.app_name}:" if pattern.app_name else app
            )
