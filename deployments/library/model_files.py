"""What of a file system is one model: a GGUF with its shards, or a folder with safetensors."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.formats.fingerprint import fingerprint, fingerprint_of_all
from deployments.formats.gguf import shard_paths
from deployments.formats.model_folder import folder_files, holds_model, is_part
from deployments.library.walk import Skipped, is_folder, stat_of, walk

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def found_files(
    root: Path, skipped: Skipped
) -> Iterator[tuple[Path, tuple[Path, ...], tuple[Path, ...]]]:
    """(model, files of it, those of them that are links) below a folder, in order.

    Of a GGUF each shard comes by itself under the first one, of a folder all files come at once.
    """
    for here in walk(root, skipped):
        if holds_model(here.names):
            parts = tuple(here.folder / name for name in here.names if is_part(name))
            yield (
                here.folder,
                parts,
                tuple(path for path in parts if path.name in here.links),
            )
        for name in here.names:
            if is_gguf(name):
                path = here.folder / name
                yield (
                    shard_paths(path)[0],
                    (path,),
                    (path,) if name in here.links else (),
                )


def is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def model_of(file: Path) -> Path:
    """The model that a file belongs to, one that has gone too: its GGUF's first shard, or its
    folder."""
    if is_gguf(file.name):
        return shard_paths(file)[0]
    return file.parent


def files_of(model: Path) -> tuple[Path, ...]:
    """All shards of a GGUF, whether they exist or not; of a folder the files that are in it."""
    if is_folder(model):
        return folder_files(model)
    return shard_paths(model)


def stamp_of(model: Path) -> tuple[int, int]:
    """(newest modification in ns, size in bytes) of all files that are there; of a folder the
    weights' size."""
    stats = {path: found for path in files_of(model) if (found := stat_of(path))}
    only_weights = is_folder(model)
    counted = [
        s
        for path, s in stats.items()
        if not only_weights or path.name.endswith(".safetensors")
    ]
    return max((s.st_mtime_ns for s in stats.values()), default=0), sum(
        s.st_size for s in counted
    )


def fingerprint_of(model: Path) -> str:
    """Tells a model that was moved from another one; empty where there is nothing."""
    if is_folder(model):
        return fingerprint_of_all(folder_files(model))
    return fingerprint(model)


@dataclass(frozen=True)
class Mark:
    """A fingerprint, and the stamp of the files it was taken of."""

    stamp: tuple[int, int]
    fingerprint: str


def mark_of(model: Path, known: Mark | None = None) -> Mark:
    """The one that is known still holds where the files are the same."""
    stamp = stamp_of(model)
    if known and known.stamp == stamp:
        return known
    return Mark(stamp, fingerprint_of(model))


def model_at(file: Path) -> Path:
    """What a person means who names this file: any shard of a GGUF, or a file of a model's
    folder."""
    in_model = is_gguf(file.name) or holds_model(
        [path.name for path in folder_files(file.parent)]
    )
    if in_model:
        return model_of(file)
    return file


def is_there(model: Path, files: list[str]) -> bool:
    """Whether anything is left of it; what may not be looked at is not known to be gone."""
    return any(not _is_gone(Path(file)) for file in files or [str(model)])


def _is_gone(path: Path) -> bool:
    """Also where something that is no file has taken its place."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.errno in _GONE
    except ValueError:
        return True
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
