"""Serves files that installed packages carry, so that no third-party script is kept in this
repository."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

# URL below /static/ → (package, file inside it)
PACKAGED = {
    "vendor/uPlot.js": ("uplot", "static/uPlot.iife.js"),
    "vendor/uPlot.css": ("uplot", "static/uPlot.min.css"),
}


def packaged_file(package: str, inside: str) -> Path | None:
    """Where a file of a package lies; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / inside).is_file():
            return path
    return None


class PackageStorage(FileSystemStorage):
    def path(self, name: str) -> str:
        found = packaged_file(*PACKAGED[name])
        if found is None:
            raise FileNotFoundError(
                f"The package {PACKAGED[name][0]} is not installed; run `make up` again."
            )
        return str(found)


class PackageFinder(BaseFinder):
    storage = PackageStorage()

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        if path in PACKAGED:
            found = str(packaged_file(*PACKAGED[path]) or "")
        else:
            found = ""
        if find_all:
            if found:
                return [found]
            return []
        return found or []

    def list(self, ignore_patterns: Any) -> Iterator[tuple[str, PackageStorage]]:
        for path, source in PACKAGED.items():
            if packaged_file(*source):
                yield path, self.storage
