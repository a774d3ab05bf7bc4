"""Looks through a library folder; nothing that lies in it can stop or hold up the look.

Every entry is asked for by itself, and what cannot be asked is named. Nothing is opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from deployments.formats.gguf_window import printable

MAX_DEPTH = 12
# Of one folder, hidden ones and those below it left out; far above what people have.
MAX_ENTRIES = 200_000
# As long as the database has it; engines get the path as an argument.
MAX_PATH = 500
MAX_SKIPPED = 200
MODEL_SUFFIXES = (".gguf", ".safetensors")

_KINDS = (
    (stat.S_ISDIR, "a link to a folder; add that folder"),
    (stat.S_ISFIFO, "a pipe, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)
_ERRORS = {
    errno.ELOOP: "a link that leads back to itself",
    errno.ENOENT: "a link to a file that is not there",
    errno.ENOTDIR: "a link to a file that is not there",
}


@dataclass
class Skipped:
    """What was passed over, one sentence each; of very many only the first."""

    texts: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, path: str | Path, why: str) -> None:
        self.count += 1
        if len(self.texts) < MAX_SKIPPED:
            self.texts.append(f"{shown(path)}: {why}.")

    def listed(self) -> list[str]:
        left = self.count - len(self.texts)
        return self.texts + ([f"and {left} more."] if left else [])


def shown(path: str | Path) -> str:
    """A path for people: what is not UTF-8 in it is replaced."""
    return printable(str(path), MAX_PATH)


def is_utf8(name: str) -> bool:
    """Whether a name can be stored and shown as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Listing:
    """A folder below the root and the regular files in it, by name."""

    folder: Path
    names: tuple[str, ...]
    links: frozenset[str] = frozenset()


def walk(root: Path, skipped: Skipped) -> Iterator[Listing]:
    """Every folder from the root on, in order.

    Hidden folders and links to folders are not followed.
    """
    waiting = [(root, 0)]
    left = MAX_ENTRIES
    while waiting:
        folder, depth = waiting.pop()
        entries = _entries(folder, left, skipped)
        left -= len(entries)
        folders = [entry for entry in entries if _is_folder(entry)]
        files = [
            entry for entry in entries if _is_wanted(entry) and _is_file(entry, skipped)
        ]
        links = frozenset(entry.name for entry in files if entry.is_symlink())
        yield Listing(folder, tuple(entry.name for entry in files), links)
        below = [
            Path(entry.path) for entry in folders if _may_enter(entry, depth, skipped)
        ]
        waiting += [(path, depth + 1) for path in reversed(below)]
        if left <= 0:
            skipped.add(
                root, f"more than {MAX_ENTRIES} files; the rest is not looked at"
            )
            return


def _entries(folder: Path, most: int, skipped: Skipped) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(islice(found, most), key=lambda entry: entry.name)
    except OSError as error:
        skipped.add(folder, f"it cannot be read ({error.strerror})")
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _may_enter(entry: os.DirEntry[str], depth: int, skipped: Skipped) -> bool:
    if entry.name.startswith("."):
        return False
    if not is_utf8(entry.name):
        skipped.add(entry.path, "the folder's name is not UTF-8; rename it")
        return False
    if depth >= MAX_DEPTH:
        skipped.add(entry.path, f"it lies more than {MAX_DEPTH} folders deep")
        return False
    if entry.name.lower().endswith(MODEL_SUFFIXES):
        skipped.add(entry.path, "a folder, not a file; what is in it is looked at")
    return True


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    """Any file may belong to a model folder; hidden ones do not."""
    return not entry.name.startswith(".") and not _is_folder(entry)


def _is_file(entry: os.DirEntry[str], skipped: Skipped) -> bool:
    """Whether it is a regular file that can be registered.

    Named where its name says that it is a model.
    """
    why = _why_not(entry)
    if why and entry.name.lower().endswith(MODEL_SUFFIXES):
        skipped.add(entry.path, why)
    return not why


def _why_not(entry: os.DirEntry[str]) -> str:
    if not is_utf8(entry.path):
        return "the name is not UTF-8; rename it"
    if len(entry.path) > MAX_PATH:
        return f"the path is longer than {MAX_PATH} characters"
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        known = _ERRORS.get(error.errno or 0) if entry.is_symlink() else None
        return known or f"it cannot be looked at ({error.strerror})"
    if stat.S_ISREG(mode):
        return ""
    return next((text for is_kind, text in _KINDS if is_kind(mode)), "not a file")


def stat_of(path: Path) -> os.stat_result | None:
    """None where it is not there, leads nowhere or cannot be looked at."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def is_file(path: Path) -> bool:
    """Whether it is a regular file, links followed. Never raises."""
    found = stat_of(path)
    return bool(found and stat.S_ISREG(found.st_mode))


def is_folder(path: Path) -> bool:
    """Whether it is a folder, links followed. Never raises."""
    found = stat_of(path)
    return bool(found and stat.S_ISDIR(found.st_mode))
