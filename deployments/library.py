"""Walks folders, joins shards and keeps one Model row for each GGUF and each model folder it finds."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.folder_facts import folder_facts
from deployments.gguf import GgufError, GgufHeader, read_header
from deployments.model_facts import ModelFacts, facts
from deployments.model_files import files_of, fingerprint_of, found_files, is_there, model_at, stamp_of
from deployments.model_folder import CONFIG, holds_model, read_folder
from deployments.models import LibraryFolder, Model
from deployments.planning.from_folder import folder_shape
from deployments.planning.from_header import model_shape
from deployments.planning.vocabulary import VocabFacts, vocab_facts
from deployments.safetensors import FolderError
from omni.broadcast import publish
from omni.errors import OmniError
from omni.events import STATE_GROUP
from omni.roles import MANAGE_LIBRARY, require

log = logging.getLogger(__name__)

# Far above what models have; facts are kept for each layer, and files come from strangers.
MAX_LAYERS = 10_000
# Words that mean something else in an address.
RESERVED_NAMES = frozenset({"scan", "folders", "download"})
POSITIVE_INTEGER_MAX = 2**31 - 1


@dataclass
class ScanReport:
    """The models found, in order of their paths, and what could not be looked at."""

    models: list[Model] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


# --- folders --------------------------------------------------------------------------------------
def folder_add(path: str, *, user: Any = None) -> LibraryFolder:
    """Makes a folder part of the library. Raises OmniError (bad_folder) that says what is wrong with it."""
    require(user, MANAGE_LIBRARY)
    folder = _checked_folder(path)
    for known in LibraryFolder.objects.all():
        if folder == Path(known.path):
            raise OmniError("bad_folder", f"{folder} is in the library already.", "Scan it.")
    return LibraryFolder.objects.create(path=str(folder))


def _checked_folder(path: str) -> Path:
    if not path.strip() or "\0" in path or not Path(path).expanduser().is_absolute():
        raise OmniError("bad_folder", f"{path!r} is not a full path.", "Begin it with / and name a folder.")
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise OmniError("bad_folder", f"There is no folder {folder}.", "Create it, or correct the path.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise OmniError("bad_folder", f"The folder {folder} cannot be read.", "Give the panel's user access.")
    if folder == Path("/") or folder.is_relative_to(settings.OMNI_HOME.run) or folder in _SYSTEM:
        raise OmniError("bad_folder", f"{folder} is not a place for models.", "Name the folder they lie in.")
    return folder


_SYSTEM = frozenset(map(Path, ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr")))


def folder_remove(folder: LibraryFolder, *, user: Any = None) -> int:
    """Takes a folder and its models out of the library; files stay. Raises OmniError (in_use)."""
    require(user, MANAGE_LIBRARY)
    inside = [m for m in Model.objects.all() if Path(m.path).is_relative_to(folder.path)]
    elsewhere = [Path(f.path) for f in LibraryFolder.objects.exclude(pk=folder.pk)]
    own = [m for m in inside if not any(Path(m.path).is_relative_to(other) for other in elsewhere)]
    used = sorted({b.deployment.name for m in own for b in m.bindings.select_related("deployment")})
    if used:
        text = f"Models in {folder.path} are used by {', '.join(used)}."
        raise OmniError("in_use", text, "Delete the deployments first.")
    with transaction.atomic():
        Model.objects.filter(pk__in=[m.pk for m in own]).delete()
        folder.delete()
    announce()
    return len(own)


# --- scan -----------------------------------------------------------------------------------------
def scan(paths: Sequence[Path] = ()) -> ScanReport:
    """Registers every GGUF and model folder below the paths, or below all folders of the library when none is given.

    Models whose files have gone are marked. Raises OmniError (not_found) for a path that does not exist.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise OmniError("not_found", f"There is no {missing[0]}.", "Correct the path.")
    folders = [_folder_row(path) for path in paths if path.is_dir()] or (
        [] if paths else list(LibraryFolder.objects.all())
    )
    report = ScanReport()
    for path in (path for path in paths if path.is_file()):
        _register_all([model_at(path.absolute())], report)
    for folder in folders:
        _scan_folder(folder, report)
    mark_missing()
    announce()
    return report


