"""An external OpenAI-compatible server: which addresses are taken, and what its
answers mean."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from omni.errors import OmniError

EXTERNAL = "external"
EXTERNAL_TITLE = "External server"
LONGEST_ADDRESS = 300
LONGEST_NAME = 200
MOST_MODELS = 1000
# Asked in this order; servers that have no /health have the list of models.
READY_PATHS = ("/health", "/v1/models")
# Not found, not allowed, not a method: the server lives and has no such call.
NO_SUCH_CALL = frozenset({404, 405, 501})
# How llama-server signs its list of models.
LLAMA_CPP = "llamacpp"
# What Omni's own chat asks of llama-server and no other server knows; strict ones refuse a request
# for it.
LLAMA_CPP_EXTRAS = frozenset({"timings_per_token", "return_progress"})


@dataclass(frozen=True)
class ServerReport:
    """What a server said when it was asked; it can be used unless there is `error`.

    `owner` is who it says owns its models: most servers put their own kind there.
    """

    models: tuple[str, ...] = ()
    owner: str = ""
    error: OmniError | None = None

    def offers(self, model: str) -> bool:
        """A list that was cut short proves nothing."""
        return model in self.models or len(self.models) >= MOST_MODELS

    @property
    def is_silent(self) -> bool:
        return self.error is not None and self.error.code == "server_silent"


def checked_address(text: str, allowed_hosts: Collection[str] = ()) -> str:
    """The base address without /v1 and without a slash at its end.

    This machine only, unless the host is among those that were allowed by name or number.
    Raises OmniError (bad_address, address_not_allowed).
    """
    if (
        len(text) > LONGEST_ADDRESS
        or not text.isascii()
        or not text.isprintable()
        or set(text) & set(" \\\"'<>")
    ):
        raise _bad("it is not a plain web address")
    try:
        parts = urlsplit(text)
        host = parts.hostname
        port = parts.port
    except ValueError:
        raise _bad("its host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise _bad("it must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise _bad("it carries a name or password; give the key separately")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise _bad("it has a query or a fragment")
    if not host or port == 0:
        raise _bad("it names no host, or port 0")
    _check_host(host, {name.lower() for name in allowed_hosts})
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    if ".." in path.split("/") or "//" in path or "%" in path:
        raise _bad("its path is not a plain one")
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def _check_host(host: str, allowed: Collection[str]) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address and (
        address.is_link_local or address.is_multicast or address.is_unspecified
    ):
        # Among the link-local ones are those at which clouds hand out a machine's credentials.
        raise OmniError(
            "address_not_allowed",
            f"{host} is no address of a server.",
            "Name the server's own address.",
        )
    is_here = host == "localhost" or bool(address and address.is_loopback)
    if not is_here and host not in allowed:
        text = f"{host} is another machine, and it is not among the hosts that were allowed."
        raise OmniError(
            "address_not_allowed",
            text,
            "Name it in OMNI_EXTERNAL_HOSTS, or use 127.0.0.1.",
        )


def _bad(what: str) -> OmniError:
    return OmniError(
        "bad_address",
        f"The address cannot be used: {what}.",
        "Write it as http://127.0.0.1:8080.",
    )


def parse_models(body: str | bytes) -> tuple[str, ...]:
    """The names in the answer to GET /v1/models, in its order.

    Raises OmniError (not_openai_compatible).
    """
    fix = "Is it an OpenAI-compatible server?"
    rows = _rows(body)
    if rows is None or not all("id" in row for row in rows):
        raise OmniError(
            "not_openai_compatible", "It answers with no list of models.", fix
        )
    names = [row["id"] for row in rows]
    good = [
        name
        for name in names
        if isinstance(name, str)
        and name.isprintable()
        and 0 < len(name) <= LONGEST_NAME
    ]
    if not good:
        raise OmniError("not_openai_compatible", "Its list of models is empty.", fix)
    return tuple(dict.fromkeys(good))[:MOST_MODELS]


def parse_owner(body: str | bytes) -> str:
    """Who owns the first model in the answer to GET /v1/models; empty when it does not say."""
    rows = _rows(body)
    owner = rows[0].get("owned_by") if rows else None
    if isinstance(owner, str) and owner.isprintable():
        return owner[:60]
    return ""


def _rows(body: str | bytes) -> list[dict[str, Any]] | None:
    """What the list of models holds; None where the body is no such list."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    return rows


def left_out(owner: str) -> frozenset[str]:
    """Names of fields that a server of this kind is not sent."""
    if owner == LLAMA_CPP:
        return frozenset()
    return LLAMA_CPP_EXTRAS


def is_ready(path: str, status: int) -> bool | None:
    """What an answer to one of READY_PATHS tells; None: ask the next one."""
    if status == 200:
        return True
    # Behind a key a list of models is refused by a server that serves.
    if status in NO_SUCH_CALL or (path == "/health" and status in (401, 403)):
        return None
    return False


def no_answer(path: str, status: int) -> OmniError:
    """What it means that a server did not answer one of READY_PATHS with 200."""
    if status in (401, 403):
        return OmniError(
            "key_refused",
            f"It refuses the key it was given (status {status}).",
            "Give it another key.",
        )
    if 300 <= status < 400:
        text = f"It sends {path} elsewhere (status {status}), and Omni follows nobody."
        return OmniError(
            "server_redirects", text, "Give the address it really answers at."
        )
    if status in NO_SUCH_CALL:
        text = f"It has no {path} (status {status})."
        return OmniError(
            "not_openai_compatible", text, "Is it an OpenAI-compatible server?"
        )
    return OmniError(
        "server_not_ready",
        f"It answers {path} with status {status}.",
        "It is asked again by itself.",
    )
