"""Notices files that come, grow, move or go in the library's folders; reads only what has come to rest.

Looking at names, sizes and times costs next to nothing and works on every file system, network ones too.
"""

from __future__ import annotations

import logging
from pathlib import Path

from deployments import library
from deployments.gguf import shard_paths
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
        moving = {path for path, stamp in now.items() if path in self.seen and self.seen[path] != stamp}
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
            library.announce()
        return changed

    def _look(self) -> tuple[dict[Path, Stamp], bool]:
        """Every GGUF with its stamp, and whether a folder came or went."""
        found: dict[Path, Stamp] = {}
        changed = False
        for folder in LibraryFolder.objects.all():
            root = Path(folder.path)
            error = library.folder_error(root)
            if error != folder.error:
                LibraryFolder.objects.filter(pk=folder.pk).update(error=error)
                changed = True
            if not error:
                found |= {path: stamp for path in library.gguf_files(root, []) if (stamp := _stamp(path))}
        return found, changed

    def _take_up(self, fresh: set[Path], moving: set[Path], waiting: set[Path], now: dict[Path, Stamp]) -> bool:
        changed = False
        for first in sorted({shard_paths(path)[0] for path in fresh}):
            shards = [path for path in shard_paths(first) if path in now]
            if moving.intersection(shards):
                changed = library.mark_growing(first) or changed
            elif not waiting.intersection(shards):
                changed = library.renew(first) or changed
                self.known |= {path: now[path] for path in shards}
        return changed

    def _drop(self, gone: set[Path], now: dict[Path, Stamp]) -> bool:
        """A shard that goes makes its model incomplete; a model all of which goes is marked."""
        changed = False
        for first in sorted({shard_paths(path)[0] for path in gone}):
            if any(path in now for path in shard_paths(first)):
                changed = library.renew(first) or changed
        return library.mark_missing() or changed


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