def _folder_row(path: Path) -> LibraryFolder:
    return LibraryFolder.objects.get_or_create(path=str(path.resolve()))[0]


def _scan_folder(folder: LibraryFolder, report: ScanReport) -> None:
    root = Path(folder.path)
    folder.error = folder_error(root)
    if folder.error:
        report.skipped.append(f"{root}: {folder.error}")
    else:
        _register_all((model for model, _ in model_paths(root, report.skipped)), report)
    folder.scanned_at = timezone.now()
    folder.save()


def folder_error(root: Path) -> str:
    """Why nothing can be found in this folder; empty when it can be looked into."""
    if not root.is_dir():
        return "The folder is not there."
    return "" if os.access(root, os.R_OK | os.X_OK) else "The folder cannot be read."


def model_paths(root: Path, skipped: list[str]) -> Iterator[tuple[Path, Path]]:
    """(model, file of it) below a folder, in order. A link that leads out of the library is not followed."""
    for model, files in found_files(root):
        outside = [path for path in files if not is_confined(path, root)]
        for path in outside:
            skipped.append(f"{path} is a link to a file outside the library; add that file's folder.")
        yield from ((model, path) for path in files if not outside)


def is_confined(path: Path, root: Path) -> bool:
    """Whether the file a path really leads to lies in the folder or in another one of the library."""
    real = path.resolve()
    if real.is_relative_to(root.resolve()):
        return True
    return any(real.is_relative_to(folder) for folder in LibraryFolder.objects.values_list("path", flat=True))


def _register_all(models: Iterable[Path], report: ScanReport) -> None:
    for model in dict.fromkeys(models):
        report.models.append(register(model))


def register(path: Path) -> Model:
    """The row of this model, read anew when its files changed. A broken one gets a row that says why.

    A model that was moved takes its row along, and with it the deployments that use it.
    """
    model = Model.objects.filter(path=str(path)).first()
    if (model is None or _is_provisional(model)) and (moved := moved_here(path)):
        if model:
            model.delete()
        model = moved
    model = model or Model(path=str(path))
    unchanged = stamp_of(path) == (model.modified_ns, model.size_bytes) and model.shards == _file_texts(path)
    has_all = bool(model.facts and model.shape and model.fingerprint)
    if unchanged and has_all and model.pk and model.state == Model.State.OK:
        return model
    return _saved(describe_file(model, path), path)


def _is_provisional(model: Model) -> bool:
    """Made while the file was still being copied, so that nothing can hang on it yet."""
    return not model.facts and not model.bindings.exists()


def moved_here(path: Path) -> Model | None:
    """The row of the same model at another place where it no longer is."""
    mark = fingerprint_of(path)
    rows = Model.objects.filter(fingerprint=mark).order_by("pk") if mark else []
    for model in rows:
        if not is_there(Path(model.path), model.shards):
            log.info("the model %s moved from %s to %s", model.name, model.path, path)
            model.path = str(path)
            return model
    return None


def renew(path: Path) -> bool:
    """Registers what lies at this path; whether that changed anything."""
    before = Model.objects.filter(path=str(path)).values_list("pk", "state", "modified_ns", "size_bytes").first()
    model = register(path)
    return before != (model.pk, model.state, model.modified_ns, model.size_bytes)


def mark_growing(path: Path) -> bool:
    """Gives a model that is being written a row that says so; it is not read. Whether that is news."""
    model = Model.objects.filter(path=str(path)).first() or Model(path=str(path))
    text = "The file is still being written."
    if model.pk and (model.state, model.error) == (Model.State.INCOMPLETE, text):
        return False
    model.state, model.error, model.shards = Model.State.INCOMPLETE, text, _file_texts(path)
    _, model.size_bytes = stamp_of(path)
    model.format = _format_of(path)
    _saved(model, path)
    return True


