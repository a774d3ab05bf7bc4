"""A plan as JSON and back: what is stored with a deployment's generation.

Every dataclass is written field by field as its annotations say, so that a new field is carried
without a line here. What was written by another version is refused, never guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from deployments.planning.plan import PLACEHOLDERS, Placeholder, Plan

FORMAT = 1
# Of the objects that stand for what JSON has not got.
PLACEHOLDER = "placeholder"
NUMBER = "number"
TUPLE = "tuple"
MAP = "map"


class UnreadablePlan(ValueError):
    """It was written by another version, or is no plan."""


def encode(plan: Plan) -> dict[str, Any]:
    return {"format": FORMAT, "plan": _encoded(plan)}


def decode(data: Any) -> Plan:
    """Raises UnreadablePlan."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UnreadablePlan(f"It is not of format {FORMAT}.")
    plan = _decoded(data.get("plan"), Plan)
    assert isinstance(plan, Plan)
    return plan


_PLAIN = frozenset({str, int, bool, NoneType})


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


# --- out ------------------------------------------------------------------------------------------
def _encoded(value: Any) -> Any:
    # Most are these, exactly: what is told from a text by its type is none.
    kind: type = type(value)
    if kind in _PLAIN:
        return value
    if is_dataclass(value):
        names = _names(kind)
        return {name: _encoded(getattr(value, name)) for name in names}
    if isinstance(value, Placeholder):
        return {PLACEHOLDER: str(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return {NUMBER: repr(value)}
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {MAP: {str(name): _encoded(each) for name, each in value.items()}}
    if isinstance(value, tuple):
        return {TUPLE: [_encoded(each) for each in value]}
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    raise TypeError(f"A plan cannot hold {type(value).__name__}.")


# --- in -------------------------------------------------------------------------------------------
def _decoded(data: Any, kind: Any) -> Any:
    """The value as its annotation says; raises UnreadablePlan where it is of another kind."""
    return _decoder(kind)(data, kind)


@cache
def _decoder(kind: Any) -> Callable[[Any, Any], Any]:
    """Looked up for each of a plan's hundreds of values."""
    if get_origin(kind) in (Union, UnionType):
        return _one_of
    if is_dataclass(kind):
        return _dataclass
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member
    return _other


def _one_of(data: Any, union: Any) -> Any:
    kinds = get_args(union)
    for kind in kinds:
        try:
            return _decoded(data, kind)
        except UnreadablePlan:
            continue
    raise UnreadablePlan(f"{data!r} is none of {kinds}.")


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in _names(kind)}


def _dataclass(data: Any, kind: Any) -> Any:
    hints = _hints(kind)
    if not isinstance(data, dict) or data.keys() != hints.keys():
        raise UnreadablePlan(f"It does not have the fields of {kind.__name__}.")
    return kind(**{name: _decoded(data[name], hint) for name, hint in hints.items()})


def _member(data: Any, kind: type[Enum]) -> Enum:
    try:
        return kind(data)
    except ValueError:
        raise UnreadablePlan(f"{data!r} is no {kind.__name__}.") from None


def _other(data: Any, kind: Any) -> Any:
    return _checked(_plain(data, kind), kind)


def _plain(data: Any, kind: Any) -> Any:
    """What stands for itself; the parts of a tuple or a map are of the kind that it names."""
    if isinstance(data, list):
        return [_decoded(each, Any) for each in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise UnreadablePlan(f"{sorted(data)} stand for nothing.")
    ((tag, inner),) = data.items()
    if tag == PLACEHOLDER and inner in PLACEHOLDERS:
        return PLACEHOLDERS[inner]
    if tag == NUMBER:
        return float(inner)
    if tag == TUPLE:
        return tuple(
            _decoded(*pair)
            for pair in zip(inner, _parts(kind, len(inner)), strict=True)
        )
    if tag == MAP:
        part = (get_args(kind) or (str, Any))[1]
        return {name: _decoded(each, part) for name, each in inner.items()}
    raise UnreadablePlan(f"{tag!r} stands for nothing.")


def _parts(kind: Any, count: int) -> list[Any]:
    """The kinds of a tuple's parts."""
    named = [each for each in get_args(kind) if each is not Ellipsis] or [Any]
    if len(named) == 1:
        return named * count
    return list(named)


def _checked(value: Any, kind: Any) -> Any:
    if kind is Any or type(value) is kind:
        return value
    wanted = NoneType if kind is None else get_origin(kind) or kind
    is_whole = wanted is float and isinstance(value, int)
    if not (is_whole or isinstance(value, wanted)):
        raise UnreadablePlan(f"{value!r} is not of {kind}.")
    return value
