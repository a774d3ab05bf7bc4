"""A hub that means harm: where it sends a download, what it names, and how much it says."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from deployments.library import (
    downloads,
    hub,
    hub_bytes,
    hub_client,
    hub_files,
    hub_headers,
)
from deployments.library.hub_client import check_target, is_public
from deployments.library.hub_files import RepoFile
from deployments.models import Model
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.local_hub import COMMIT

REPO = "some-org/Tiny-GGUF"
FILE = RepoFile("tiny-Q4_0.gguf", 64, "0" * 64)


class Evil(ThreadingHTTPServer):
    """Answers as a test says; keeps the path and the token of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.seen: list[tuple[str, str]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda request: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Evil

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        self.server.answer(self)


def started() -> Evil:
    server = Evil()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Evil]:
    server = started()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def inner() -> Iterator[Evil]:
    """A service of this machine that is nobody's business."""
    server = started()
    server.answer = lambda request: sends(request, b"secrets of the machine")
    yield server
    server.shutdown()
    server.server_close()


def sends(
    request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str
) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def redirects(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: sends(request, b"", 302, Location=to)


def info(**changes: Any) -> bytes:
    one = {
        "rfilename": FILE.path,
        "size": 64,
        "lfs": {"sha256": FILE.sha256, "size": 64, "pointerSize": 1},
    }
    known = {
        "id": REPO,
        "modelId": REPO,
        "sha": COMMIT,
        "private": False,
        "tags": [],
        "siblings": [one],
    }
    return json.dumps(known | changes).encode()


def read_all(repo: str = REPO) -> bytes:
    with hub_bytes.opened(repo, COMMIT, FILE, 0) as stream:
        return b"".join(stream.pieces())


# --- where it sends -------------------------------------------------------------------------------
def test_a_file_that_is_redirected_into_this_machine_is_not_fetched(
    evil: Evil, inner: Evil
) -> None:
    evil.answer = redirects(f"{inner.url}/latest/meta-data")
    with pytest.raises(OmniError, match="inside a private network") as refused:
        read_all()
    assert refused.value.code == "hub_redirect" and inner.seen == []


def test_what_a_repository_has_is_not_asked_of_another_server_of_this_machine(
    evil: Evil, inner: Evil
) -> None:
    evil.answer = redirects(f"{inner.url}/api")
    with pytest.raises(OmniError) as refused:
        hub.repo_info(REPO)
    assert refused.value.code == "hub_redirect" and inner.seen == []


def test_a_name_that_leads_into_this_machine_is_no_way_round(
    evil: Evil, inner: Evil
) -> None:
    for host in ("localhost", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"):
        evil.answer = redirects(f"http://{host}:{inner.server_port}/x")
        with pytest.raises(OmniError):
            read_all()
    assert inner.seen == []


def test_a_name_that_leads_elsewhere_when_it_is_looked_up_again_is_noticed(
    evil: Evil, inner: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is told a public address, the connection goes to this machine."""
    evil.answer = redirects(f"http://rebind.localhost:{inner.server_port}/x")
    real = hub_client._addresses
    public = {("93.184.215.14", inner.server_port)}
    monkeypatch.setattr(
        hub_client,
        "_addresses",
        lambda host, port: public if host == "rebind.localhost" else real(host, port),
    )
    with pytest.raises(OmniError):
        read_all()


def test_a_redirect_without_end_is_left(evil: Evil) -> None:
    evil.answer = redirects("/again")
    with pytest.raises(OmniError) as refused:
        read_all()
    assert (
        refused.value.code == "hub_redirect"
        and len(evil.seen) <= hub_client.MAX_REDIRECTS + 1
    )


@pytest.mark.parametrize(
    ("hub_url", "target", "is_allowed"),
    [
        ("https://huggingface.co", "https://huggingface.co/x", True),
        ("https://huggingface.co", "http://huggingface.co/x", False),
        ("https://huggingface.co", "https://93.184.215.14/x", True),
        ("https://huggingface.co", "http://93.184.215.14/x", False),
        ("https://huggingface.co", "https://127.0.0.1/x", False),
        ("https://huggingface.co", "https://169.254.169.254/latest/meta-data", False),
        ("https://huggingface.co", "https://10.0.0.5/x", False),
        ("https://huggingface.co", "https://192.168.1.1/x", False),
        ("https://huggingface.co", "https://100.64.0.1/x", False),
        ("https://huggingface.co", "https://[::1]/x", False),
        ("https://huggingface.co", "https://[fd00::1]/x", False),
        ("https://huggingface.co", "https://[fe80::1]/x", False),
        ("https://huggingface.co", "https://[::ffff:10.0.0.1]/x", False),
        ("https://huggingface.co", "https://[2002:7f00:1::]/x", False),
        ("https://huggingface.co", "https://224.0.0.1/x", False),
        ("https://huggingface.co", "https://0.0.0.0/x", False),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080/x", True),
        ("http://10.0.0.5:8080", "http://10.0.0.5:22/x", False),
        ("http://10.0.0.5:8080", "http://10.0.0.6:8080/x", False),
        ("http://127.0.0.1:8080", "http://localhost:8080/x", True),
    ],
)
def test_where_a_hub_may_send_a_download(
    monkeypatch: pytest.MonkeyPatch, hub_url: str, target: str, is_allowed: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    # A name is looked up once, as it stands in this machine's hosts file.
    real = hub_client._addresses
    addresses = {
        "localhost": {("127.0.0.1", 8080)},
        "huggingface.co": {("93.184.215.14", 443)},
    }
    monkeypatch.setattr(
        hub_client,
        "_addresses",
        lambda host, port: addresses.get(host) or real(host, port),
    )
    if is_allowed:
        check_target(target)
        return
    with pytest.raises(OmniError) as refused:
        check_target(target)
    assert refused.value.code == "hub_redirect"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("fe80::1%eth0", False),
        ("no", False),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected


# --- what it names --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        "../../evil",
        "..",
        "a/../b",
        "/etc/x",
        "a/b/c",
        "owner/..",
        "x",
        "owner/na\x00me",
        "owner/" + "n" * 300,
    ],
)
def test_a_repository_cannot_name_itself_out_of_its_folder(
    evil: Evil, name: str
) -> None:
    evil.answer = lambda request: sends(request, info(id=name))
    with pytest.raises(OmniError) as refused:
        hub.repo_info(REPO)
    assert refused.value.code == "hub_incomplete"


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["../../evil", "a/../../b"])
def test_a_download_goes_into_no_other_folder(name: str) -> None:
    found = hub.RepoInfo(name, COMMIT, (FILE,))
    host = Host.objects.create(name="here")
    with pytest.raises(OmniError) as refused:
        downloads.download_request(
            host=host, info=found, picked=hub_files.choices(found.files)
        )
    assert refused.value.code == "bad_choice"


@pytest.mark.parametrize(
    "path",
    [
        "../up.gguf",
        "/etc/x.gguf",
        "a/../../b.gguf",
        ".hidden.gguf",
        "a\\b.gguf",
        "C:x.gguf",
    ],
)
def test_files_that_lead_out_of_the_folder_are_not_listed(
    evil: Evil, path: str
) -> None:
    one = {
        "rfilename": path,
        "size": 1,
        "lfs": {"sha256": "0" * 64, "size": 1, "pointerSize": 1},
    }
    evil.answer = lambda request: sends(request, info(siblings=[one]))
    assert hub.repo_info(REPO).files == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": "../../../etc"},
        {"sha": 7.5},
        {
            "siblings": [
                {
                    "rfilename": "a.gguf",
                    "size": -1,
                    "lfs": {"sha256": "0" * 64, "size": 1, "pointerSize": 1},
                }
            ]
        },
        {"siblings": [{"rfilename": "a.gguf", "size": 1 << 60, "blobId": "0" * 40}]},
        {"siblings": [{"rfilename": "a.gguf", "size": "1", "blobId": "0" * 40}]},
        {
            "siblings": [
                {
                    "rfilename": "a.gguf",
                    "size": 1,
                    "lfs": {"sha256": "../../x", "size": 1, "pointerSize": 1},
                }
            ]
        },
        {"siblings": [{"rfilename": "a.gguf", "size": 1, "blobId": "../../../x"}]},
        {"siblings": 7},
        {"siblings": ["a.gguf"]},
        {
            "siblings": [
                {"rfilename": f"{n}.gguf", "size": 1} for n in range(hub.MOST_FILES + 1)
            ]
        },
        {"cardData": [[]]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(evil: Evil, changes: dict[str, Any]) -> None:
    evil.answer = lambda request: sends(request, info(**changes))
    with pytest.raises(OmniError) as refused:
        hub.repo_info(REPO)
    assert refused.value.code == "hub_incomplete"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff\xfe", b'{"id": NaN}']
)
def test_an_answer_that_is_no_repository_is_refused(evil: Evil, body: bytes) -> None:
    evil.answer = lambda request: sends(request, body, Content_Type="application/json")
    with pytest.raises(OmniError):
        hub.repo_info(REPO)


# --- how much it says -----------------------------------------------------------------------------
def pours(request: BaseHTTPRequestHandler, sent: list[int]) -> None:
    """An answer without end."""
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            sent.append(request.wfile.write(b" " * (1 << 16)))
    except OSError:
        return


def test_an_answer_without_end_is_left(
    evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "MOST_INFO_BYTES", 1 << 20)
    sent: list[int] = []
    evil.answer = lambda request: pours(request, sent)
    with pytest.raises(OmniError, match="more than the"):
        hub.repo_info(REPO)
    # What the kernel's buffers took comes on top.
    assert sum(sent) < 32 << 20


def test_a_file_without_end_is_left_at_the_size_that_was_listed(evil: Evil) -> None:
    evil.answer = lambda request: pours(request, [])
    with pytest.raises(OmniError, match="more than the"):
        read_all()


def test_a_compressed_answer_is_not_unpacked(evil: Evil) -> None:
    bomb = gzip.compress(bytes(8 << 20))
    evil.answer = lambda request: sends(request, bomb, Content_Encoding="gzip")
    with pytest.raises(OmniError, match="compresses its answers"):
        hub.repo_info(REPO)


def test_an_answer_that_never_ends_to_come_is_left(
    evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "INFO_DEADLINE_S", 0.5)
    left = threading.Event()

    def trickles(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not left.wait(0.05):
                request.wfile.write(b" ")
        except OSError:
            return

    evil.answer = trickles
    with pytest.raises(OmniError, match="no whole answer within"):
        hub.repo_info(REPO)
    left.set()


def test_a_file_that_comes_too_slowly_is_asked_for_again(
    evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "SLOW_FOR_S", 0.2)
    left = threading.Event()

    def trickles(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(FILE.size))
        request.end_headers()
        for _ in range(FILE.size):
            try:
                request.wfile.write(b".")
            except OSError:
                return
            left.wait(0.05)

    evil.answer = trickles
    with pytest.raises(OmniError, match="next to nothing") as slow:
        read_all()
    assert slow.value.retry
    left.set()


# --- parts of files -------------------------------------------------------------------------------
def read_part(seconds: float = 20.0) -> bytes:
    """Bytes 16 to 31 of 64."""
    return hub_bytes.read_part(REPO, COMMIT, FILE, 16, 32, time.monotonic() + seconds)


def part(
    body: bytes = bytes(16),
    said: str = "bytes 16-31/64",
    status: int = 206,
    **more: str,
) -> Callable[[BaseHTTPRequestHandler], None]:
    headers = {"Content_Range": said} if said else {}
    return lambda request: sends(request, body, status, **headers | more)


def test_a_part_of_a_file_comes_as_it_was_asked_for(evil: Evil) -> None:
    evil.answer = part(b"0123456789abcdef")
    assert read_part() == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        # Whole files instead of parts.
        (part(bytes(64), "", 200), "hub_no_ranges"),
        (part(bytes(16), "", 206), "hub_no_ranges"),
        (part(bytes(16), "bytes 16-31/64", 200), "hub_no_ranges"),
        (part(b"", "", 204), "hub_no_ranges"),
        (part(b"--x", "", 206, Content_Type="multipart/byteranges"), "hub_no_ranges"),
        # Another part than was asked for.
        (part(said="bytes 0-15/64"), "hub_wrong_range"),
        (part(said="bytes 16-63/64"), "hub_wrong_range"),
        (part(said="bytes 31-16/64"), "hub_wrong_range"),
        (part(said="bytes 16-31/*"), "hub_wrong_range"),
        (part(said="bytes */64"), "hub_wrong_range"),
        (part(said="lines 16-31/64"), "hub_wrong_range"),
        (part(said=f"bytes 16-31/{'9' * 4000}"), "hub_wrong_range"),
        (part(bytes(64)), "hub_wrong_range"),
        (part(bytes(8)), "hub_wrong_range"),
        # Another file than was listed.
        (part(said="bytes 16-31/65"), "hub_changed"),
        (part(b"", "bytes */10", 416), "hub_changed"),
        # And what is no answer.
        (part(gzip.compress(bytes(16)), Content_Encoding="gzip"), "hub_incomplete"),
        (part(bytes(64), Transfer_Encoding="identity"), "hub_unreachable"),
        (part(bytes(16), Content_Length="17"), "hub_unreachable"),
        (part(b"", "", 401), "hub_token"),
        (part(b"", "", 403, X_Error_Code="GatedRepo"), "hub_gated"),
        (part(b"", "", 404, X_Error_Code="EntryNotFound"), "hub_not_found"),
        (part(b"", "", 429), "hub_busy"),
        (part(b"", "", 500), "hub_busy"),
        (part(b"x" * 200_000, "", 500), "hub_changed"),
        (redirects("/again"), "hub_redirect"),
        (redirects("file:///etc/passwd"), "hub_redirect"),
        (redirects("http://169.254.169.254/latest/meta-data"), "hub_redirect"),
    ],
)
def test_a_part_that_is_none_is_refused(
    evil: Evil, answer: Callable[[BaseHTTPRequestHandler], None], code: str
) -> None:
    evil.answer = answer
    with pytest.raises(OmniError) as refused:
        read_part()
    assert refused.value.code == code and refused.value.fix


def test_a_part_without_end_is_left(evil: Evil) -> None:
    sent: list[int] = []

    def without_end(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 16-31/64")
        request.end_headers()
        with contextlib.suppress(OSError):
            while True:
                sent.append(request.wfile.write(b" " * (1 << 16)))

    evil.answer = without_end
    with pytest.raises(OmniError) as refused:
        read_part()
    assert refused.value.code == "hub_wrong_range"
    # What the kernel's buffers took.
    assert sum(sent) < 32 << 20


def test_a_whole_file_without_end_is_left_unread(evil: Evil) -> None:
    evil.answer = lambda request: pours(request, [])
    with pytest.raises(OmniError) as refused:
        read_part()
    assert refused.value.code == "hub_no_ranges"


def test_a_part_that_drips_is_left_in_time(evil: Evil) -> None:
    left = threading.Event()

    def drips(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 16-31/64")
        request.send_header("Content-Length", "16")
        request.end_headers()
        for _ in range(16):
            with contextlib.suppress(OSError):
                request.wfile.write(b".")
            left.wait(0.1)

    evil.answer = drips
    with pytest.raises(OmniError) as slow:
        read_part(0.3)
    assert slow.value.code == "hub_slow" and slow.value.retry
    left.set()


def test_a_hub_that_does_not_even_begin_to_answer_is_left(
    evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_headers, "DEADLINE_S", 0.2)
    monkeypatch.setattr(hub_headers, "HANGING_S", 0.2)
    left = threading.Event()

    def hangs(request: BaseHTTPRequestHandler) -> None:
        left.wait(20)

    evil.answer = hangs
    with pytest.raises(OmniError) as slow:
        hub_headers.describe_at_hub(Model(), REPO, COMMIT, [FILE])
    assert slow.value.code == "hub_slow"
    left.set()


def test_a_part_is_asked_for_without_the_token_at_another_host(
    evil: Evil, inner: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the other host is one that may be asked."""
    monkeypatch.setattr(hub_client, "check_target", lambda url: None)
    monkeypatch.setattr(hub_client, "_check_peer", lambda response: None)
    inner.answer = part()
    evil.answer = redirects(f"{inner.url}/blob")
    assert read_part() == bytes(16)
    assert evil.seen[0][1] == "Bearer secret-token" and inner.seen == [("/blob", "")]


def test_the_token_goes_to_no_other_host(
    evil: Evil, inner: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the other host is one that may be asked."""
    monkeypatch.setattr(hub_client, "check_target", lambda url: None)
    monkeypatch.setattr(hub_client, "_check_peer", lambda response: None)
    inner.answer = lambda request: sends(request, bytes(FILE.size))
    evil.answer = redirects(f"http://localhost:{inner.server_port}/blob")
    assert read_all() == bytes(FILE.size)
    assert evil.seen[0][1] == "Bearer secret-token" and inner.seen == [("/blob", "")]


def test_a_licence_without_end_is_cut(evil: Evil) -> None:
    evil.answer = lambda request: sends(
        request, info(cardData={"license": "x" * 100_000})
    )
    assert len(hub.repo_info(REPO).licence) <= hub.MOST_LICENCE


def test_a_part_of_a_download_lies_in_its_folder(tmp_path: Path) -> None:
    from deployments.library.fetching import part_path

    assert part_path(tmp_path, FILE).parent == tmp_path
