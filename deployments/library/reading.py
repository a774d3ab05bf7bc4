"""Fills a Model row from what the headers of its files say, or with why it cannot be used.

Saves nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deployments.formats.folder_facts import folder_facts
from deployments.formats.gguf import GgufError, GgufHeader, read_header
from deployments.formats.model_facts import ModelFacts, facts
from deployments.formats.model_folder import read_folder
from deployments.formats.safetensors import FolderError
from deployments.library.model_files import Mark, files_of, mark_of
from deployments.library.walk import is_folder
from deployments.models import Model
from deployments.planning.from_folder import folder_shape
from deployments.planning.from_header import model_shape
from deployments.planning.vocabulary import VocabFacts, vocab_facts

# Raise it when what is kept of a file changes: every row is then filled again by the next scan.
READ_VERSION = 3
POSITIVE_INTEGER_MAX = 2**31 - 1


def describe_file(model: Model, path: Path, known: Mark | None = None) -> Model:
    """Fills the row from the headers, or with why it cannot be used. Not saved."""
    mark = mark_of(path, known)
    (model.modified_ns, model.size_bytes) = mark.stamp
    model.fingerprint = mark.fingerprint
    model.shards, model.format = file_texts(path), format_of(path)
    model.read_version = READ_VERSION
    try:
        (_describe_folder if model.is_folder else _describe_gguf)(model, path)
    except (GgufError, FolderError) as error:
        broken = error.code not in ("gguf_incomplete", "folder_incomplete")
        model.state = Model.State.BROKEN if broken else Model.State.INCOMPLETE
        model.error = str(error)
    return model


def format_of(path: Path) -> str:
    if is_folder(path):
        return Model.Format.FOLDER
    return Model.Format.GGUF


def file_texts(path: Path) -> list[str]:
    return [str(file) for file in files_of(path)]


# --- GGUF -----------------------------------------------------------------------------------------
def _describe_gguf(model: Model, path: Path) -> None:
    describe_header(model, read_header(path))


def describe_header(model: Model, header: GgufHeader) -> None:
    """Fills the row from a header, wherever it was read. Raises GgufError."""
    _check_byte_order(header)
    known = facts(header)
    shape = model_shape(header)
    vocab = vocab_facts(header)
    _describe(model, known)
    model.shape, model.vocab = shape.to_dict(), vocab.to_dict()


def _check_byte_order(header: GgufHeader) -> None:
    """Engines read numbers as they lie in memory."""
    if header.big_endian == (sys.byteorder == "big"):
        return
    order = "big-endian" if header.big_endian else "little-endian"
    text = f"it is {order}, for another kind of machine; engines on this one do not load it"
    raise GgufError(
        "gguf_byte_order",
        header.paths[0],
        text,
        fix=f"Download the {sys.byteorder}-endian file of this model.",
    )


# --- folders --------------------------------------------------------------------------------------
def _describe_folder(model: Model, path: Path) -> None:
    header = read_folder(path)
    known = folder_facts(header)
    shape = folder_shape(header)
    # Its tokenizer is not read, so nothing is known to draft for it.
    model.shape, model.vocab = (
        shape.to_dict(),
        VocabFacts(n_vocab=known.n_vocab).to_dict(),
    )
    _describe(model, known)


# --- both -----------------------------------------------------------------------------------------
def _describe(model: Model, known: ModelFacts) -> None:
    model.state = Model.State.OK
    model.error = ""
    model.title = known.name[:200]
    model.arch = known.arch[:60]
    model.quant = known.quant[:40]
    model.kind = str(known.kind)
    model.n_params = known.n_params
    model.n_layer, model.n_ctx_train = (
        _positive(known.n_layer),
        _positive(known.n_ctx_train),
    )
    model.facts = known.as_dict()


def _positive(value: int | None) -> int | None:
    if isinstance(value, int) and 0 <= value <= POSITIVE_INTEGER_MAX:
        return value
    return None
