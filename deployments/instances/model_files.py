"""The files an engine has loaded: how large, and whether others have taken their names since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployments.formats.gguf import shard_paths
from deployments.models import Instance


def argument(argv: Sequence[str], flag: str) -> str:
    """The word after the flag; empty without it."""
    return next((value for name, value in zip(argv, argv[1:], strict=False) if name == flag), "")


def file_bytes(argv: Sequence[str]) -> int:
    if tuple(argv[1:2]) == ("serve",):
        return sum(file.stat().st_size for file in Path(argv[2]).glob("*.safetensors"))
    path = argument(argv, "-m")
    return (
        sum(shard.stat().st_size for shard in shard_paths(Path(path)) if shard.exists())
        if path
        else 0
    )


def file_stamp(argv: Sequence[str]) -> str:
    """Tells one file from another that took its name; empty where there is none to look at."""
    try:
        stats = [path.stat() for path in _loaded_files(argv)]
    except OSError:
        return ""
    return (
        f"{sum(one.st_size for one in stats)} {max(one.st_mtime_ns for one in stats)}"
        if stats
        else ""
    )


def _loaded_files(argv: Sequence[str]) -> list[Path]:
    if tuple(argv[1:2]) == ("serve",):
        return list(Path(argv[2]).glob("*.safetensors"))
    path = argument(argv, "-m")
    return list(shard_paths(Path(path))) if path else []


def serves_old_file(instance: Instance) -> bool:
    """Whether another file has taken the name of the one that this engine has loaded."""
    now = file_stamp(instance.argv) if instance.pid and instance.file_stamp else ""
    return bool(now) and now != instance.file_stamp
