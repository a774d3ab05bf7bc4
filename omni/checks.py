"""System checks: what would fail later fails at start, with a hint."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


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
    return [Warning(f"OMNI_LLAMA_SERVER ({path}) is not an executable file.", hint=hint, id="omni.W001")]


@register(deploy=True)
def every_host_allowed(**kwargs: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "List the panel's names in OMNI_ALLOWED_HOSTS; a star also switches the Origin check off."
    return [Error("ALLOWED_HOSTS has a star.", hint=hint, id="omni.E002")]
