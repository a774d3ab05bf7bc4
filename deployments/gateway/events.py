"""Server-sent events by the rules of the standard: where one ends, and what it says.

Bytes are passed on as they came; they are looked into only to know whether an answer is complete.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator

from deployments.gateway.api import COMPLETE, Api
from omni.errors import OmniError

# A line ends with CRLF, LF or CR; an empty line ends an event.
LINE_END = re.compile(rb"\r\n|\n|\r")
EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
# What EVENT_END can look like, for a quick search from the end of what came.
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r", b"\n\r")
LONGEST_END = max(map(len, EVENT_ENDS))
DONE = b"[DONE]"
LARGEST_EVENT_BYTES = 8 << 20
# The event that ends an answer is followed by few others: usage, timings, [DONE].
LAST_EVENTS_BYTES = 64 << 10
FIRST_EVENT_BYTES = 16 << 10


class WholeEvents:
    """Cuts a byte stream behind its last whole event.

    What was passed on always ends with an event, so an error can follow when the stream breaks off.
    """

    def __init__(self, api: Api = Api.OPENAI) -> None:
        """`api` is that of the endpoint which answers."""
        self._api = api
        self._rest = bytearray()
        self._first = b""
        self._last: deque[bytes] = deque()
        self._last_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that complete events so far; empty when none was completed.

        Raises OmniError (engine_died) for an event without an end.
        """
        if not self._rest and chunk.endswith(EVENT_ENDS[0]):
            # As engines send them: what came is passed on as it is.
            self._remember(chunk)
            return chunk
        # What was looked through before is not looked through again, however small the pieces are.
        begin = max(0, len(self._rest) - LONGEST_END + 1)
        self._rest += chunk
        found = ((self._rest.rfind(mark, begin), mark) for mark in EVENT_ENDS)
        end = max((at + len(mark) for at, mark in found if at >= 0), default=0)
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        if len(self._rest) > LARGEST_EVENT_BYTES:
            text = (
                f"The engine sent more than {LARGEST_EVENT_BYTES >> 20} MiB without an end of an"
                " event."
            )
            raise OmniError("engine_died", text)
        if whole:
            self._remember(whole)
        return whole

    def finish(self) -> bytes:
        """What is left when the stream has ended: an event that only lacks its empty line, else
        nothing.

        The standard has a fragment thrown away: passed on, it would spoil the event behind it.
        """
        rest = bytes(self._rest)
        self._rest = bytearray()
        if not _is_whole(data_of(rest)):
            return b""
        event = rest + b"\n\n"
        self._remember(event)
        return event

    @property
    def is_complete(self) -> bool:
        """Whether the last events say that the answer is all there, or what went wrong with it."""
        return any(
            ends_answer(event, self._api)
            for piece in reversed(self._last)
            for event in reversed(split_events(piece))
        )

    def latest_first(self) -> Iterator[bytes]:
        """What is kept of the answer, in pieces of whole events, from its end: there it says what
        it cost. Some APIs tell what a prompt cost where the answer begins: that piece comes last.
        """
        yield from reversed(self._last)
        yield self._first

    def _remember(self, events: bytes) -> None:
        if not self._first:
            self._first = events[:FIRST_EVENT_BYTES]
        self._last.append(events)
        self._last_bytes += len(events)
        while self._last_bytes - len(self._last[0]) > LAST_EVENTS_BYTES:
            self._last_bytes -= len(self._last.popleft())


def split_events(events: bytes) -> list[bytes]:
    """Whole events, one by one."""
    return [event for event in EVENT_END.split(events) if event]


def data_of(event: bytes) -> bytes:
    """The data of one event: its data lines, joined; empty for comments and events without data."""
    lines = []
    for line in LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def name_of(event: bytes) -> bytes:
    """What kind of event it says that it is; empty where it does not say."""
    names = [
        value.removeprefix(b" ")
        for name, _, value in (line.partition(b":") for line in LINE_END.split(event))
        if name == b"event"
    ]
    return names[-1] if names else b""


def ends_answer(event: bytes, api: Api = Api.OPENAI) -> bool:
    """Whether an answer ends with this event, well or not."""
    data = data_of(event)
    if data.strip() == DONE:
        return True
    said = _object(data)
    if said is None:
        return False
    is_error = bool(said.get("error")) or name_of(event) == b"error"
    return is_error or COMPLETE[api](said)


def _is_whole(data: bytes) -> bool:
    return data.strip() == DONE or _object(data) is not None


def _object(data: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        return found
    return None
