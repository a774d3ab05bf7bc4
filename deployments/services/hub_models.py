"""Models that are at a hub and not in the library, to be planned with before they are downloaded.

Such a model is named `hub:OWNER/REPO:QUANT`, or by a file after the second colon; a branch or
commit stands behind the repository: `hub:OWNER/REPO@BRANCH:QUANT`. Its row is filled
from the header at the hub and never saved. What a header said is kept below OMNI_HOME by the
content of its files, so that the next plan fetches nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from django.conf import settings

from deployments.engines.probe.archs import learn
from deployments.library import hub
from deployments.library.hub_client import endpoint
from deployments.library.hub_files import (
    DownloadOption,
    RepoFile,
    Wanted,
    choices,
    is_repo,
    is_safe_path,
    named,
    parse_hub_name,
)
from deployments.library.hub_headers import describe_at_hub
from deployments.library.kept_documents import Document, KeptDocuments
from deployments.library.reading import READ_VERSION
from deployments.models import Engine, Model
from deployments.names import HUB
from omni.errors import OmniError
from omni.units import MIB

log = logging.getLogger(__name__)

# A repository is looked at again after so long; one that did not change costs no header.
FRESH_S = 600.0
MOST_KEPT = 200
MOST_KEPT_BYTES = 4 * MIB
MOST_NAMED = 30
# What a header fills of a row.
FIELDS = (
    "title",
    "arch",
    "quant",
    "kind",
    "n_params",
    "size_bytes",
    "n_layer",
    "n_ctx_train",
    "facts",
    "shape",
    "vocab",
)


@dataclass(frozen=True)
class Listing:
    """The GGUF files of a repository at one commit."""

    repo: str
    revision: str
    files: tuple[RepoFile, ...]


def hub_model(name: str, revision: str = "") -> Model:
    """The model of this name, `hub:OWNER/REPO@BRANCH:QUANT`, as a row that is not saved; at this
    revision, else at the branch of its name, else at the hub's own.

    Raises OmniError: the name, the hub or the file is not what it has to be.
    """
    wanted = _parsed(name)
    listing = _listing(wanted.repo, revision or wanted.revision)
    choice = _choice(name, listing, wanted.part)
    found = replace(wanted, repo=listing.repo, part=choice.label)
    return _filled(listing, choice, _header(listing, choice), found.name)


def ask_engines(engines: Iterable[Engine], model: Model) -> None:
    """Whether they have the model's architecture, where that is not known yet: no scan has seen
    the model. It may start programs."""
    for engine in engines:
        if engine.pk and engine.state == Engine.State.OK:
            learn(engine, (model.arch,))


# --- names ----------------------------------------------------------------------------------------
def hub_name(repo: str, part: str) -> str:
    return Wanted(repo, part=part).name


def _parsed(name: str) -> Wanted:
    """Raises OmniError (bad_repo)."""
    if not name.startswith(HUB):
        text = f"{name[:120]!r} is no model at a hub."
        raise OmniError("bad_repo", text, "Write hub:OWNER/REPO:QUANT.")
    return parse_hub_name(name)


def _choice(name: str, listing: Listing, part: str) -> DownloadOption:
    """Raises OmniError (hub_no_model, hub_ambiguous, bad_choice)."""
    models = [choice for choice in choices(listing.files) if choice.kind == "model"]
    if not models:
        text = f"{listing.repo} has no GGUF of a model."
        fix = "Look for a repository of the same model whose name ends with GGUF."
        raise OmniError("hub_no_model", text, fix)
    whole = [choice for choice in models if not choice.n_missing]
    found = named(models, part) if part else whole
    if not found:
        wanted = repr(part[:120]) if part else "GGUF that is complete"
        text = f"{listing.repo} has no {wanted}."
        raise OmniError("hub_no_model", text, _offered(listing, whole))
    if len(found) > 1:
        text = f"{name[:200]} may be any of {len(found)} files of the repository."
        raise OmniError("hub_ambiguous", text, _offered(listing, found))
    if found[0].n_missing:
        text = f"{found[0].label} of {listing.repo} lacks shards on the hub."
        raise OmniError("bad_choice", text, "Choose one that is complete.")
    return found[0]


def _offered(listing: Listing, models: Sequence[DownloadOption]) -> str:
    labels = [choice.label for choice in models]
    if not labels:
        return "Choose another repository: every GGUF here lacks shards."
    shown = ", ".join(labels[:MOST_NAMED])
    more = len(labels) - MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"Write {hub_name(listing.repo, '…')} with one of: {shown}{rest}."


# --- what the repository has ----------------------------------------------------------------------
def _kept() -> KeptDocuments:
    return KeptDocuments(settings.OMNI_HOME.hub_headers, MOST_KEPT, MOST_KEPT_BYTES)


def _listing(repo: str, revision: str) -> Listing:
    """As it was looked at a short while ago, or now; where the hub cannot be asked now, as it was
    looked at last. Raises OmniError."""
    key = " ".join(["listing", endpoint(), repo.lower(), *filter(None, [revision])])
    document = _kept().get(key)
    known = _read_listing(document)
    if document and known and 0 <= time.time() - document["at"] < FRESH_S:
        return known
    try:
        info = hub.repo_info(repo, revision)
    except OmniError as error:
        if known is None or not (error.retry or error.code == "hub_offline"):
            raise
        log.info("%s is planned by what the hub said before: %s", repo, error)
        return known
    files = tuple(file for file in info.files if file.path.lower().endswith(".gguf"))
    _kept().keep(
        key,
        {
            "at": time.time(),
            "repo": info.repo,
            "revision": info.revision,
            "files": [file.as_dict() for file in files],
        },
    )
    return Listing(info.repo, info.revision, files)


def _read_listing(document: Document | None) -> Listing | None:
    """None where it is not what was written: files are edited, and disks fail."""
    if document is None:
        return None
    try:
        files = tuple(RepoFile(**file) for file in document["files"])
        found = Listing(str(document["repo"]), str(document["revision"]), files)
        is_right = is_repo(found.repo) and float(document["at"]) > 0
    except (KeyError, TypeError, ValueError):
        return None
    if is_right and all(is_safe_path(file.path) for file in files):
        return found
    return None


# --- what the header says -------------------------------------------------------------------------
def _header(listing: Listing, choice: DownloadOption) -> Document:
    """The filled columns, kept or read. Raises OmniError."""
    key = f"header {READ_VERSION} {_content(listing, choice)}"
    document = _kept().get(key)
    if document is None or not set(FIELDS) <= set(document):
        row = describe_at_hub(Model(), listing.repo, listing.revision, choice.files)
        document = {name: getattr(row, name) for name in FIELDS}
        _kept().keep(key, document)
    # As a row of the database would have it.
    found: Document = json.loads(json.dumps(document))
    return found


def _content(listing: Listing, choice: DownloadOption) -> str:
    """What the files hold, by their checksums; where the hub lists none, by the commit."""
    marks: list[Any] = [endpoint(), listing.repo]
    for file in choice.files:
        content = file.sha256 or file.blob_id or listing.revision
        marks.append([file.path, file.size, content])
    return sha256(json.dumps(marks).encode()).hexdigest()


def _filled(
    listing: Listing, choice: DownloadOption, known: Document, name: str
) -> Model:
    folder = settings.OMNI_HOME.models.joinpath(*listing.repo.split("/"))
    paths = [str(folder / file.path) for file in choice.files]
    return Model(
        name=name,
        # Where a download puts it.
        path=paths[0],
        shards=paths,
        # No time: it tells files of one size apart, as that of a file on disk does.
        modified_ns=int(_content(listing, choice)[:15], 16),
        **{column: known[column] for column in FIELDS},
    )
