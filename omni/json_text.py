"""JSON from outside, read so that what comes of it can be written again: for the engine, the
database, a page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

# Half of a character; JSON can write it as an escape, and no encoding can.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
DEEPEST = 100


class NotJson(ValueError):
    """The text is no JSON, or holds what no JSON may hold."""


def read_json(raw: bytes) -> Any:
    """Raises NotJson.

    Bytes that are no UTF-8 and lone surrogates become U+FFFD; numbers that are not finite are
    refused.
    """
    text = raw.decode("utf-8-sig", "replace")
    try:
        found = json.loads(text, parse_float=_finite, parse_constant=_refuse)
        if _ESCAPED_SURROGATE.search(text):
            found = json.loads(well_formed(json.dumps(found, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
    return found


def read_answer(raw: bytes | str) -> Any:
    """What an engine says, which is taken as far as it goes: numbers that are not finite become
    None.

    Raises ValueError, as json does.
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        found = json.loads(
            text, parse_float=_finite_or_none, parse_constant=lambda _: None
        )
        if _ESCAPED_SURROGATE.search(text):
            found = json.loads(well_formed(json.dumps(found, ensure_ascii=False)))
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return found


def _finite_or_none(text: str) -> float | None:
    value = float(text)
    if math.isfinite(value):
        return value
    return None


def well_formed(text: str) -> str:
    """The text with U+FFFD for every lone surrogate, which no encoding could write."""
    return _SURROGATE.sub("\ufffd", text)


def storable(text: str) -> str:
    """The same without what some database does not take: PostgreSQL has no U+0000."""
    return well_formed(text).replace("\0", "\ufffd")


def is_deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested deeper than this; walks without recursion."""
    layer = [value]
    for _ in range(limit):
        layer = [inner for outer in layer for inner in _containers(outer)]
        if not layer:
            return False
    return True


def _containers(value: Any) -> list[Any]:
    inside: Iterable[Any]
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    else:
        inside = ()
    return [inner for inner in inside if isinstance(inner, (dict, list))]


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotJson(f"{text[:40]} is too large a number")
    return value


def _refuse(text: str) -> float:
    raise NotJson(f"{text} is no JSON")
