"""What is asked of a Hugging Face hub. What goes wrong there becomes an OmniError with a way
out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import CardData, HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from deployments.formats.gguf_window import printable
from deployments.library import hub_client
from deployments.library.hub_client import endpoint
from deployments.library.hub_files import RepoFile, is_repo, is_safe_path
from deployments.library.timeouts import NoAnswer, in_time
from omni.errors import OmniError
from omni.units import bytes_text

INFO_TIMEOUT_S = 10.0
STREAM_TIMEOUT = httpx2.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
# For the whole answer, however slowly it comes.
INFO_DEADLINE_S = 60.0
MOST_FILES = 50_000
MOST_BYTES_OF_FILE = 1 << 50
MOST_LICENCE = 100
# Between two pieces of a part of a file, for which a page waits.
PART_TIMEOUT = httpx2.Timeout(10.0)
# What an error may say beside what was asked for.
MOST_ERROR_BYTES = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_SHA1 = re.compile(r"([0-9a-f]{40})?")

WITHOUT_RANGES = (
    "Download the model, then plan it from the library; or name a hub or mirror that serves"
    " ranges (HF_ENDPOINT)."
)

hub_client.install()


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


@dataclass
class Stream:
    """The bytes of a file from `offset` on, in pieces as they arrive."""

    offset: int
    response: httpx2.Response

    def pieces(self) -> Iterator[bytes]:
        return self.response.iter_raw()


# --- settings -------------------------------------------------------------------------------------
def has_token() -> bool:
    return bool(_token())


def _token() -> str | None:
    return (os.environ.get("HF_TOKEN") or "").strip() or None


def page_url(repo: str) -> str:
    return f"{endpoint()}/{repo}"


# --- asking ---------------------------------------------------------------------------------------
def repo_info(repo: str, revision: str = "") -> RepoInfo:
    """What the repository has. Raises OmniError."""

    def ask() -> ModelInfo:
        return HfApi(endpoint=endpoint(), token=_token() or False).model_info(
            repo, revision=revision or None, files_metadata=True, timeout=INFO_TIMEOUT_S
        )

    with _told(repo, revision):
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
    if card is not None and not isinstance(card, CardData):
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


# --- files ----------------------------------------------------------------------------------------
@contextmanager
def opened(repo: str, revision: str, file: RepoFile, offset: int) -> Iterator[Stream]:
    """The file from `offset` on; a server that cannot do that begins at 0 and `Stream.offset` says
    so.

    Raises OmniError, also while pieces are read.
    """
    asked = f"bytes={offset}-" if offset else ""
    # One byte more than there ought to be tells that there are more.
    with _answer(
        repo, revision, file, asked, file.size + 1, STREAM_TIMEOUT
    ) as response:
        yield Stream(_start(response, file, offset), response)


def read_part(
    repo: str, revision: str, file: RepoFile, start: int, stop: int, until: float
) -> bytes:
    """The bytes of the file from `start` up to `stop`, and none besides: a server that sends the
    whole file instead is left at its first line.

    `until` is when there is no more time, by time.monotonic(). Raises OmniError.
    """
    asked = f"bytes={start}-{stop - 1}"
    most_bytes = stop - start + MOST_ERROR_BYTES
    with _answer(repo, revision, file, asked, most_bytes, PART_TIMEOUT) as response:
        _check_part(response, file, start, stop)
        part = bytearray()
        for piece in response.iter_raw():
            part += piece
            if len(part) > stop - start:
                raise _wrong_part(response, file, "more bytes than that")
            if time.monotonic() > until:
                raise too_slow(file)
    if len(part) < stop - start:
        text = f"The hub stopped in the middle of {file.path}."
        raise OmniError("hub_unreachable", text, "Try again.", retry=True)
    return bytes(part)


@contextmanager
def _answer(
    repo: str,
    revision: str,
    file: RepoFile,
    asked: str,
    most_bytes: int,
    timeout: httpx2.Timeout,
) -> Iterator[httpx2.Response]:
    """What the hub, or where it redirects to, answers for a file or for the range `asked`."""
    url = hf_hub_url(repo, file.path, revision=revision, endpoint=endpoint())
    # The client drops the token itself when the hub redirects to another host.
    headers = build_hf_headers(token=_token() or False)
    if asked:
        headers["Range"] = asked
    with (
        _told(repo, revision),
        get_session().stream(
            "GET",
            url,
            headers=headers,
            timeout=timeout,
            follow_redirects=True,
            extensions={hub_client.MOST_BYTES: most_bytes},
        ) as response,
    ):
        if response.status_code == 416:
            raise _changed(file)
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        yield response


def _start(response: httpx2.Response, file: RepoFile, offset: int) -> int:
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or (int(found[1]), int(found[3])) != (offset, file.size):
            raise _changed(file)
        return offset
    length = response.headers.get("Content-Length")
    if length is not None and length != str(file.size):
        raise _changed(file)
    return 0


def _check_part(
    response: httpx2.Response, file: RepoFile, start: int, stop: int
) -> None:
    """Raises OmniError (hub_no_ranges, hub_wrong_range, hub_changed) before a byte of it is
    read."""
    said = response.headers.get("Content-Range", "")
    if response.status_code != 206 or not said:
        text = (
            f"{_host(response)} sends whole files only: it did not answer for a part of"
            f" {file.path}, and all {bytes_text(file.size)} of it are not fetched for that."
        )
        raise OmniError("hub_no_ranges", text, WITHOUT_RANGES)
    found = _RANGE.fullmatch(said)
    if not found or (int(found[1]), int(found[2])) != (start, stop - 1):
        raise _wrong_part(response, file, printable(said, 60))
    if int(found[3]) != file.size:
        raise _changed(file)
    length = response.headers.get("Content-Length")
    if length is not None and length != str(stop - start):
        raise _wrong_part(response, file, f"{printable(length, 20)} bytes")


def _wrong_part(response: httpx2.Response, file: RepoFile, said: str) -> OmniError:
    text = (
        f"{_host(response)} was asked for a part of {file.path} and answers with another"
        f" ({said})."
    )
    return OmniError("hub_wrong_range", text, WITHOUT_RANGES)


def too_slow(file: RepoFile) -> OmniError:
    text = f"The header of {file.path} comes too slowly from the hub."
    return OmniError("hub_slow", text, "Try again later.", retry=True)


def _host(response: httpx2.Response) -> str:
    """Who answered: the hub, or where it has redirected to."""
    return printable(response.url.netloc.decode("ascii", "replace"))


def _changed(file: RepoFile) -> OmniError:
    text = f"The hub sends {file.path} with another size than it lists."
    return OmniError(
        "hub_changed", text, "Look the repository up again and download it again."
    )


# --- errors ---------------------------------------------------------------------------------------
@contextmanager
def _told(repo: str, revision: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled:
        fix = "Start Omni without HF_HUB_OFFLINE, or copy the files into a folder of the library."
        raise OmniError(
            "hub_offline", "HF_HUB_OFFLINE is set, so the hub is not asked.", fix
        ) from None
    except GatedRepoError:
        raise _gated(repo) from None
    except RepositoryNotFoundError:
        fix = "Check the spelling." + (
            "" if has_token() else " A private one needs HF_TOKEN."
        )
        raise OmniError(
            "hub_not_found", f"There is no repository {repo}, or it is private.", fix
        ) from None
    except RevisionNotFoundError:
        raise OmniError(
            "hub_not_found",
            f"{repo} has no revision {revision}.",
            "Leave the revision out.",
        ) from None
    except EntryNotFoundError:
        fix = "Look the repository up again: its owner may have replaced the file."
        raise OmniError(
            "hub_not_found", f"A file of {repo} is gone from the hub.", fix
        ) from None
    except HFValidationError as error:
        raise OmniError(
            "bad_repo", f"{repo} is no repository: {error}", "Write owner/name."
        ) from None
    except HfHubHTTPError as error:
        raise _refused(repo, error) from None
    except httpx2.TooManyRedirects:
        text = f"{endpoint()} sends from one address to the next without end."
        raise OmniError(
            "hub_redirect", text, "Use another hub or mirror (HF_ENDPOINT)."
        ) from None
    except (
        httpx2.RequestError,
        httpx2.InvalidURL,
        ConnectionError,
        TimeoutError,
    ) as error:
        text = f"{endpoint()} cannot be reached ({str(error) or type(error).__name__})."
        raise OmniError(
            "hub_unreachable", text, "Check the network, then try again.", retry=True
        ) from None


def _gated(repo: str) -> OmniError:
    if has_token():
        fix = (
            f"Accept its terms at {page_url(repo)} with the account that HF_TOKEN belongs to, then"
            " try again."
        )
    else:
        fix = (
            f"Accept its terms at {page_url(repo)}, make a token there and start Omni with HF_TOKEN"
            " set to it."
        )
    return OmniError(
        "hub_gated", f"{repo} is gated: its owner wants to know who downloads it.", fix
    )


def _refused(repo: str, error: HfHubHTTPError) -> OmniError:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return OmniError(
            "hub_token",
            "The hub does not take the token.",
            "Set HF_TOKEN to one that is still valid.",
        )
    if status == 429:
        text = "The hub has had too many requests from here."
        return OmniError(
            "hub_busy", text, "Wait a few minutes, then try again.", retry=True
        )
    if status >= 500:
        return OmniError(
            "hub_busy",
            f"The hub answers with error {status}.",
            "Try again in a while.",
            retry=True,
        )
    return OmniError(
        "hub_refused",
        f"The hub refuses {repo} (status {status}).",
        f"Look at {page_url(repo)}.",
    )
