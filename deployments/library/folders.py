"""The library's folders: which belong to it, what lies in them, and what has gone from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.announce import library_changed
from deployments.engines.probe.archs import learn_archs
from deployments.formats.model_folder import holds_model
from deployments.library.model_files import files_of, found_files, is_there, model_at
from deployments.library.rows import Rows, mark_growing, register
from deployments.library.timeouts import FOLDER_TIMEOUT_S, NoAnswer, in_time
from deployments.library.walk import (
    MAX_PATH,
    Skipped,
    is_file,
    is_folder,
    is_utf8,
    shown,
)
from deployments.models import LibraryFolder, Model
from omni.errors import OmniError
from omni.roles.rights import MANAGE_LIBRARY, require

__all__ = [
    "ScanReport",
    "folder_add",
    "folder_remove",
    "mark_growing",
    "mark_missing",
    "register",
    "scan",
]


@dataclass
class ScanReport:
    """The models found, in order of their paths, and what could not be looked at."""

    models: list[Model] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


# --- folders --------------------------------------------------------------------------------------
def folder_add(path: str, *, user: Any = None) -> LibraryFolder:
    """Makes a folder part of the library.

    Raises OmniError (bad_folder) that says what is wrong with it.
    """
    require(user, MANAGE_LIBRARY)
    folder = _checked_folder(path)
    for known in LibraryFolder.objects.all():
        if folder == Path(known.path):
            raise OmniError(
                "bad_folder", f"{folder} is in the library already.", "Scan it."
            )
    return LibraryFolder.objects.create(path=str(folder))


def _checked_folder(path: str) -> Path:
    try:
        is_full = bool(path.strip()) and Path(path).expanduser().is_absolute()
        folder = Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        # A link that leads back to itself, nobody's home, a name that no file can have.
        raise OmniError(
            "bad_folder", f"There is no folder {shown(path)}.", "Correct the path."
        ) from None
    if not is_full:
        raise OmniError(
            "bad_folder",
            f"{path!r} is not a full path.",
            "Begin it with / and name a folder.",
        )
    if not is_utf8(str(folder)) or len(str(folder)) > MAX_PATH:
        text = f"The path {shown(folder)} is not UTF-8, or longer than {MAX_PATH} characters."
        raise OmniError("bad_folder", text, "Rename the folder.")
    if not is_folder(folder):
        raise OmniError(
            "bad_folder",
            f"There is no folder {folder}.",
            "Create it, or correct the path.",
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise OmniError(
            "bad_folder",
            f"The folder {folder} cannot be read.",
            "Give the panel's user access.",
        )
    if (
        folder == Path("/")
        or folder.is_relative_to(settings.OMNI_HOME.run)
        or folder in _SYSTEM
    ):
        raise OmniError(
            "bad_folder",
            f"{folder} is not a place for models.",
            "Name the folder they lie in.",
        )
    return folder


_SYSTEM = frozenset(
    map(
        Path,
        (
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/lib",
            "/proc",
            "/run",
            "/sbin",
            "/sys",
            "/usr",
        ),
    )
)


def folder_remove(folder: LibraryFolder, *, user: Any = None) -> int:
    """Takes a folder and its models out of the library; files stay. Raises OmniError (in_use)."""
    require(user, MANAGE_LIBRARY)
    elsewhere = LibraryFolder.objects.exclude(pk=folder.pk).values_list(
        "path", flat=True
    )
    others = [real_paths_of(Path(path)) for path in elsewhere]
    own = [
        model
        for model in Model.objects.only("pk", "path")
        if _lies_in(model, real_paths_of(Path(folder.path)))
        and not any(_lies_in(model, other) for other in others)
    ]
    used = sorted(
        {
            b.deployment.name
            for m in own
            for b in m.bindings.select_related("deployment")
        }
    )
    if used:
        text = f"Models in {folder.path} are used by {', '.join(used)}."
        raise OmniError("in_use", text, "Delete the deployments first.")
    with transaction.atomic():
        Model.objects.filter(pk__in=[m.pk for m in own]).delete()
        folder.delete()
    library_changed()
    return len(own)


def real_paths_of(folder: Path) -> set[Path]:
    """A folder as it is written and as it really is, where a link leads to it."""
    return {folder, _resolved(folder) or folder}


def _lies_in(model: Model, folders: set[Path]) -> bool:
    return any(
        place.is_relative_to(folder)
        for place in real_paths_of(Path(model.path))
        for folder in folders
    )


# --- scan -----------------------------------------------------------------------------------------
def scan(paths: Sequence[Path] = ()) -> ScanReport:
    """Registers every GGUF and model folder below the paths, or below all folders of the library
    when none is given.

    Models whose files have gone are marked. Raises OmniError (not_found, bad_folder) for a path
    that is none.
    """
    for path in paths:
        if not (is_file(path) or is_folder(path)):
            text = f"There is no file or folder {shown(path)}."
            raise OmniError("not_found", text, "Correct the path.")
    folders = [_folder_row(path) for path in paths if is_folder(path)]
    if not paths:
        folders = list(LibraryFolder.objects.all())
    report = ScanReport()
    files = [model_at(path.absolute()) for path in paths if is_file(path)]
    _register(files, Skipped(), report)
    for folder in folders:
        _scan_folder(folder, report)
    mark_missing()
    learn_archs()
    library_changed()
    return report


def _folder_row(path: Path) -> LibraryFolder:
    return LibraryFolder.objects.get_or_create(path=str(_checked_folder(str(path))))[0]


def _scan_folder(folder: LibraryFolder, report: ScanReport) -> None:
    skipped = Skipped()
    folder.error, found = look_into(Path(folder.path), skipped, library_roots())
    if folder.error:
        report.skipped.append(f"{folder.path}: {folder.error}")
    _register((model for model, _ in found), skipped, report)
    folder.skipped, folder.scanned_at = skipped.listed(), timezone.now()
    # The row may have been removed meanwhile: then it is not to come back.
    LibraryFolder.objects.filter(pk=folder.pk).update(
        error=folder.error, skipped=folder.skipped, scanned_at=folder.scanned_at
    )


def _register(models: Iterable[Path], skipped: Skipped, report: ScanReport) -> None:
    report.models += [found.model for found in Rows(skipped).register(models)]
    report.skipped += skipped.listed()


# --- looking --------------------------------------------------------------------------------------
def look_into(
    root: Path, skipped: Skipped, roots: Sequence[Path]
) -> tuple[str, list[tuple[Path, Path]]]:
    """(why nothing can be found in this folder or '', every (model, file of it) below it, in
    order)."""

    def look() -> tuple[str, list[tuple[Path, Path]]]:
        error = folder_error(root)
        return error, [] if error else list(model_paths(root, skipped, roots))

    try:
        return in_time(look, str(root), FOLDER_TIMEOUT_S)
    except NoAnswer:
        return f"The folder gives no answer within {FOLDER_TIMEOUT_S:.0f} s.", []
    except OSError as error:
        return f"The folder cannot be read ({error.strerror}).", []


def folder_error(root: Path) -> str:
    """Why nothing can be found in this folder; empty when it can be looked into."""
    if not is_utf8(str(root)):
        return "The folder's name is not UTF-8."
    if not is_folder(root):
        return "The folder is not there."
    if os.access(root, os.R_OK | os.X_OK):
        return ""
    return "The folder cannot be read."


def library_roots() -> list[Path]:
    """Where the folders of the library really are."""
    return [
        real
        for path in LibraryFolder.objects.values_list("path", flat=True)
        if (real := _resolved(Path(path)))
    ]


def model_paths(
    root: Path, skipped: Skipped, roots: Sequence[Path]
) -> Iterator[tuple[Path, Path]]:
    """(model, file of it) below a folder, in order.

    A link that leads out of the library is not followed.
    """
    inside = [*roots, *filter(None, [_resolved(root)])]
    for model, files, links in found_files(root, skipped):
        outside = [path for path in links if not _is_confined(path, inside)]
        for path in outside:
            skipped.add(
                path, "a link to a file outside the library; add that file's folder"
            )
        yield from ((model, path) for path in files if not outside)


def _is_confined(path: Path, roots: Sequence[Path]) -> bool:
    """Whether the file a link really leads to lies in a folder of the library."""
    real = _resolved(path)
    return bool(real and any(real.is_relative_to(root) for root in roots))


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def renew(paths: Iterable[Path]) -> bool:
    """Registers what lies at these paths; whether that changed anything."""
    registered = list(Rows().register(paths))
    if registered:
        learn_archs()
    return any(found.changed for found in registered)


# --- what has gone --------------------------------------------------------------------------------
def mark_missing() -> bool:
    """Marks models whose files have gone, and folders that are no longer whole; whether there are
    any."""
    known = Model.objects.exclude(state=Model.State.MISSING).only(
        "path", "shards", "format", "state", "error"
    )
    gone = [model for model in known if not is_there(Path(model.path), model.shards)]
    for model in gone:
        what = "folder" if model.is_folder else "file"
        model.state, model.error = (
            Model.State.MISSING,
            f"There is no {what} {model.path}.",
        )
        model.save(update_fields=["state", "error"])
    partial = [
        Path(model.path)
        for model in known
        if model not in gone and _is_partial_folder(model)
    ]
    return renew(partial) or bool(gone)


def _is_partial_folder(model: Model) -> bool:
    if not model.is_folder or model.state != Model.State.OK:
        return False
    return not holds_model([file.name for file in files_of(Path(model.path))])
