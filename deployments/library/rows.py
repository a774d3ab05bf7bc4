"""Keeps one Model row for each model that was found, many at a time."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from django.db import DatabaseError, DataError, IntegrityError, transaction

from deployments.formats.gguf import shard_paths
from deployments.library.model_files import Mark, is_there, mark_of, stamp_of
from deployments.library.reading import (
    READ_VERSION,
    describe_file,
    file_texts,
    format_of,
)
from deployments.library.timeouts import FILE_TIMEOUT_S, NoAnswer, in_time
from deployments.library.walk import Skipped, is_folder
from deployments.models import Model, ReferenceAnswer
from deployments.names import RESERVED, numbered, slug
from omni.errors import OmniError

log = logging.getLogger(__name__)

# Looked up and saved together; the database is locked only while they are saved.
BATCH = 100
GROWING = "The file is still being written."
# Large, and only written here: what is compared does not need them.
_LARGE = ("facts", "shape", "vocab")


@dataclass(frozen=True)
class Registered:
    """A model's row, and whether registering it changed anything."""

    model: Model
    changed: bool


@dataclass(frozen=True)
class _Described:
    """A row before it is saved, whether its files were read for it, and the provisional row that it
    replaces."""

    path: Path
    model: Model
    is_read: bool
    is_news: bool = False
    replaced: Model | None = None
    # Other bytes lie where the model was: what its engine answered before is no measure any more.
    has_new_content: bool = False


class Rows:
    """For one look at the library: what it learns of the rows holds for that look."""

    def __init__(self, skipped: Skipped | None = None) -> None:
        self.skipped = skipped or Skipped()
        self._there: dict[str, bool] = {}
        self._candidates: dict[str, Iterator[str]] = {}
        self._created: set[Path] = set()

    def register(self, paths: Iterable[Path]) -> Iterator[Registered]:
        """The row of each model, read again where its files changed; a broken one's row says why.

        A model that was moved takes its row along, and with it the deployments that use it. One
        that cannot be registered at all is named in `skipped`, and the others go on.
        """
        left = iter(dict.fromkeys(paths))
        while batch := list(islice(left, BATCH)):
            yield from self._register_batch(batch)

    def _register_batch(self, paths: Sequence[Path]) -> list[Registered]:
        rows = Model.objects.defer(*_LARGE).in_bulk(
            [str(path) for path in paths], field_name="path"
        )
        marks = {
            path: self._marked(path)
            for path in paths
            if _may_have_moved_here(rows.get(str(path)))
        }
        moved = self._moved(marks)
        found = [
            self._described(path, rows.get(str(path)), moved.get(path), marks.get(path))
            for path in paths
        ]
        with transaction.atomic():
            self._create([entry for entry in found if not entry.model.pk])
            kept = [self._kept(entry) for entry in found]
        return [entry for entry in kept if entry]

    # --- reading ----------------------------------------------------------------------------------
    def _described(
        self, path: Path, row: Model | None, moved: Model | None, mark: Mark | None
    ) -> _Described:
        """The row as it is to be; nothing is saved.

        Whatever one file does, the others are looked at.
        """
        model = moved or row or Model()
        before = _news(model)
        content = (model.modified_ns, model.size_bytes)
        model.path = str(path)
        try:
            if moved is None and _is_up_to_date(model, path):
                return _Described(path, model, is_read=False)
            in_time(lambda: describe_file(model, path, mark), str(path), FILE_TIMEOUT_S)
        except NoAnswer:
            text = (
                f"The file gives no answer within {FILE_TIMEOUT_S:.0f} s. Is its disk"
                " well?"
            )
            model = _unreadable(model.pk, path, text)
        except Exception as error:
            log.exception("the model %a could not be read", str(path))
            text = (
                f"It could not be read ({type(error).__name__}); the agent's log has"
                " the details."
            )
            model = _unreadable(model.pk, path, text)
        has_new_content = (
            moved is None and (model.modified_ns, model.size_bytes) != content
        )
        return _Described(
            path,
            model,
            True,
            _news(model) != before,
            row if moved else None,
            has_new_content,
        )

    def _moved(self, marked: Mapping[Path, Mark | None]) -> dict[Path, Model]:
        """Of paths that are new: the row of the same model at another place where it no longer
        is."""
        marks = {
            path: mark.fingerprint
            for path, mark in marked.items()
            if mark and mark.fingerprint
        }
        if not marks:
            return {}
        known = (
            Model.objects.defer(*_LARGE)
            .filter(fingerprint__in=set(marks.values()))
            .order_by("pk")
        )
        gone: dict[str, list[Model]] = {}
        for row in known:
            if not self._is_there(row):
                gone.setdefault(row.fingerprint, []).append(row)
        found: dict[Path, Model] = {}
        for path, mark in marks.items():
            rows = gone.get(mark)
            if rows:
                found[path] = rows.pop(0)
                log.info(
                    "the model %s moved from %s to %s",
                    found[path].name,
                    found[path].path,
                    path,
                )
                self._there[found[path].path] = True
        return found

    def _marked(self, path: Path) -> Mark | None:
        try:
            return in_time(lambda: mark_of(path), str(path), FILE_TIMEOUT_S)
        except (NoAnswer, OSError):
            return None

    def _is_there(self, row: Model) -> bool:
        if row.path not in self._there:
            self._there[row.path] = is_there(Path(row.path), row.shards)
        return self._there[row.path]

    # --- saving -----------------------------------------------------------------------------------
    def _create(self, found: Sequence[_Described]) -> None:
        """The new rows at once; where one of them is refused, each is saved by itself later."""
        if not found:
            return
        for entry in found:
            entry.model.name = self._free_name(entry.path)
        try:
            with transaction.atomic():
                Model.objects.bulk_create([entry.model for entry in found])
        except DatabaseError:
            self._forget_names()
            for entry in found:
                entry.model.pk = None
                entry.model._state.adding = True
        else:
            self._created.update(entry.path for entry in found)

    def _kept(self, found: _Described) -> Registered | None:
        if not found.is_read:
            return Registered(found.model, False)
        if found.path in self._created:
            return Registered(_light(found.model), found.is_news)
        if found.replaced:
            found.replaced.delete()
        if found.has_new_content and found.model.pk:
            ReferenceAnswer.objects.filter(model=found.model.pk).delete()
        try:
            return Registered(
                _light(self.saved(found.model, found.path)), found.is_news
            )
        except DataError as error:
            # PostgreSQL refuses what SQLite keeps.
            log.exception("the model %a could not be kept", str(found.path))
            self.skipped.add(
                found.path, f"the database does not take it ({type(error).__name__})"
            )
            return None

    def saved(self, model: Model, path: Path) -> Model:
        """Two scans at the same time may find the same file: the later one takes the earlier one's
        row."""
        if not model.pk:
            model.name = self._free_name(path)
        try:
            with transaction.atomic():
                model.save()
        except IntegrityError:
            found = Model.objects.filter(path=model.path).first()
            if found:
                return found
            self._forget_names()
            model.name = self._free_name(path)
            model.save()
        return model

    def _forget_names(self) -> None:
        """The database is asked again."""
        self.__dict__.pop("_taken", None)
        self._candidates.clear()

    @cached_property
    def _taken(self) -> set[str]:
        return {*RESERVED["models"], *Model.objects.values_list("name", flat=True)}

    def _free_name(self, path: Path) -> str:
        """A slug of the file's or folder's name; the first number that makes it free where it is
        taken."""
        base = slug_of(path)
        # Goes on where it ended: thousands of files may have one name.
        candidates = self._candidates.setdefault(base, numbered(base))
        name = next(name for name in candidates if name not in self._taken)
        self._taken.add(name)
        return name