def describe_file(model: Model, path: Path) -> Model:
    """Fills the row from the headers, or with why it cannot be used. Not saved."""
    model.modified_ns, model.size_bytes = stamp_of(path)
    model.shards, model.fingerprint, model.format = _file_texts(path), fingerprint_of(path), _format_of(path)
    try:
        (_describe_folder if model.is_folder else _describe_gguf)(model, path)
    except (GgufError, FolderError) as error:
        broken = error.code not in ("gguf_incomplete", "folder_incomplete")
        model.state = Model.State.BROKEN if broken else Model.State.INCOMPLETE
        model.error = str(error)
    return model


def _format_of(path: Path) -> str:
    return Model.Format.FOLDER if path.is_dir() else Model.Format.GGUF


def _describe_gguf(model: Model, path: Path) -> None:
    header = read_header(path)
    _describe(model, _facts(header, path))
    model.shape = _shape(header, path)
    model.vocab = vocab_facts(header).to_dict()


def _describe_folder(model: Model, path: Path) -> None:
    header = read_folder(path)
    try:
        known, shape = folder_facts(header), folder_shape(header)
    except (TypeError, ValueError, ArithmeticError, MemoryError, LookupError, AttributeError) as error:
        raise FolderError("folder_invalid", path / CONFIG, f"it contradicts itself ({error})") from None
    model.shape = shape.to_dict()
    # Its tokenizer is not read, so nothing is known to draft for it.
    model.vocab = VocabFacts(n_vocab=known.n_vocab).to_dict()
    _describe(model, known)


def _saved(model: Model, path: Path) -> Model:
    """Two scans at the same time may find the same file: the later one takes the earlier one's row."""
    if not model.pk:
        model.name = free_model_name(path)
    try:
        with transaction.atomic():
            model.save()
    except IntegrityError:
        if found := Model.objects.filter(path=model.path).first():
            return found
        model.name = free_model_name(path)
        model.save()
    return model


def _facts(header: GgufHeader, path: Path) -> ModelFacts:
    layers = header.arch_get("block_count", 0)
    if not isinstance(layers, int) or not 0 <= layers <= MAX_LAYERS:
        raise GgufError("gguf_invalid", path, f"it claims to have {str(layers)[:40]} layers")
    try:
        return facts(header)
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise GgufError("gguf_invalid", path, f"the header contradicts itself ({error})") from None


def _shape(header: GgufHeader, path: Path) -> dict[str, Any]:
    try:
        return model_shape(header).to_dict()
    except (TypeError, ValueError, ArithmeticError, MemoryError, KeyError, IndexError) as error:
        raise GgufError("gguf_invalid", path, f"the header contradicts itself ({error})") from None


def _describe(model: Model, known: ModelFacts) -> None:
    model.state, model.error = Model.State.OK, ""
    model.title, model.arch, model.quant = known.name[:200], known.arch[:60], known.quant[:40]
    model.n_params = known.n_params
    model.n_layer, model.n_ctx_train = _positive(known.n_layer), _positive(known.n_ctx_train)
    model.facts = known.as_dict()


def _positive(value: int | None) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= POSITIVE_INTEGER_MAX else None


def _file_texts(path: Path) -> list[str]:
    return [str(file) for file in files_of(path)]


def free_model_name(path: Path) -> str:
    """A slug from the file's or folder's name; the first number that makes it free is added where it is taken."""
    # Folders may be named Qwen2.5-0.5B.
    has_suffix = path.suffix and not path.is_dir()
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.name[: -len(path.suffix)] if has_suffix else path.name)
    base = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:112] or "model"
    taken = {*RESERVED_NAMES, *Model.objects.filter(name__startswith=base).values_list("name", flat=True)}
    return next(name for name in (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)


def mark_missing() -> bool:
    """Marks models whose files have gone, and folders that are no longer whole; whether there are any."""
    changed = False
    for model in Model.objects.exclude(state=Model.State.MISSING):
        path = Path(model.path)
        if not is_there(path, model.shards):
            what = "folder" if model.is_folder else "file"
            model.state, model.error = Model.State.MISSING, f"There is no {what} {model.path}."
            model.save(update_fields=["state", "error"])
            changed = True
        elif model.is_folder and model.state == Model.State.OK and not holds_model([f.name for f in files_of(path)]):
            changed = renew(path) or changed
    return changed


def announce() -> None:
    """Tells every page that the library is another."""
    publish(STATE_GROUP, {"type": "library.changed"})
