"""JSON documents that are kept in a folder so that they need not be fetched again: a bounded number
of them, the least used gone first. Any of them may be deleted at any time."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Document = dict[str, Any]


@dataclass(frozen=True)
class KeptDocuments:
    folder: Path
    most_files: int
    most_bytes: int

    def get(self, key: str) -> Document | None:
        """The document; None where there is none, or none that can be read."""
        path = self._path(key)
        try:
            if path.stat().st_size > self.most_bytes:
                return None
            found = json.loads(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError, RecursionError):
            return None
        if isinstance(found, dict) and found.get("key") == key:
            return found
        return None

    def keep(self, key: str, document: Document) -> None:
        """One that is too large, or that the disk does not take, is not kept."""
        raw = json.dumps({**document, "key": key}).encode()
        if len(raw) > self.most_bytes:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._path(key), raw)
            self._evict()
        except OSError as error:
            log.warning("%s was not kept: %s", key, error)

    def _write(self, path: Path, raw: bytes) -> None:
        """Whole or not at all; two that write the same document both succeed."""
        descriptor, draft = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
            Path(draft).replace(path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise

    def _evict(self) -> None:
        used = [(_used_ns(path), path) for path in self.folder.iterdir()]
        for _, path in sorted(used, reverse=True)[self.most_files :]:
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{sha256(key.encode()).hexdigest()}.json"


def _used_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
