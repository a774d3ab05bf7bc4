"""The bytes of files at a Hugging Face hub: from an offset to the end, or one part."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from deployments.formats.gguf_window import printable
from deployments.library.hub_client import MOST_BYTES, endpoint, token
from deployments.library.hub_errors import hub_errors
from deployments.library.hub_files import RepoFile
from omni.errors import OmniError
from omni.units import bytes_text

STREAM_TIMEOUT = httpx2.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
# Between two pieces of a part of a file, for which a page waits.
PART_TIMEOUT = httpx2.Timeout(10.0)
# What an error may say beside what was asked for.
MOST_ERROR_BYTES = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")

WITHOUT_RANGES = (
    "Download the model, then plan it from the library; or name a hub or mirror that serves"
    " ranges (HF_ENDPOINT)."
)


@dataclass
class Stream:
    """The bytes of a file from `offset` on, in pieces as they arrive."""

    offset: int
    response: httpx2.Response

    def pieces(self) -> Iterator[bytes]:
        return self.response.iter_raw()


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
    headers = build_hf_headers(token=token() or False)
    if asked:
        headers["Range"] = asked
    with (
        hub_errors(repo, revision),
        get_session().stream(
            "GET",
            url,
            headers=headers,
            timeout=timeout,
            follow_redirects=True,
            extensions={MOST_BYTES: most_bytes},
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
