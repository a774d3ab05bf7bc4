"""The only writers of what is desired of downloads; the host's agent does the fetching."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from deployments.announce import downloads_changed, nudge
from deployments.library.hub import RepoInfo
from deployments.library.hub_files import DownloadOption, is_repo, is_safe_path
from deployments.models import Download, LibraryFolder
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import MANAGE_LIBRARY, require
from omni.units import MIB, bytes_text

log = logging.getLogger(__name__)

# Left free on the disk: the database, logs and whatever else lives there must go on.
RESERVE_BYTES = 512 * MIB


# --- room -----------------------------------------------------------------------------------------
def free_bytes(folder: Path) -> int:
    """What is free where this folder is or would be."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(there).free


def check_room(folder: Path, wanted_bytes: int) -> None:
    """Raises OmniError (disk_full)."""
    free = free_bytes(folder)
    if wanted_bytes + RESERVE_BYTES > free:
        text = (
            f"{bytes_text(wanted_bytes)} are still to come, and {bytes_text(free)} are free at"
            f" {folder}."
        )
        fix = (
            f"Free some space ({bytes_text(RESERVE_BYTES)} stay unused), then try again; what is"
            " there is kept."
        )
        raise OmniError("disk_full", text, fix, retry=True)


def check_reserve(folder: Path) -> None:
    """For while it is written: others write to the disk too. Raises OmniError (disk_full)."""
    free = free_bytes(folder)
    if free < RESERVE_BYTES:
        text = f"Only {bytes_text(free)} are left free at {folder}."
        raise OmniError(
            "disk_full",
            text,
            "Free some space, then try again; what is there is kept.",
            retry=True,
        )


def target_folders() -> list[Path]:
    """Where files may land: the library's own folder first, then the others that can be written
    to."""
    own = settings.OMNI_HOME.models
    others = [Path(f.path) for f in LibraryFolder.objects.filter(is_packaged=False)]
    return [
        own,
        *(
            path
            for path in others
            if path != own and path.is_dir() and os.access(path, os.W_OK)
        ),
    ]


# --- writing --------------------------------------------------------------------------------------
def download_request(
    *,
    host: Host,
    info: RepoInfo,
    picked: Sequence[DownloadOption],
    folder: Path | None = None,
    user: Any = None,
) -> Download:
    """A download that the agent begins at once. Raises OmniError; then nothing is kept."""
    require(user, MANAGE_LIBRARY)
    base = folder or settings.OMNI_HOME.models
    if base not in target_folders():
        raise OmniError(
            "bad_folder",
            f"{base} is no folder of the library.",
            "Add it on the Models page first.",
        )
    missing = [choice for choice in picked if choice.n_missing]
    if not picked or missing:
        if missing:
            text = f"{missing[0].label} lacks shards on the hub."
        else:
            text = "Nothing was chosen."
        raise OmniError("bad_choice", text, "Choose one that is complete.")
    files = [file for choice in picked for file in choice.files]
    if not all(is_safe_path(file.path) for file in files):
        raise OmniError(
            "bad_choice",
            "A file's name leads out of its folder.",
            "Choose another repository.",
        )
    if not is_repo(info.repo):
        raise OmniError(
            "bad_choice",
            "The repository's name leads out of the folder.",
            "Choose another repository.",
        )
    total = sum(file.size for file in files)
    target = base.joinpath(*info.repo.split("/"))
    check_room(target, total)
    try:
        with transaction.atomic():
            row = Download.objects.create(
                host=host,
                repo=info.repo,
                revision=info.revision,
                label=_label(picked),
                folder=str(target),
                files=[file.as_dict() for file in files],
                total_bytes=total,
                requested_by=user,
            )
    except IntegrityError:
        text = f"{info.repo} {_label(picked)} is being downloaded already."
        raise OmniError(
            "download_twice", text, "Look at the list of downloads."
        ) from None
    log.info("%s asked for download %s", user or "somebody", row)
    _tell(row)
    return row


def _label(picked: Sequence[DownloadOption]) -> str:
    names = [c.label if c.kind == "model" else f"projector {c.label}" for c in picked]
    return " + ".join(names)[:200]


def download_pause(*, download: Download, user: Any = None) -> None:
    """What is there stays there. Raises OmniError (download_over)."""
    require(user, MANAGE_LIBRARY)
    _move(download, Download.WANTED, Download.State.PAUSED, user)


def download_resume(*, download: Download, user: Any = None) -> None:
    """Goes on from what is there, also after an error. Raises OmniError (download_over,
    disk_full)."""
    require(user, MANAGE_LIBRARY)
    check_room(Path(download.folder), download.total_bytes - download.done_bytes)
    _move(
        download,
        (Download.State.PAUSED, Download.State.FAILED),
        Download.State.QUEUED,
        user,
    )


def download_cancel(*, download: Download, user: Any = None) -> None:
    """The agent removes what came of it. Raises OmniError (download_over)."""
    require(user, MANAGE_LIBRARY)
    _move(download, Download.UNFINISHED, Download.State.CANCELLED, user)


def download_forget(*, download: Download, user: Any = None) -> None:
    """Takes one that is over off the list; files stay. Raises OmniError (download_open)."""
    require(user, MANAGE_LIBRARY)
    if download.state in Download.UNFINISHED:
        raise OmniError("download_open", f"{download} is not over.", "Cancel it first.")
    log.info("%s took download %s off the list", user or "somebody", download)
    download.delete()
    _tell(download)


def _move(download: Download, old: Sequence[str], new: str, user: Any) -> None:
    """One statement, so that an agent that finishes or fails at this moment is not overruled."""
    changes = {"state": new, "rate_bps": 0, "error": "", "error_code": "", "fix": ""}
    if not Download.objects.filter(pk=download.pk, state__in=old).update(**changes):
        download.refresh_from_db()
        text = f"{download} is {download.get_state_display().lower()} by now."
        raise OmniError("download_over", text, "Look at the list.")
    log.info("%s made download %s %s", user or "somebody", download, new)
    _tell(download)


def _tell(download: Download) -> None:
    transaction.on_commit(downloads_changed)
    transaction.on_commit(lambda: nudge(download.host.name))
