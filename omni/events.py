"""Every message on the channel layer: its group, its type, its fields.

A message may be lost (the layer drops what does not fit), so each one either carries a position by
which the reader sees a gap and asks again, or only says that something changed.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class TelemetryFrame(TypedDict):
    """One tick of one host. `frame` is the JSON text for the browser, made once for all readers."""

    type: Literal["telemetry.frame"]
    sequence: int
    frame: str


class ChatDelta(TypedDict):
    """More text of an answer.

    `offset` is where it belongs, in characters (UTF-16 units are not used: the server counts code
    points and so does the page). track: "content" or "thinking".
    """

    type: Literal["chat.delta"]
    message: int
    track: str
    offset: int
    text: str


class ChatState(TypedDict):
    """An answer began, ended, or a message was added, changed or removed."""

    type: Literal["chat.state"]
    message: int
    state: str
    data: dict[str, Any]


STATE_GROUP = "state"


def telemetry_group(host: str) -> str:
    return f"telemetry.{host}"


def chat_group(conversation_id: int) -> str:
    return f"chat.{conversation_id}"
