"""What of a file system is one model: a GGUF with its shards, or a folder with safetensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from deployments.fingerprint import fingerprint, fingerprint_of_all
from deployments.gguf import shard_paths
from deployments.model_folder import folder_files, holds_model, is_part

MAX_DEPTH = 12


def found_files(root: Path) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """(model, file of it) below a folder, in order: of a GGUF each shard under the first one, of a folder each file.

    Hidden folders and links to folders are not followed.
    """
    for here, folders, names in os.walk(root, followlinks=False):
        depth = len(Path(here).relative_to(root).parts)
        folders[:] = sorted(n for n in folders if not n.startswith(".")) if depth < MAX_DEPTH else []
        if holds_model(names):
            yield Path(here), tuple(Path(here, name) for name in sorted(names) if is_part(name))
        for name in sorted(names):
            if name.lower().endswith(".gguf"):
                path = Path(here, name)
                yield shard_paths(path)[0], (path,)


def model_of(file: Path) -> Path:
    """The model that a file belongs to, one that has gone too: its GGUF's first shard, or its folder."""
    return shard_paths(file)[0] if file.name.lower().endswith(".gguf") else file.parent


def files_of(model: Path) -> tuple[Path, ...]:
    """All shards of a GGUF, whether they exist or not; of a folder the files that are in it."""
    return folder_files(model) if model.is_dir() else shard_paths(model)


def stamp_of(model: Path) -> tuple[int, int]:
    """(newest modification in ns, size in bytes) of all files that are there; of a folder the weights' size."""
    stats = {path: path.stat() for path in files_of(model) if path.exists()}
    is_folder = model.is_dir()
    counted = [s for path, s in stats.items() if not is_folder or path.name.endswith(".safetensors")]
    return max((s.st_mtime_ns for s in stats.values()), default=0), sum(s.st_size for s in counted)


def fingerprint_of(model: Path) -> str:
    """Tells a model that was moved from another one; empty where there is nothing."""
    return fingerprint_of_all(folder_files(model)) if model.is_dir() else fingerprint(model)


def model_at(file: Path) -> Path:
    """What a person means who names this file: any shard of a GGUF, or a file of a model's folder."""
    is_gguf = file.name.lower().endswith(".gguf")
    return model_of(file) if is_gguf or holds_model([path.name for path in folder_files(file.parent)]) else file


def is_there(model: Path, files: list[str]) -> bool:
    """Whether anything is left of it."""
    return any(Path(file).exists() for file in files or [str(model)])
