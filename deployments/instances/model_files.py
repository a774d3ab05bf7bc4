"""The files an engine has loaded: how large, and whether others have taken their names since."""

from __future__ import annotations

from pathlib import Path

from deployments.formats.gguf import shard_paths
from deployments.models import Instance
from deployments.planning.launch_facts import LaunchFacts


def file_bytes(launch: LaunchFacts) -> int:
    """Of the model, of its draft and of its projector, as far as they are there."""
    paths = [
        file
        for path in (launch.model_path, launch.draft_path, launch.projector_path)
        for file in _files(path, launch.is_folder)
    ]
    return sum(path.stat().st_size for path in paths if path.exists())


def file_stamp(launch: LaunchFacts) -> str:
    """Tells one model's file, or its projector's, from another that took its name; empty where
    there is none to look at."""
    try:
        files = _files(launch.model_path, launch.is_folder)
        stats = [path.stat() for path in files + _files(launch.projector_path, False)]
    except OSError:
        return ""
    if stats:
        return f"{sum(one.st_size for one in stats)} {max(one.st_mtime_ns for one in stats)}"
    return ""


def _files(path: str, is_folder: bool) -> list[Path]:
    if not path:
        return []
    if is_folder:
        return list(Path(path).glob("*.safetensors"))
    return list(shard_paths(Path(path)))


def serves_old_file(instance: Instance) -> bool:
    """Whether another file has taken the name of the one that this engine has loaded."""
    if instance.pid and instance.file_stamp:
        now = file_stamp(instance.launch_facts)
    else:
        now = ""
    return bool(now) and now != instance.file_stamp
