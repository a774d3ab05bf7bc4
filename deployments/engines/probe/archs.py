"""Which architectures of models an engine's build has.

Asked of the binary once, when either is new, and kept.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.conf import settings

from deployments.engines import get_flavour
from deployments.engines.base import EngineFlavour
from deployments.engines.probe.environment import engine_environment
from deployments.engines.probe.programs import run_to_end
from deployments.models import Engine, Model

_ARCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
TIMEOUT_S = 15.0
# The log is written beside the work: now and then a program ends before it has written anything.
TRIES = 5


def lacked(engine: Engine, archs: Iterable[str]) -> frozenset[str]:
    """Those that the build is known not to have; nothing is asked."""
    return frozenset(arch for arch in archs if engine.archs.get(arch) is False)


def learn_archs() -> None:
    """Asks this host's engines for those of the library's models that they were not asked for yet.

    It starts programs, which takes from a moment to seconds: a scan may, a page may not.
    """
    archs = set(Model.objects.values_list("arch", flat=True).distinct())
    for engine in Engine.objects.filter(
        host__name=settings.OMNI_HOST_NAME, state=Engine.State.OK
    ):
        learn(engine, archs)


def learn(engine: Engine, archs: Iterable[str]) -> None:
    """The same of one engine, whose row is kept."""
    if engine.is_external:
        return
    flavour = get_flavour(engine.flavour)
    if not flavour.loading_args(""):
        return
    for arch in sorted(set(archs) - set(engine.archs)):
        if not _ARCH.fullmatch(arch):
            continue
        engine.archs = {**engine.archs, arch: _has_arch(flavour, engine.path, arch)}
        Engine.objects.filter(pk=engine.pk).update(archs=engine.archs)


_answers: dict[tuple[str, int, str], bool] = {}


def _has_arch(flavour: EngineFlavour, path: str, arch: str) -> bool:
    """Whether the build has it. What it does not say counts as had: a start will tell."""
    key = (path, _stamp(path), arch)
    if key not in _answers:
        said = _said_of(flavour, path, arch)
        _answers[key] = said is not False
    return _answers[key]


def _said_of(flavour: EngineFlavour, path: str, arch: str) -> bool | None:
    """The binary is given a file that says its architecture and nothing else."""
    with NamedTemporaryFile(suffix=".gguf") as file:
        file.write(_only_arch(arch))
        file.flush()
        for _ in range(TRIES):
            try:
                said = _loading(flavour, path, file.name)
            except OSError:  # a TimeoutError is one too
                return None
            if (is_known := flavour.has_arch(said)) is not None:
                return is_known
    return None


def _loading(flavour: EngineFlavour, path: str, model: str) -> str:
    """What the engine says while it fails to load this file."""
    args = (*flavour.program(path), *flavour.loading_args(model))
    done = run_to_end(args, engine_environment(path), TIMEOUT_S)
    if done:
        return done.text
    return ""


def _only_arch(arch: str) -> bytes:
    """A GGUF of version 3 with one key and no tensors."""
    key = b"general.architecture"
    value = arch.encode()
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair + bytes(64)


def _stamp(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0
