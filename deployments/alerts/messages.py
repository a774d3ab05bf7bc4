"""How an alert is written for each kind of channel: one function a kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from deployments.alerts.machine import Event
from deployments.alerts.rules import Severity
from omni.errors import OmniError

TEST = "test"


class ChannelKind(StrEnum):
    """Where alerts are told."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    DISCORD = "discord"
    NTFY = "ntfy"
    EMAIL = "email"


TITLES = {
    ChannelKind.WEBHOOK: "Webhook (JSON)",
    ChannelKind.SLACK: "Slack or Mattermost",
    ChannelKind.DISCORD: "Discord",
    ChannelKind.NTFY: "ntfy",
    ChannelKind.EMAIL: "E-mail",
}
NTFY_PRIORITY = {Severity.ERROR: 5, Severity.CAUTION: 4, Severity.INFO: 3}


@dataclass(frozen=True)
class Message:
    """What is told. `number` is that of the delivery: who gets it twice can tell."""

    number: int
    event: str
    severity: str
    host: str
    code: str = ""
    title: str = ""
    subject: str = ""
    text: str = ""
    fix: str = ""
    at: str = ""

    @property
    def headline(self) -> str:
        if self.event == TEST:
            return f"Omni on {self.host}: a test"
        word = "cleared" if self.event == Event.CLEARED else self.severity
        return f"Omni on {self.host}: {self.title} ({word})"

    @property
    def body(self) -> str:
        if self.event == TEST:
            return "Alerts of this panel arrive here."
        return "\n".join(part for part in (self.text, self.fix) if part)


@dataclass(frozen=True)
class Post:
    """A request to an external server. Its address may be a secret: it is in no repr."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Post({len(self.body)} bytes)"


def post_of(kind: ChannelKind, url: str, token: str, message: Message) -> Post:
    """The request that tells a message. Raises OmniError (bad_address)."""
    checked_address(url, kind)
    url, payload = _PAYLOADS[kind](url, message)
    headers = {"Content-Type": "application/json", "User-Agent": "omni-alerts"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return Post(url, headers, json.dumps(payload).encode())


def _webhook(url: str, message: Message) -> tuple[str, dict[str, Any]]:
    return url, {**vars(message), "headline": message.headline, "text": message.body}


def _slack(url: str, message: Message) -> tuple[str, dict[str, Any]]:
    return url, {"text": f"*{message.headline}*\n{message.body}"}


def _discord(url: str, message: Message) -> tuple[str, dict[str, Any]]:
    # Nobody is called by a name that happens to stand in a text.
    silent: dict[str, list[str]] = {"parse": []}
    text = f"**{message.headline}**\n{message.body}"[:2000]
    return url, {"content": text, "allowed_mentions": silent}


def _ntfy(url: str, message: Message) -> tuple[str, dict[str, Any]]:
    """As JSON to the server's root: titles in headers would have to be ASCII."""
    parts = urlsplit(url)
    base, _, topic = parts.path.rstrip("/").rpartition("/")
    is_over = message.event in (Event.CLEARED, TEST)
    severity = Severity(message.severity)
    payload = {
        "topic": topic,
        "title": message.headline,
        "message": message.body,
        "priority": 3 if is_over else NTFY_PRIORITY[severity],
        "tags": ["white_check_mark" if is_over else "warning"],
    }
    return urlunsplit((parts.scheme, parts.netloc, f"{base}/", "", "")), payload


_PAYLOADS: dict[ChannelKind, Callable[[str, Message], tuple[str, dict[str, Any]]]] = {
    ChannelKind.WEBHOOK: _webhook,
    ChannelKind.SLACK: _slack,
    ChannelKind.DISCORD: _discord,
    ChannelKind.NTFY: _ntfy,
}


# --- addresses ------------------------------------------------------------------------------------
def checked_address(url: str, kind: ChannelKind) -> str:
    """As much of it as anybody may see: what follows the host is often the secret.

    Raises OmniError (bad_address).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_address("This is no address.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad_address("It has to begin with http:// or https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise _bad_address("A name and password in it would be sent in the clear.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _bad_address("It has blanks or signs that an address cannot carry.")
    if kind == ChannelKind.NTFY and not parts.path.strip("/"):
        raise _bad_address("It lacks the topic, as in https://ntfy.sh/my-topic.")
    return f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}"


def _bad_address(text: str) -> OmniError:
    return OmniError("bad_address", text, "Copy the address again.")
