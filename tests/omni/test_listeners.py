"""Who listens on a port, asked of the kernel and, where that is refused, read out of its table."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from omni import listeners, sock_diag
from omni.listeners import inodes_in_table, listening_inodes, own_listener
from tests.helpers import free_port

ME = os.getpid()


def started_ticks() -> int:
    return listeners._ticks(ME)


def inode_of(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def listening(port: int = 0, *, shared: bool = False) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    one.bind(("127.0.0.1", port))
    one.listen()
    return one


def refused(_port: int, _address: str | None = None) -> set[int]:
    raise OSError(errno.EPROTONOSUPPORT, "no such question")


@pytest.fixture(params=["asked", "read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to know it: what they say is the same."""
    if request.param == "read":
        monkeypatch.setattr(sock_diag, "listening_inodes", refused)
    return str(request.param)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening() as one:
        yield one


def test_the_kernel_answers_here(listener: socket.socket) -> None:
    """Else every other test would only read the table."""
    port = listener.getsockname()[1]
    assert sock_diag.listening_inodes(port) == {inode_of(listener)}


@pytest.mark.usefixtures("way")
def test_only_sockets_that_listen_there_count(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), listening() as other:
        taken, _ = listener.accept()
        with taken:
            assert listening_inodes(port, ME) == {inode_of(listener)}
            assert listening_inodes(other.getsockname()[1], ME) == {inode_of(other)}
    assert listening_inodes(free_port(), ME) == set()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("address", "is_there"),
    [("127.0.0.1", True), ("127.0.0.2", False), ("0.0.0.0", False)],
)
def test_an_address_is_only_who_is_bound_to_it(
    address: str, is_there: bool, listener: socket.socket
) -> None:
    found = listening_inodes(listener.getsockname()[1], ME, address)
    assert found == ({inode_of(listener)} if is_there else set())


@pytest.mark.usefixtures("way")
def test_a_port_that_two_listen_on_is_nobodys() -> None:
    with listening(shared=True) as first:
        port = first.getsockname()[1]
        assert own_listener(ME, started_ticks(), port) == str(inode_of(first))
        with listening(port, shared=True) as second:
            assert listening_inodes(port, ME) == {inode_of(first), inode_of(second)}
            assert own_listener(ME, started_ticks(), port) is None


@pytest.mark.usefixtures("way")
def test_a_port_that_changed_hands_is_looked_at_anew() -> None:
    with listening() as first:
        port = first.getsockname()[1]
        assert own_listener(ME, started_ticks(), port) == str(inode_of(first))
    assert own_listener(ME, started_ticks(), port) is None
    with listening(port) as second:
        assert own_listener(ME, started_ticks(), port) == str(inode_of(second))
        assert own_listener(ME, started_ticks() + 1, port) is None
        assert own_listener(os.getppid(), None, port), "a child holds it"


def test_what_was_found_is_not_looked_for_again(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk through all files of a process and its children takes long."""
    port = listener.getsockname()[1]
    found = own_listener(ME, started_ticks(), port)
    monkeypatch.setattr(listeners, "_holds", lambda pid, inode: False)
    assert found == own_listener(ME, started_ticks(), port) == str(inode_of(listener))
    with listening() as other:
        assert own_listener(ME, started_ticks(), other.getsockname()[1]) is None


@pytest.mark.parametrize("code", listeners.NO_MORE_FILES)
def test_who_may_open_no_more_files_learns_nothing(
    code: int, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    def out_of_files(_port: int, _address: str | None = None) -> set[int]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sock_diag, "listening_inodes", out_of_files)
    with pytest.raises(OSError, match="open files"):
        own_listener(ME, None, listener.getsockname()[1])


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 42 1 0
   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 43 1 0
   3: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 44 1 0
   4: cut off
"""


@pytest.mark.parametrize(
    ("port", "address", "inodes"),
    [
        (8080, None, {41, 42}),
        (8080, "127.0.0.1", {41}),
        (8080, "0.0.0.0", {42}),
        (8080, "10.0.0.1", set()),
        (8081, None, {44}),
        (8082, None, set()),
    ],
)
def test_the_kernels_table_is_read(
    port: int, address: str | None, inodes: set[int]
) -> None:
    assert inodes_in_table(TABLE, port, address) == inodes


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    length = 16 + len(body)
    return struct.pack("=IHHII", length, kind, flags, 1, 0) + body + bytes(-length % 4)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (message(sock_diag.ERROR, struct.pack("=i", -errno.ENOENT)), "No such file"),
        (message(20, bytes(72), sock_diag.WAS_INTERRUPTED), "came and went"),
    ],
    ids=["refused", "interrupted"],
)
def test_an_answer_that_is_none_is_an_error(data: bytes, error: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(data)
        with pytest.raises(OSError, match=error):
            list(sock_diag._answers(ours))
