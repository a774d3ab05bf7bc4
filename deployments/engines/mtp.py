"""Which architectures an engine binary can draft for with their own layers (MTP), asked of the
binary itself.

llama.cpp has one class per architecture, and those that draft so have a graph of their own in it:
llama_model_<architecture>::graph_mtp (src/models/models.h). Its name stands in the type information
of every build, stripped ones too. A model without such a graph is loaded all the same and ends the
server at the first answer.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Set
from functools import lru_cache
from pathlib import Path

# Kept among the flags of a build, which no flag can look like: that it was asked, and that it told.
ASKED = "draft-mtp (asked)"
IS_KNOWN = "draft-mtp (told)"
# Itanium names: N, then each part with its length before it.
_GRAPH = re.compile(rb"N(\d{1,3})llama_model_(\w{1,80}?)9graph_mtpE")
_LARGEST_BYTES = 4 << 30
_Stamp = tuple[int, ...]


def mtp_flags(program: Path) -> frozenset[str]:
    """What to keep of a binary: one entry per architecture.

    Other engines and old builds have no such names.
    """
    names = {name for file in _code(program) for name in _names_in(*file)}
    found = frozenset(map(_mark, names))
    if found:
        return found | {ASKED, IS_KNOWN}
    return frozenset({ASKED})


def has_mtp(flags: Set[str], arch: str) -> bool | None:
    """Whether a build drafts with the model's own layers for an architecture; None where it does
    not tell."""
    if IS_KNOWN in flags:
        return _mark(arch) in flags
    return None


def _mark(arch: str) -> str:
    """Classes are named after the architectures, with other signs between the words."""
    return f"draft-mtp ({re.sub('[-_.]', '', arch.lower())})"


# A rig file is resolved again and again with the same engines, and to search one takes longer than
# all the rest.
@lru_cache(maxsize=64)
def _names_in(path: Path, stamp: _Stamp) -> frozenset[str]:
    """The architectures with a graph of their own in a file that has this stamp."""
    try:
        with (
            path.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return frozenset(
                match[2].decode()
                for match in _GRAPH.finditer(content)
                if int(match[1]) == len(b"llama_model_" + match[2])
            )
    except (OSError, ValueError):
        # An empty file cannot be mapped; one that went away has nothing to tell.
        return frozenset()


def _code(program: Path) -> list[tuple[Path, _Stamp]]:
    """The binary and its own libraries: beside it, or in the lib folder beside its folder."""
    folder = program.resolve().parent
    beside = [*folder.glob("libllama*.so*"), *folder.parent.glob("lib/libllama*.so*")]
    files = {path.resolve() for path in (program, *beside)}
    found = [(path, path.stat()) for path in files if path.is_file()]
    return [
        (path, _stamp(stat)) for path, stat in found if stat.st_size <= _LARGEST_BYTES
    ]


def _stamp(stat: os.stat_result) -> _Stamp:
    """A change time cannot be set back: no other content has the same."""
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
