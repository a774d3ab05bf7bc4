"""What a repository at a Hugging Face hub has, checked before anything is made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

# Its client for everything takes 4 MB in each process: it is loaded when a hub is asked.
import huggingface_hub
from huggingface_hub.errors import HFValidationError

from deployments.formats.gguf_window import printable
from deployments.library.hub_client import endpoint, page_url, token
from deployments.library.hub_errors import hub_errors
from deployments.library.hub_files import RepoFile, is_repo, is_safe_path
from deployments.library.timeouts import NoAnswer, in_time
from omni.errors import OmniError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

INFO_TIMEOUT_S = 10.0
# For the whole answer, however slowly it comes.
INFO_DEADLINE_S = 60.0
MOST_FILES = 50_000
MOST_BYTES_OF_FILE = 1 << 50
MOST_LICENCE = 100
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_SHA1 = re.compile(r"([0-9a-f]{40})?")


@dataclass(frozen=True)
class RepoInfo:
    """A repository at one commit. `gated` is empty, or how its owner lets people in: auto,
    manual."""

    repo: str
    revision: str
    files: tuple[RepoFile, ...]
    licence: str = ""
    gated: str = ""
    is_private: bool = False

    @property
    def url(self) -> str:
        return page_url(self.repo)


def repo_info(repo: str, revision: str = "") -> RepoInfo:
    """What the repository has. Raises OmniError."""

    def ask() -> ModelInfo:
        client = huggingface_hub.HfApi(endpoint=endpoint(), token=token() or False)
        return client.model_info(
            repo, revision=revision or None, files_metadata=True, timeout=INFO_TIMEOUT_S
        )

    with hub_errors(repo, revision):
        try:
            found = in_time(ask, f"hub {repo}", INFO_DEADLINE_S)
        except NoAnswer:
            text = f"{endpoint()} gave no whole answer within {INFO_DEADLINE_S:.0f} s."
            raise OmniError(
                "hub_unreachable", text, "Try again later.", retry=True
            ) from None
        except HFValidationError:
            raise
        except (
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            # What the hub's own library trips over while it reads an answer of another shape.
            raise _not_understood(type(error).__name__) from None
    return _checked_info(repo, found)


def _checked_info(repo: str, found: ModelInfo) -> RepoInfo:
    """What the hub says, once it is what a repository can be: names become folders, ids become
    addresses."""
    siblings = found.siblings or []
    if any(sibling.size is None for sibling in siblings):
        text = f"{endpoint()} does not say how large its files are."
        raise OmniError(
            "hub_incomplete", text, "Use another hub or mirror (HF_ENDPOINT)."
        )
    if len(siblings) > MOST_FILES:
        raise _not_understood(f"{len(siblings)} files")
    name = str(found.id or repo)
    revision = str(found.sha or "main")
    if not is_repo(name) or not (_COMMIT.fullmatch(revision) or revision == "main"):
        raise _not_understood("a name or commit that is none")
    card = found.card_data
    if card is not None and not isinstance(card, huggingface_hub.CardData):
        # The hub's library passes on what it does not understand.
        raise _not_understood("a card that is none")
    licence = card.get("license") if card else ""
    if isinstance(licence, list):
        listed = ", ".join(map(str, licence))
    else:
        listed = str(licence or "")
    return RepoInfo(
        repo=name,
        revision=revision,
        files=tuple(
            _checked_file(sibling)
            for sibling in siblings
            if is_safe_path(str(sibling.rfilename))
        ),
        licence=printable(listed, MOST_LICENCE),
        gated=(
            str(found.gated)
            if found.gated in ("auto", "manual")
            else "manual"
            if found.gated
            else ""
        ),
        is_private=bool(found.private),
    )


def _checked_file(sibling: RepoSibling) -> RepoFile:
    sha256 = str(sibling.lfs.sha256) if sibling.lfs else ""
    blob_id = "" if sibling.lfs else str(sibling.blob_id or "")
    size = sibling.size
    if not isinstance(size, int) or not 0 <= size <= MOST_BYTES_OF_FILE:
        raise _not_understood("a size that is none")
    if not (_SHA256.fullmatch(sha256) and _SHA1.fullmatch(blob_id)):
        raise _not_understood("a checksum that is none")
    return RepoFile(str(sibling.rfilename), size, sha256, blob_id)


def _not_understood(what: str) -> OmniError:
    text = f"What {endpoint()} says of the repository is not understood ({what})."
    return OmniError("hub_incomplete", text, "Use another hub or mirror (HF_ENDPOINT).")
