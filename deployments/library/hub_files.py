"""What can be fetched of a repository on a Hugging Face hub, and what of it suits the memory there
is.

Repositories have no manifest: quantisations, shards and projectors are told by the names that files
have.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from deployments.names import HUB
from omni.errors import OmniError
from omni.units import GIB

# Weights, then room for the KV cache and compute buffers; the planner knows it exactly once the
# header is here.
MEMORY_FACTOR = 1.1
MEMORY_EXTRA_BYTES = GIB

Kind = Literal["model", "projector"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_QUANT = re.compile(
    r"(?:^|[-._"
    r" ])((?:UD-)?(?:IQ\d|TQ\d|Q\d)(?:_[A-Z0-9]{1,4})*"
    r"|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4)(?=$|[-._ ])",
    re.IGNORECASE,
)
_UNQUANTISED = frozenset({"F16", "FP16", "BF16", "F32", "FP32"})


@dataclass(frozen=True)
class RepoFile:
    """A file as the hub lists it. `sha256` is known of LFS files, git's `blob_id` of the others."""

    path: str
    size: int
    sha256: str = ""
    blob_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "blob_id": self.blob_id,
        }


@dataclass(frozen=True)
class DownloadOption:
    """One GGUF of a repository, all its shards. `key` is the path of its first file."""

    key: str
    label: str
    quant: str
    kind: Kind
    files: tuple[RepoFile, ...]
    n_missing: int = 0

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def is_quantised(self) -> bool:
        return bool(self.quant) and self.quant not in _UNQUANTISED


@dataclass(frozen=True)
class DeviceRoom:
    """A device as far as a first guess needs it."""

    name: str
    memory_bytes: int | None
    is_accelerator: bool = True


@dataclass(frozen=True)
class Wanted:
    """What somebody typed: a repository, and perhaps its revision and the quantisation or file in
    it."""

    repo: str
    revision: str = ""
    part: str = ""

    @property
    def name(self) -> str:
        """As purposes files and rig files write it: hub:OWNER/REPO@BRANCH:QUANT."""
        branch = f"@{self.revision}" if self.revision else ""
        part = f":{self.part}" if self.part else ""
        return f"{HUB}{self.repo}{branch}{part}"


# --- what was typed -------------------------------------------------------------------------------
def parse_repo(text: str) -> Wanted:
    """From `owner/name`, `owner/name:QUANT` or the address of a page of it.

    Raises OmniError (bad_repo).
    """
    text = text.strip()
    if "://" in text:
        path = unquote(urlsplit(text).path)
    else:
        first, _, rest = text.partition("/")
        # A dot in the first of three parts: the address of a hub without https://.
        path = rest if "." in first and "/" in rest else text
    path, _, quant = path.strip("/").partition(":")
    parts = path.removeprefix("models/").split("/")
    repo = "/".join(parts[:2])
    if not is_repo(repo):
        raise OmniError(
            "bad_repo",
            f"{text[:120]!r} is no repository.",
            "Write owner/name, or paste its address.",
        )
    if len(parts) > 3 and parts[2] in {"tree", "blob", "resolve"}:
        return Wanted(repo, parts[3], "/".join(parts[4:]))
    return Wanted(repo, "", quant)


def parse_hub_name(text: str) -> Wanted:
    """From `hub:OWNER/REPO@BRANCH:QUANT`, its branch and quantisation or file left out or not, or
    from what parse_repo reads.

    Raises OmniError (bad_repo).
    """
    text = text.strip().removeprefix(HUB)
    address, _, part = text.partition(":")
    repo, _, revision = address.partition("@")
    if is_repo(repo):
        return Wanted(repo, revision, part)
    return parse_repo(text)


def is_repo(name: str) -> bool:
    """Whether it is owner/name: such a name leads to a folder of its own and to no other."""
    return bool(_REPO.fullmatch(name)) and not (
        ".." in name or "--" in name or name.endswith((".git", "."))
    )


def is_safe_path(path: str) -> bool:
    """Whether a file of this name stays inside the folder it is meant for: names come from
    strangers."""
    parts = path.split("/")
    plain = not any(ord(letter) < 32 or letter in '\\:"' for letter in path)
    return (
        plain
        and len(path) <= 240
        and all(part and not part.startswith(".") for part in parts)
    )


