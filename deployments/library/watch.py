"""Notices files that come, grow, move or go in the library's folders; reads only what has come to
rest.

Looking at names, sizes and times costs next to nothing and works on every file system, network ones
too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from deployments.announce import library_changed
from deployments.library import folders
from deployments.library.model_files import model_of
from deployments.library.walk import Skipped, stat_of
from deployments.models import LibraryFolder

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]  # size, modification in ns, inode


class LibraryWatch:
    """`check` from time to time; what it knows of the last check tells what moves."""

    def __init__(self) -> None:
        self.seen: dict[Path, Stamp] = {}
        self.known: dict[Path, Stamp] = {}
        self.is_unsettled = False

    def check(self) -> bool:
        """Whether the library is another than before."""
        now, changed = self._look()
        moving = {
            path
            for path, stamp in now.items()
            if path in self.seen and self.seen[path] != stamp
        }
        fresh = {path for path, stamp in now.items() if self.known.get(path) != stamp}
        # A file of which this check is the first may still be written.
        waiting = fresh - {path for path in fresh if self.seen.get(path) == now[path]}
        gone = (self.known.keys() | self.seen.keys()) - now.keys()
        self.is_unsettled = bool(waiting)
        self.seen = now
        changed = self._take_up(fresh, moving, waiting, now) or changed
        for path in gone:
            self.known.pop(path, None)
        if gone:
            changed = self._drop(gone, now) or changed
        if changed:
            library_changed()
        return changed

    def _look(self) -> tuple[dict[Path, Stamp], bool]:
        """Every file of a model with its stamp, and whether a folder came or went."""
        found: dict[Path, Stamp] = {}
        changed = False
        roots = folders.library_roots()
        for folder in LibraryFolder.objects.all():
            skipped = Skipped()
            error, files = folders.look_into(Path(folder.path), skipped, roots)
            news = {"error": error, "skipped": skipped.listed()}
            if news != {"error": folder.error, "skipped": folder.skipped}:
                LibraryFolder.objects.filter(pk=folder.pk).update(**news)
                changed = True
            found |= {path: stamp for _, path in files if (stamp := _stamp(path))}
        return found, changed

    def _take_up(
        self,
        fresh: set[Path],
        moving: set[Path],
        waiting: set[Path],
        now: dict[Path, Stamp],
    ) -> bool:
        changed = False
        files = _by_model(now)
        resting = []
        for model in sorted({model_of(path) for path in fresh}):
            if moving.intersection(files[model]):
                changed = folders.mark_growing(model) or changed
            elif not waiting.intersection(files[model]):
                resting.append(model)
        changed = folders.renew(resting) or changed
        self.known |= {path: now[path] for model in resting for path in files[model]}
        return changed

    def _drop(self, gone: set[Path], now: dict[Path, Stamp]) -> bool:
        """A file that goes makes its model incomplete; a model all of which goes is marked."""
        left = _by_model(now)
        changed = folders.renew(
            model
            for model in sorted({model_of(path) for path in gone})
            if model in left
        )
        return folders.mark_missing() or changed


def _by_model(files: Iterable[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for path in files:
        found.setdefault(model_of(path), []).append(path)
    return found


def _stamp(path: Path) -> Stamp | None:
    found = stat_of(path)
    if found:
        return (found.st_size, found.st_mtime_ns, found.st_ino)
    return None
