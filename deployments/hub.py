"""The only place that talks to a Hugging Face hub. What goes wrong there becomes an OmniError with a way out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from deployments.hub_files import RepoFile
from omni.errors import OmniError

INFO_TIMEOUT_S = 10.0
STREAM_TIMEOUT = httpx2.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class RepoInfo:
    """A repository at one commit. `gated` is empty, or how its owner lets people in: auto, manual."""

    repo: str
    revision: str
    files: tuple[RepoFile, ...]
    licence: str = ""
    gated: str = ""
    is_private: bool = False

    @property
    def url(self) -> str:
        return page_url(self.repo)


@dataclass
class Stream:
    """The bytes of a file from `offset` on, in pieces as they arrive."""

    offset: int
    response: httpx2.Response

    def pieces(self) -> Iterator[bytes]:
        return self.response.iter_raw()


# --- settings -------------------------------------------------------------------------------------
def endpoint() -> str:
    """HF_ENDPOINT names a mirror; read at every call, the client itself reads it only when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def has_token() -> bool:
    return bool(_token())


def _token() -> str | None:
    return (os.environ.get("HF_TOKEN") or "").strip() or None


def page_url(repo: str) -> str:
    return f"{endpoint()}/{repo}"


# --- asking ---------------------------------------------------------------------------------------
def repo_info(repo: str, revision: str = "") -> RepoInfo:
    """What the repository has. Raises OmniError."""
    with _told(repo, revision):
        found = HfApi(endpoint=endpoint(), token=_token() or False).model_info(
            repo, revision=revision or None, files_metadata=True, timeout=INFO_TIMEOUT_S
        )
    if any(sibling.size is None for sibling in found.siblings or ()):
        text = f"{endpoint()} does not say how large its files are."
        raise OmniError("hub_incomplete", text, "Use another hub or mirror (HF_ENDPOINT).")
    card = found.card_data
    licence = card.get("license") if card else ""
    return RepoInfo(
        repo=found.id or repo,
        revision=found.sha or revision or "main",
        files=tuple(
            RepoFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else "", "" if s.lfs else s.blob_id or "")
            for s in found.siblings or ()
        ),
        licence=", ".join(licence) if isinstance(licence, list) else str(licence or ""),
        gated=str(found.gated or ""),
        is_private=bool(found.private),
    )


@contextmanager
def opened(repo: str, revision: str, file: RepoFile, offset: int) -> Iterator[Stream]:
    """The file from `offset` on; a server that cannot do that begins at 0 and `Stream.offset` says so.

    Raises OmniError, also while pieces are read.
    """
    url = hf_hub_url(repo, file.path, revision=revision, endpoint=endpoint())
    # The client drops the token itself when the hub redirects to another host.
    headers = build_hf_headers(token=_token() or False) | {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with (
        _told(repo, revision),
        get_session().stream("GET", url, headers=headers, timeout=STREAM_TIMEOUT, follow_redirects=True) as response,
    ):
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        yield Stream(_start(response, file, offset), response)


def _start(response: httpx2.Response, file: RepoFile, offset: int) -> int:
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or (int(found[1]), int(found[2])) != (offset, file.size):
            raise _changed(file)
        return offset
    length = response.headers.get("Content-Length")
    if length is not None and int(length) != file.size:
        raise _changed(file)
    return 0


def _changed(file: RepoFile) -> OmniError:
    text = f"The hub sends {file.path} with another size than it lists."
    return OmniError("hub_changed", text, "Look the repository up again and download it anew.")


# --- errors ---------------------------------------------------------------------------------------
@contextmanager
def _told(repo: str, revision: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled:
        fix = "Start Omni without HF_HUB_OFFLINE, or copy the files into a folder of the library."
        raise OmniError("hub_offline", "HF_HUB_OFFLINE is set, so the hub is not asked.", fix) from None
    except GatedRepoError:
        raise _gated(repo) from None
    except RepositoryNotFoundError:
        fix = "Check the spelling." + ("" if has_token() else " A private one needs HF_TOKEN.")
        raise OmniError("hub_not_found", f"There is no repository {repo}, or it is private.", fix) from None
    except RevisionNotFoundError:
        raise OmniError("hub_not_found", f"{repo} has no revision {revision}.", "Leave the revision out.") from None
    except EntryNotFoundError:
        fix = "Look the repository up again: its owner may have replaced the file."
        raise OmniError("hub_not_found", f"A file of {repo} is gone from the hub.", fix) from None
    except HFValidationError as error:
        raise OmniError("bad_repo", f"{repo} is no repository: {error}", "Write owner/name.") from None
    except HfHubHTTPError as error:
        raise _refused(repo, error) from None
    except (httpx2.TransportError, ConnectionError, TimeoutError) as error:
        text = f"{endpoint()} cannot be reached ({str(error) or type(error).__name__})."
        raise OmniError("hub_unreachable", text, "Check the network, then try again.", retry=True) from None


def _gated(repo: str) -> OmniError:
    if has_token():
        fix = f"Accept its terms at {page_url(repo)} with the account that HF_TOKEN belongs to, then try again."
    else:
        fix = f"Accept its terms at {page_url(repo)}, make a token there and start Omni with HF_TOKEN set to it."
    return OmniError("hub_gated", f"{repo} is gated: its owner wants to know who downloads it.", fix)


def _refused(repo: str, error: HfHubHTTPError) -> OmniError:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return OmniError("hub_token", "The hub does not take the token.", "Set HF_TOKEN to one that is still valid.")
    if status == 429:
        text = "The hub has had too many requests from here."
        return OmniError("hub_busy", text, "Wait a few minutes, then try again.", retry=True)
    if status >= 500:
        return OmniError("hub_busy", f"The hub answers with error {status}.", "Try again in a while.", retry=True)
    return OmniError("hub_refused", f"The hub refuses {repo} (status {status}).", f"Look at {page_url(repo)}.")
