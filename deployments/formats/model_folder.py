"""A model as a folder: config.json, safetensors and the files of its tokenizer, as Hugging Face
lays them out.

Which files hold the weights is said by model.safetensors.index.json where there is one
(transformers, modeling_utils.py, SAFE_WEIGHTS_INDEX_NAME); else it is model.safetensors, else every
safetensors file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from deployments.formats.gguf_window import printable
from deployments.formats.safetensors import (
    FolderError,
    StoredTensor,
    parsed_json,
    read_safetensors,
    read_start,
)

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)
TEMPLATES = ("chat_template.jinja", "chat_template.json")
# What belongs to the model of all that may lie beside it.
SUFFIXES = (".safetensors", ".json", ".model", ".jinja", ".txt")
# Far above what real ones have: an index has a line for each tensor.
MAX_CONFIG_BYTES = 8 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_TOKENIZER_CONFIG_BYTES = 16 << 20
MAX_FILES = 1_024
MAX_TENSORS = 1 << 19
_NUMBERED = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors"
)


@dataclass(frozen=True)
class FolderHeader:
    """What a folder says of its model.

    `tensors` are those of each file of `weights`, in the same order.
    """

    folder: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    weights: tuple[Path, ...]
    tensors: tuple[tuple[StoredTensor, ...], ...]
    names: frozenset[str]

    @cached_property
    def text_config(self) -> Mapping[str, Any]:
        """Of a model that sees or hears the part that is about text, with what stands beside it."""
        inner = next(
            (
                self.config[key]
                for key in ("text_config", "llm_config")
                if key in self.config
            ),
            None,
        )
        if isinstance(inner, dict):
            return {**self.config, **inner}
        return self.config

    @property
    def weights_bytes(self) -> int:
        return sum(tensor.n_bytes for tensors in self.tensors for tensor in tensors)


def holds_model(names: Sequence[str]) -> bool:
    """Whether files of these names, all in one folder, are a model or what is left of one."""
    return CONFIG in names and (
        INDEX in names or any(name.endswith(".safetensors") for name in names)
    )


def is_part(name: str) -> bool:
    """Whether a file of this name belongs to the model in its folder."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def folder_files(folder: Path) -> tuple[Path, ...]:
    """The files that belong to the model, by name; none where the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return tuple(
                sorted(
                    Path(entry.path)
                    for entry in entries
                    if is_part(entry.name) and _is_file(entry)
                )
            )
    except OSError:
        return ()


def _is_file(entry: os.DirEntry[str]) -> bool:
    """False also of a link that leads back to itself, and of a name that cannot be stored."""
    try:
        entry.path.encode()
        return entry.is_file()
    except (OSError, UnicodeEncodeError):
        return False


def read_folder(folder: str | Path) -> FolderHeader:
    """Reads config.json and the headers of all weights. Raises FolderError that names the file."""
    folder = Path(folder)
    try:
        is_there = folder.is_dir()
    except OSError as error:
        text = error.strerror or "it cannot be looked at"
        raise FolderError(
            "model_unreadable",
            folder,
            text,
            "Give the panel's user access to the folder.",
        ) from None
    if not is_there:
        raise FolderError(
            "model_missing",
            folder,
            "there is no such folder",
            "Put it back, or remove the model.",
        )
    names = frozenset(path.name for path in folder_files(folder))
    config = _json(folder / CONFIG, MAX_CONFIG_BYTES)
    weights, expected = _weights(folder, names)
    tensors = tuple(tuple(read_safetensors(path)) for path in weights)
    _check_tensors(folder, weights, tensors, expected)
    tokenizer = folder / TOKENIZER_CONFIG
    if tokenizer.name in names:
        about_tokens = _json(tokenizer, MAX_TOKENIZER_CONFIG_BYTES)
    else:
        about_tokens = {}
    return FolderHeader(folder, config, about_tokens, weights, tensors, names)


def _json(path: Path, most_bytes: int) -> dict[str, Any]:
    try:
        text, size = read_start(path, most_bytes)
    except FolderError as error:
        if error.code == "model_missing":
            raise FolderError(
                "folder_incomplete", path, "it is missing", "Put it into the folder."
            ) from None
        raise
    if size > most_bytes:
        raise FolderError(
            "folder_invalid",
            path,
            f"it has {size} bytes, more than the {most_bytes} that are allowed",
        )
    found: dict[str, Any] = parsed_json(path, text)
    return found


# --- which files ----------------------------------------------------------------------------------
def _weights(
    folder: Path, names: frozenset[str]
) -> tuple[tuple[Path, ...], Mapping[str, str]]:
    """(the files with weights, in order; of an index the file of each tensor)."""
    expected = _indexed(folder / INDEX) if INDEX in names else {}
    wanted = set(expected.values()) or _unindexed(names)
    if not wanted:
        text = "there is no safetensors file in it"
        raise FolderError(
            "folder_incomplete",
            folder,
            text,
            "Put the files with the weights into the folder.",
        )
    missing = sorted(wanted - names)
    if missing:
        text = (
            f"{len(missing)} of {len(wanted)} shards are missing:"
            f" {printable(', '.join(missing[:3]), 200)}"
        )
        raise FolderError(
            "folder_incomplete", folder, text, "Put all shards into one folder."
        )
    return tuple(folder / name for name in sorted(wanted)), expected


def _unindexed(names: frozenset[str]) -> set[str]:
    if WEIGHTS in names:
        return {WEIGHTS}
    found = {name for name in names if name.endswith(".safetensors")}
    # The same weights once more, in Mistral's own layout.
    found = {name for name in found if not name.startswith("consolidated")} or found
    for match in filter(None, map(_NUMBERED.fullmatch, tuple(found))):
        count = int(match["count"])
        if count <= MAX_FILES:
            found |= {
                f"{match['stem']}-{n:05d}-of-{count:05d}.safetensors"
                for n in range(1, count + 1)
            }
    return found


def _indexed(path: Path) -> dict[str, str]:
    """The file of each tensor. Names that lead out of the folder are refused."""
    table = _json(path, MAX_INDEX_BYTES).get("weight_map")
    if (
        not isinstance(table, dict)
        or not table
        or not all(isinstance(file, str) for file in table.values())
    ):
        raise FolderError(
            "folder_invalid",
            path,
            "it has no weight_map that says in which file each tensor lies",
        )
    files = set(table.values())
    if len(files) > MAX_FILES or len(table) > MAX_TENSORS:
        raise FolderError(
            "folder_invalid",
            path,
            f"it names {len(table)} tensors in {len(files)} files",
        )
    for name in sorted(files):
        if PurePath(name).name != name or "\0" in name or not is_part(name):
            raise FolderError(
                "folder_invalid",
                path,
                f"it names {printable(name)!r}, which is no file of this folder",
            )
    return table


def _check_tensors(
    folder: Path,
    weights: Sequence[Path],
    tensors: Sequence[Sequence[StoredTensor]],
    expected: Mapping[str, str],
) -> None:
    """No tensor twice, and every one that the index names in the file where it is said to be."""
    there: dict[str, str] = {}
    for path, own in zip(weights, tensors, strict=True):
        for tensor in own:
            if tensor.name in there:
                text = (
                    f"tensor {printable(tensor.name)!r} is in {there[tensor.name]} too"
                )
                raise FolderError("folder_invalid", path, text)
            there[tensor.name] = path.name
    if not there or len(there) > MAX_TENSORS:
        raise FolderError(
            "folder_invalid", folder, f"its files hold {len(there)} tensors"
        )
    for name, file in expected.items():
        if there.get(name) != file:
            text = f"the tensor {printable(name)!r} is not in it, as {INDEX} says"
            raise FolderError(
                "folder_incomplete",
                folder / file,
                text,
                "Download all files of the model again.",
            )
