"""Which sockets listen on a TCP port, asked of the kernel itself: sock_diag(7).

/proc/net/tcp tells the same, but as a text of all connections of the machine: with a thousand of
them a look takes milliseconds, and a request to an engine takes two.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

# linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST_DUMP = 0x301
ERROR, DONE = 2, 3
WAS_INTERRUPTED = 0x10
# net/tcp_states.h
LISTENING = 1 << 10

_HEADER = struct.Struct("=IHHII")
_ERROR_CODE = struct.Struct("=i")
# struct inet_diag_req_v2: family, protocol, extensions, states; then the socket it is about, of
# which only the own port is given.
_QUESTION = struct.Struct("=BBBxI")
_OWN_PORT = struct.Struct("!H46x")
# struct inet_diag_msg: the address that it listens on, and its last field, the inode.
_LISTENER = struct.Struct("=8x4s56xI")

LARGEST_MESSAGE = 1 << 16
# The kernel answers at once; nobody waits for ever if it does not.
PATIENCE_S = 1.0


def listening_inodes(port: int, address: str | None = None) -> set[int]:
    """The inodes of the IPv4 sockets that listen there, in this process' network namespace; with an
    address, of those that are bound to exactly this one.

    Raises OSError where the kernel does not answer such questions.
    """
    question = _QUESTION.pack(
        socket.AF_INET, socket.IPPROTO_TCP, 0, LISTENING
    ) + _OWN_PORT.pack(port)
    length = _HEADER.size + len(question)
    header = _HEADER.pack(length, SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0)

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(PATIENCE_S)
        asking.send(header + question)
        listeners = [_LISTENER.unpack_from(body) for body in _answers(asking)]
    wanted = address and socket.inet_aton(address)
    return {inode for bound, inode in listeners if wanted in (None, bound)}


def _answers(asking: socket.socket) -> Iterator[bytes]:
    """The bodies of all messages up to the last one. Raises OSError for one that says an error."""
    while True:
        data = asking.recv(LARGEST_MESSAGE)
        for kind, body in _messages(data):
            if kind == DONE:
                return
            if kind == ERROR:
                [code] = _ERROR_CODE.unpack_from(body)
                raise OSError(-code, os.strerror(-code))
            yield body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in a piece that came."""
    at = 0
    while at < len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if flags & WAS_INTERRUPTED:
            raise InterruptedError("sockets came and went while they were listed")
        yield kind, data[at + _HEADER.size : at + length]
        # Messages begin at multiples of four.
        at += (length + 3) & ~3