# --- choices --------------------------------------------------------------------------------------
def choices(files: Iterable[RepoFile]) -> tuple[DownloadOption, ...]:
    """Every GGUF of the repository, smallest first; files that are no model (imatrix data …) are
    left out."""
    groups: dict[tuple[str, int], list[tuple[int, RepoFile]]] = defaultdict(list)
    for file in files:
        stem = file.path[:-5]
        extension = file.path[-5:]
        if (
            extension.lower() != ".gguf"
            or not is_safe_path(file.path)
            or _is_no_model(stem)
        ):
            continue
        shard = _SHARD.fullmatch(stem)
        if shard:
            groups[shard["stem"], int(shard["count"])].append(
                (int(shard["number"]), file)
            )
        else:
            groups[stem, 1].append((1, file))
    found = [
        _choice(stem, count, sorted(shards, key=lambda s: s[0]))
        for (stem, count), shards in groups.items()
    ]
    return _with_distinct_labels(
        sorted(found, key=lambda choice: (choice.size_bytes, choice.key))
    )


def _is_no_model(stem: str) -> bool:
    return "imatrix" in stem.rsplit("/", 1)[-1].lower()


def _choice(
    stem: str, count: int, shards: Sequence[tuple[int, RepoFile]]
) -> DownloadOption:
    name = stem.rsplit("/", 1)[-1]
    kind: Kind = "projector" if "mmproj" in name.lower() else "model"
    quant = quant_of(stem)
    files = tuple(file for _, file in shards)
    missing = len(set(range(1, count + 1)) - {number for number, _ in shards})
    return DownloadOption(files[0].path, quant or name, quant, kind, files, missing)


def quant_of(stem: str) -> str:
    """The quantisation that a name ends with, in capitals; of a file without one, that of its
    folder."""
    for part in reversed(stem.split("/")):
        found = _QUANT.findall(part)
        if found:
            return str(found[-1]).upper()
    return ""


def _with_distinct_labels(
    found: Sequence[DownloadOption],
) -> tuple[DownloadOption, ...]:
    """Where several have the same label, the file's name is their label."""
    labels = [(choice.kind, choice.label) for choice in found]
    return tuple(
        (
            DownloadOption(c.key, _name(c), c.quant, c.kind, c.files, c.n_missing)
            if labels.count((c.kind, c.label)) > 1
            else c
        )
        for c in found
    )


def _name(choice: DownloadOption) -> str:
    stem = choice.key[:-5]
    shard = _SHARD.fullmatch(stem)
    if shard:
        return shard["stem"]
    return stem


def wanted_choice(found: Sequence[DownloadOption], part: str) -> str:
    """The key of the choice that was asked for by file or quantisation, or nothing."""
    for choice in found:
        paths = {file.path for file in choice.files}
        is_named = choice.kind == "model" and part.upper() in {
            choice.label.upper(),
            choice.quant,
        }
        if part and (part in paths or is_named):
            return choice.key
    return ""


def named(found: Sequence[DownloadOption], part: str) -> list[DownloadOption]:
    """All that somebody may mean who writes a file's name, its path, a label or a quantisation."""
    by_file = [choice for choice in found if part in _file_names(choice)]
    by_label = [choice for choice in found if choice.label.upper() == part.upper()]
    by_quant = [choice for choice in found if choice.quant == part.upper()]
    return by_file or by_label or by_quant


def _file_names(choice: DownloadOption) -> set[str]:
    paths = [file.path for file in choice.files]
    return {*paths, *(path.rsplit("/", 1)[-1] for path in paths)}


# --- memory ---------------------------------------------------------------------------------------
def needed_bytes(size_bytes: int) -> int:
    return int(size_bytes * MEMORY_FACTOR) + MEMORY_EXTRA_BYTES


def fits(size_bytes: int, place: DeviceRoom) -> bool | None:
    """None: the device did not say how much memory it has."""
    if place.memory_bytes is None:
        return None
    return needed_bytes(size_bytes) <= place.memory_bytes


def recommended(found: Sequence[DownloadOption], rooms: Sequence[DeviceRoom]) -> str:
    """The key of the largest that fits in one accelerator, else in any device; quantised before
    not.

    Above 8 bits a model gains size and hardly anything else.
    """
    whole = [c for c in found if c.kind == "model" and not c.n_missing]
    for usable in ([p for p in rooms if p.is_accelerator], rooms):
        fitting = [
            c for c in whole if any(fits(c.size_bytes, place) for place in usable)
        ]
        if fitting:
            quantised = [c for c in fitting if c.is_quantised]
            return max(quantised or fitting, key=lambda c: c.size_bytes).key
    return ""


def suggested_projector(found: Sequence[DownloadOption]) -> str:
    """The key of the projector to take along: projectors are small, and 16 bits are what engines
    are tested with."""
    projectors = [c for c in found if c.kind == "projector" and not c.n_missing]
    rank = {"F16": 0, "FP16": 0, "BF16": 1}
    best = min(
        projectors, key=lambda c: (rank.get(c.quant, 2), c.size_bytes), default=None
    )
    if best:
        return best.key
    return ""
