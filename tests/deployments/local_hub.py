"""A small hub on 127.0.0.1 that answers as far as the real client and Omni's downloads ask.

Model info, and files with ranges behind a redirect, as large files have it; and the ways in which
hubs fail.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 16 << 10
# A file that lies on disk is larger than memory, and mostly a hole.
Content = bytes | Path


@dataclass
class Repo:
    """`files` by path; what is listed of them unless `listed` says otherwise is what they are."""

    files: dict[str, Content]
    licence: str = "apache-2.0"
    gated: str = ""
    has_sizes: bool = True
    listed_sha256: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    range: str
    token: str


class LocalHub:
    """Use as a context manager.

    `rate_bps` slows files down, `cut_after` closes each connection after so many bytes for `cuts`
    times, `ranges` False ignores Range as simple mirrors do.
    """

    def __init__(self, repos: dict[str, Repo]) -> None:
        self.repos = repos
        self.rate_bps = 0
        self.cut_after, self.cuts = 0, 0
        self.ranges = True
        self.status = 0
        self.cdn = ""  # another name of this server, to which files are redirected
        self.token = "hub-token"
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> LocalHub:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def file_requests(self) -> list[Request]:
        return [
            request for request in self.requests if request.path.startswith("/blobs/")
        ]

    def ranges_asked(self) -> list[str]:
        return [request.range for request in self.file_requests()]


def _info(name: str, repo: Repo) -> dict[str, Any]:
    siblings = []
    for path, content in repo.files.items():
        entry: dict[str, Any] = {
            "rfilename": path,
            "size": size_of(content),
            "blobId": blob_id(content),
        }
        if path.endswith(".gguf"):
            digest = repo.listed_sha256.get(path) or digest_of(content)
            size = size_of(content)
            entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
        siblings.append(entry if repo.has_sizes else {"rfilename": path})
    return {
        "_id": "1",
        "id": name,
        "modelId": name,
        "sha": COMMIT,
        "private": False,
        "gated": repo.gated or False,
        "disabled": False,
        "tags": [],
        "downloads": 1,
        "likes": 0,
        "siblings": siblings,
        "cardData": {"license": repo.licence},
    }


def size_of(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def digest_of(content: Content) -> str:
    """Of a file on disk its name's and size's: nobody downloads it whole."""
    if isinstance(content, bytes):
        return sha256(content).hexdigest()
    return sha256(f"{content} {size_of(content)}".encode()).hexdigest()


def piece_of(content: Content, start: int, stop: int) -> bytes:
    if isinstance(content, bytes):
        return content[start:stop]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def blob_id(content: Content) -> str:
    if isinstance(content, Path):
        return digest_of(content)[:40]
    return sha1(
        b"blob %d\0" % len(content) + content, usedforsecurity=False
    ).hexdigest()


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            hub.requests.append(
                Request(self.command, path, self.headers.get("Range", ""), token)
            )
            if hub.status:
                return self.refuse(hub.status, "")
            if found := re.fullmatch(
                r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path
            ):
                return self.info(found[1], found[2])
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.resolve(found[1], found[3], token)
            if found := re.fullmatch(r"/blobs/([^/]+/[^/]+)/(.+)", path):
                return self.blob(hub.repos[found[1]].files[found[2]], body)
            return self.refuse(404, "RepoNotFound")

        def info(self, name: str, revision: str | None) -> None:
            repo = hub.repos.get(name)
            if repo is None:
                return self.refuse(404, "RepoNotFound")
            if revision not in (None, "main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            return self.send(
                200,
                json.dumps(_info(name, repo)).encode(),
                {"Content-Type": "application/json"},
            )

        def resolve(self, name: str, path: str, token: str) -> None:
            repo = hub.repos.get(name)
            if repo is None or path not in repo.files:
                return self.refuse(404, "EntryNotFound" if repo else "RepoNotFound")
            if repo.gated and token != hub.token:
                return self.refuse(403 if token else 401, "GatedRepo")
            content = repo.files[path]
            headers = {
                "Location": f"{hub.cdn}/blobs/{name}/{path}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(size_of(content)),
                "X-Linked-Etag": f'"{digest_of(content)}"',
            }
            return self.send(302, b"", headers)

        def blob(self, content: Content, body: bool) -> None:
            size = size_of(content)
            start, stop, asked = 0, size, self.headers.get("Range", "")
            if hub.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked)):
                start = int(found[1])
                stop = min(int(found[2]) + 1, size) if found[2] else size
                if start >= size:
                    return self.refuse(416, "")
            self.send_response(206 if asked and hub.ranges else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", f'"{digest_of(content)}"')
            if asked and hub.ranges:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.end_headers()
            if body:
                self.pour(content, start, stop)

        def pour(self, content: Content, first: int, last: int) -> None:
            """Piece by piece; a reader that has gone ends it."""
            with hub.lock:
                cut = first + hub.cut_after if hub.cuts and hub.cut_after else last
                hub.cuts -= bool(hub.cuts)
            for start in range(first, last, PIECE):
                piece = piece_of(content, start, min(start + PIECE, cut, last))
                if not piece:
                    break
                try:
                    self.wfile.write(piece)
                except OSError:
                    break
                with hub.lock:
                    hub.sent_bytes += len(piece)
                if hub.rate_bps:
                    time.sleep(len(piece) / hub.rate_bps)
            else:
                return
            self.close_connection = True

        def refuse(self, status: int, code: str) -> None:
            self.send(status, b"{}", {"X-Error-Code": code} if code else {})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler
