"""Fetches the files of one download, from wherever an earlier try stopped.

Bytes go into a `.part` file whose name has the content's checksum; it is renamed once all files of
the download are whole and right. So the library never sees half a model, and any crash leaves
something to go on from.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from django.db import DatabaseError
from django.db.models import QuerySet
from django.utils import timezone

from deployments.announce import downloads_changed
from deployments.library import downloads, folders, hub_bytes
from deployments.library.hub_files import RepoFile
from deployments.models import Download
from omni.backoff import backoff_s
from omni.broadcast import publish
from omni.errors import OmniError
from omni.events import STATE_GROUP
from omni.units import MIB, progress_text

log = logging.getLogger(__name__)

TICK_S = 0.5
RATE_WINDOW_S = 5.0
# Tries in a row that bring nothing; one that brings something begins the count again.
# Together about three minutes: as long as a router takes to restart.
MAX_TRIES = 10
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
READ_BYTES = 4 * MIB


class Stopped(Exception):
    """Somebody paused or cancelled it, or the agent ends."""


class Fetching:
    """One download's work, in a thread of its own. `run` never raises; the row says how it went."""

    def __init__(
        self, download: Download, ending: Callable[[], bool] = lambda: False
    ) -> None:
        self.download = download
        self.ending = ending
        self.files = [RepoFile(**file) for file in download.files]
        self.folder = Path(download.folder)
        self.had: dict[str, int] = {}
        self.next_tick = 0.0
        self.points: deque[tuple[float, int]] = deque()

    # --- the whole --------------------------------------------------------------------------------
    def run(self) -> None:
        try:
            self._claim()
            self._fetch_all()
        except Stopped:
            self._note_what_is_there()
        except OmniError as error:
            self._fail(error)
        except OSError as error:
            self._fail(_disk_error(error, self.folder))
        except DatabaseError as error:
            # The row says that it is wanted still, so the agent's next tick begins it again.
            log.warning("download %s stopped: %s", self.download, error)
        except Exception:
            log.exception("download %s failed", self.download)
            text = "Something unforeseen happened; the agent's log has the details."
            self._fail(OmniError("download_failed", text, "Try again.", retry=True))
        downloads_changed()

    def _claim(self) -> None:
        now = timezone.now()
        changes = {
            "state": Download.State.RUNNING,
            "started_at": self.download.started_at or now,
            "rate_bps": 0,
        }
        if not self._rows(*Download.WANTED).update(**changes):
            raise Stopped
        downloads_changed()

    def _rows(self, *states: str) -> QuerySet[Download]:
        return Download.objects.filter(pk=self.download.pk, state__in=states)

    def _fetch_all(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.files:
            self.had[file.path] = self._present_bytes(file)
        downloads.check_room(
            self.folder, self.download.total_bytes - sum(self.had.values())
        )
        for file in self.files:
            if not self._is_here(file):
                self._fetch(file)
        self._tick(force=True)
        for file in self.files:
            if (part := part_path(self.folder, file)).exists():
                part.replace(self.folder / file.path)
        # A pause that came after the last byte has nothing left to pause.
        folders.scan(
            [
                self.folder / file.path
                for file in self.files
                if file.path.lower().endswith(".gguf")
            ]
        )
        self._rows(Download.State.RUNNING, Download.State.PAUSED).update(
            state=Download.State.DONE,
            done_bytes=self.download.total_bytes,
            rate_bps=0,
            finished_at=timezone.now(),
        )
        log.info("download %s is done", self.download)

    def _fail(self, error: OmniError) -> None:
        self._note_what_is_there()
        changes = {
            "error_code": error.code,
            "error": error.text,
            "fix": error.fix,
            "rate_bps": 0,
        }
        self._rows(*Download.WANTED).update(state=Download.State.FAILED, **changes)
        log.warning("download %s: %s", self.download, error)

    def _note_what_is_there(self) -> None:
        done = min(
            sum(self._present_bytes(file) for file in self.files),
            self.download.total_bytes,
        )
        Download.objects.filter(pk=self.download.pk).update(done_bytes=done)

    # --- one file ---------------------------------------------------------------------------------
    def _present_bytes(self, file: RepoFile) -> int:
        for path in (self.folder / file.path, part_path(self.folder, file)):
            if path.is_file():
                return min(path.stat().st_size, file.size)
        return 0

    def _is_here(self, file: RepoFile) -> bool:
        """Raises OmniError (file_exists) when another file has its place: nobody's file is
        overwritten."""
        path = self.folder / file.path
        if not path.exists():
            return False
        if path.stat().st_size == file.size and _is_right(
            file, self._hashed(file, path)
        ):
            return True
        text = f"There is another file {path}."
        raise OmniError(
            "file_exists",
            text,
            "Move or delete it, or choose another folder, then try again.",
        )

    def _fetch(self, file: RepoFile) -> None:
        part = _Part(file, part_path(self.folder, file))
        part.open()
        for block in part.blocks():
            part.digest.update(block)
            self._tick()
        failures = 0
        while part.size < file.size:
            had = part.size
            try:
                self._append(part)
            except OmniError as error:
                # One that brought something is no failure in a row.
                failures = 0 if part.size > had else failures + 1
                is_hopeless = not error.retry or error.code == "disk_full"
                if is_hopeless or failures >= MAX_TRIES:
                    raise
                log.info("download %s: %s Trying again.", self.download, error.text)
                self._sleep(backoff_s(failures, FIRST_WAIT_S, LONGEST_WAIT_S))
        if not _is_right(file, part.digest):
            part.path.unlink()
            text = (
                f"The checksum of {file.path} is not the one that the hub lists; it was thrown"
                " away."
            )
            raise OmniError(
                "bad_checksum",
                text,
                "Try again; if it stays so, the file on the hub is damaged.",
            )

    def _append(self, part: _Part) -> None:
        """Brings more of the file, as far as the connection lasts."""
        file = part.file
        with hub_bytes.opened(
            self.download.repo, self.download.revision, file, part.size
        ) as stream:
            if stream.offset != part.size:
                part.restart()
            with part.path.open("r+b") as output:
                output.truncate(part.size)
                output.seek(part.size)
                for piece in stream.pieces():
                    if part.size + len(piece) > file.size:
                        raise OmniError(
                            "hub_changed",
                            f"The hub sends more of {file.path} than it lists.",
                            "Try again.",
                        )
                    output.write(piece)
                    part.add(piece)
                    self.had[file.path] = part.size
                    self._tick()
        if part.size < file.size:
            raise OmniError(
                "hub_unreachable",
                f"The hub stopped in the middle of {file.path}.",
                "",
                retry=True,
            )

    def _hashed(self, file: RepoFile, path: Path) -> hashlib._Hash:
        whole = _Part(file, path)
        for block in whole.blocks():
            whole.digest.update(block)
            self._tick()
        return whole.digest

    # --- progress ---------------------------------------------------------------------------------
    def _tick(self, *, force: bool = False) -> None:
        """At most twice a second: says how far it is, and hears whether it is still wanted, in one
        statement."""
        now = time.monotonic()
        if now < self.next_tick and not force:
            return
        self.next_tick = now + TICK_S
        done = min(sum(self.had.values()), self.download.total_bytes)
        rate = self._rate(now, done)
        if self.ending() or not self._is_wanted(done, rate):
            raise Stopped
        downloads.check_reserve(self.folder)
        publish(
            STATE_GROUP,
            {
                "type": "download.progress",
                "download": self.download.pk,
                "done_bytes": done,
                "total_bytes": self.download.total_bytes,
                "text": progress_text(done, self.download.total_bytes, rate),
            },
        )

    def _is_wanted(self, done: int, rate: int) -> bool:
        try:
            return bool(
                self._rows(Download.State.RUNNING).update(
                    done_bytes=done, rate_bps=rate
                )
            )
        except DatabaseError as error:
            # What comes in is worth more than this one note of it.
            log.warning(
                "download %s: how far it is was not kept: %s", self.download, error
            )
            return True

    def _rate(self, now: float, done: int) -> int:
        self.points.append((now, done))
        while now - self.points[0][0] > RATE_WINDOW_S and len(self.points) > 2:
            self.points.popleft()
        began, before = self.points[0]
        if now > began:
            return max(0, int((done - before) / (now - began)))
        return 0

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._tick()
            time.sleep(min(0.1, seconds))


# --- files ----------------------------------------------------------------------------------------
class _Part:
    """A file on its way: how much of it is there, and the digest of just that."""

    def __init__(self, file: RepoFile, path: Path) -> None:
        self.file = file
        self.path = path
        self.size, self.digest = 0, _digest(file)

    def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > self.file.size:
            self.path.unlink()
        self.path.touch()
        self.size = self.path.stat().st_size

    def blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as source:
            while block := source.read(READ_BYTES):
                yield block

    def restart(self) -> None:
        self.size, self.digest = 0, _digest(self.file)

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.size += len(piece)


def part_path(folder: Path, file: RepoFile) -> Path:
    """Where a file lies until it is whole; another content of the same name has another one."""
    path = folder / file.path
    return path.with_name(
        f"{path.name}.{(file.sha256 or file.blob_id or 'unknown')[:12]}.part"
    )


def remove_parts(download: Download) -> None:
    """What a cancelled download leaves behind, and the folders that are empty without it."""
    folder = Path(download.folder)
    for file in (RepoFile(**file) for file in download.files):
        part = part_path(folder, file)
        part.unlink(missing_ok=True)
        for parent in part.parents:
            if (
                not parent.is_relative_to(folder.parent)
                or not parent.is_dir()
                or any(parent.iterdir())
            ):
                break
            parent.rmdir()


def _digest(file: RepoFile) -> hashlib._Hash:
    if file.sha256 or not file.blob_id:
        return hashlib.sha256()
    # What git calls a blob's id (gitformat-loose(5)).
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _is_right(file: RepoFile, digest: hashlib._Hash) -> bool:
    wanted = file.sha256 or file.blob_id
    return not wanted or digest.hexdigest() == wanted


def _disk_error(error: OSError, folder: Path) -> OmniError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"The disk of {folder} is full."
        return OmniError(
            "disk_full",
            text,
            "Free some space, then try again; what is there is kept.",
            retry=True,
        )
    text = f"{folder} cannot be written to ({error.strerror or error})."
    return OmniError(
        "bad_folder", text, "Give the panel's user access, or choose another folder."
    )
