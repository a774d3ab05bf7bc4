"""Typed reading of environment variables: a wrong value is refused by name, never guessed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from omni.addresses import is_private, private_hint

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


class EnvError(ValueError):
    """An environment variable holds a value that cannot be used."""


def envstr(
    name: str, default: str = "", environ: Mapping[str, str] = os.environ
) -> str:
    return environ.get(name, "").strip() or default


def envbool(name: str, default: bool, environ: Mapping[str, str] = os.environ) -> bool:
    raw = environ.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in TRUE:
        return True
    if raw in FALSE:
        return False
    raise EnvError(f"{name} is {raw!r}; use one of: true, false.")


def envint(
    name: str,
    default: int,
    *,
    low: int,
    high: int,
    environ: Mapping[str, str] = os.environ,
) -> int:
    raw = environ.get(name, "").strip()
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise EnvError(f"{name} is {raw!r}; use a whole number.") from None
    if not low <= value <= high:
        raise EnvError(f"{name} is {value}; use a number from {low} to {high}.")
    return value


def envlist(
    name: str, default: tuple[str, ...] = (), environ: Mapping[str, str] = os.environ
) -> list[str]:
    """A comma-separated list; blanks are dropped."""
    raw = environ.get(name, "")
    return [part.strip() for part in raw.split(",") if part.strip()] or list(default)


def envpath(name: str, default: Path, environ: Mapping[str, str] = os.environ) -> Path:
    raw = environ.get(name, "").strip()
    return (Path(raw) if raw else default).expanduser().absolute()


def envrange(
    name: str,
    default: tuple[int, int],
    *,
    low: int,
    high: int,
    environ: Mapping[str, str] = os.environ,
) -> tuple[int, int]:
    """An inclusive range written `first-last`."""
    raw = environ.get(name, "").strip()
    if not raw:
        return default
    first, dash, last = raw.partition("-")
    if not (
        dash
        and first.isdigit()
        and last.isdigit()
        and low <= int(first) <= int(last) <= high
    ):
        raise EnvError(
            f"{name} is {raw!r}; use first-last within {low}-{high}, such as 18100-18999."
        )
    return int(first), int(last)


def envwords(
    name: str, pattern: str, example: str, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """A comma-separated list of words that each match the pattern, every one once."""
    words = tuple(dict.fromkeys(envlist(name, environ=environ)))
    for word in words:
        if not re.fullmatch(pattern, word):
            raise EnvError(f"{name} has {word!r}; use {example}.")
    return words


def envaddress(
    name: str,
    default: str,
    own: Callable[[], Collection[str]],
    environ: Mapping[str, str] = os.environ,
) -> str:
    """A private IPv4 address that is one of this machine's `own`; loopback addresses always are."""
    raw = environ.get(name, "").strip()
    if not raw or raw == default:
        return default
    if not is_private(raw):
        raise EnvError(f"{name} is {raw!r}; use {private_hint()}.")
    if not raw.startswith("127.") and raw not in (known := own()):
        there = ", ".join(sorted(filter(is_private, known))) or "none"
        raise EnvError(
            f"{name} is {raw!r}, which is no address of this machine; its private ones: {there}."
        )
    return raw


def envnetworks(
    name: str, default: tuple[str, ...] = (), environ: Mapping[str, str] = os.environ
) -> tuple[IPv4Network | IPv6Network, ...]:
    """A comma-separated list of addresses and networks, such as 127.0.0.1, 10.0.0.0/8."""
    found = []
    for word in envlist(name, default, environ=environ):
        try:
            found.append(ip_network(word))
        except ValueError:
            raise EnvError(
                f"{name} has {word!r}; use addresses or networks, such as 10.0.0.1 or 10.0.0.0/8."
            ) from None
    return tuple(found)


def envprefix(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """A path such as `/omni`, without a slash at its end; empty when it is not set, or `/`."""
    raw = environ.get(name, "").strip()
    prefix = raw.rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._~-]*)+", prefix):
        raise EnvError(
            f"{name} is {raw!r}; use a path of letters, digits and . _ ~ - such as /omni."
        )
    return prefix


def envsecret(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The value of NAME, or the content of the file that NAME_FILE points to; None when neither is
    set."""
    value = environ.get(name, "")
    if value:
        return value
    if not (path := environ.get(f"{name}_FILE", "")):
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise EnvError(
            f"{name}_FILE names {path!r}, which cannot be read: {error.strerror}."
        ) from None