def _unreadable(pk: int | None, path: Path, text: str) -> Model:
    """A row that says why; the one that was being filled may still be written to by a thread that
    hangs."""
    model = (Model.objects.filter(pk=pk).first() if pk else None) or Model()
    model.path = str(path)
    model.state = Model.State.BROKEN
    model.error = text
    model.shards = model.shards or [str(path)]
    return model


def _light(model: Model) -> Model:
    """Without what is large, which is read from the database where somebody asks: a report may hold
    thousands."""
    for name in _LARGE:
        model.__dict__.pop(name, None)
    return model


def _news(model: Model) -> tuple[object, ...]:
    """What is news when it changes."""
    return (
        model.pk,
        model.path,
        model.state,
        model.error,
        model.modified_ns,
        model.size_bytes,
    )


def _is_up_to_date(model: Model, path: Path) -> bool:
    """Whether the row says what the files say; one that was broken is always read again."""
    if (
        model.pk is None
        or model.state != Model.State.OK
        or model.read_version != READ_VERSION
    ):
        return False
    return stamp_of(path) == (
        model.modified_ns,
        model.size_bytes,
    ) and model.shards == file_texts(path)


def _may_have_moved_here(row: Model | None) -> bool:
    """New, or only known as a file that was still being copied, so that nothing can hang on it
    yet."""
    if row is None:
        return True
    is_provisional = (
        row.state == Model.State.INCOMPLETE and not row.fingerprint and not row.arch
    )
    return is_provisional and not row.bindings.exists()


def slug_of(path: Path) -> str:
    """A model's name, as far as its file's or folder's name gives one."""
    # Folders may be named Qwen2.5-0.5B.
    has_suffix = path.suffix and not is_folder(path)
    stem = path.name[: -len(path.suffix)] if has_suffix else path.name
    if len(shard_paths(path)) > 1:
        stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem)
    return slug(stem, "models", "model")


def register(path: Path) -> Model:
    """The row of this one model. Raises OmniError (model_unreadable) where it cannot have one."""
    rows = Rows()
    for found in rows.register([path]):
        return found.model
    raise OmniError(
        "model_unreadable",
        rows.skipped.listed()[0],
        "Look at the file, then scan again.",
    )


def mark_growing(path: Path) -> bool:
    """Gives a model that is being written a row that says so; it is not read. Whether that is
    news."""
    model = Model.objects.filter(path=str(path)).first() or Model(path=str(path))
    if model.pk and (model.state, model.error) == (Model.State.INCOMPLETE, GROWING):
        return False
    model.state, model.error, model.shards = (
        Model.State.INCOMPLETE,
        GROWING,
        file_texts(path),
    )
    _, model.size_bytes = stamp_of(path)
    model.format = format_of(path)
    Rows().saved(model, path)
    return True
