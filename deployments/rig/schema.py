"""The JSON Schema (draft 2020-12) of the rig file, made from the tables that the parser reads by.

It is for editors and other programs. What no schema can say is left to the parser: names that are
there twice, settings that exclude each other, and whether a model, engine or device exists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deployments.advice.purposes import KNOWN, MOST_PURPOSES
from deployments.engines import flavour_titles
from deployments.engines.external import EXTERNAL, LONGEST_ADDRESS
from deployments.engines.flag_table import ALLOWED, SHORT
from deployments.gateway.auto.rules import (
    CONDITIONS,
    FLAG,
    LARGEST_NUMBER,
    LONGEST_WORD,
    MOST_RULES,
    MOST_WORDS,
    NUMBER,
    TO,
    WORDS,
)
from deployments.names import LENGTH, NAME, RESERVED
from deployments.planning.setting import LIST_OF_NUMBERS, Setting
from deployments.planning.settings import SETTINGS
from deployments.rig.words import (
    DEFAULT_FLAVOUR,
    DEFAULT_STRATEGY,
    DESCRIPTION_LENGTH,
    DEVICE,
    PATH_LENGTH,
)
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def rig_schema() -> Schema:
    sections = {
        "engines": _engine(),
        "models": _model(),
        "deployments": _deployment(),
        "routes": _route(),
    }
    # A section without entries is null in YAML.
    properties = {
        key: {"type": ["array", "null"], "items": entry}
        for key, entry in sections.items()
    }
    return {
        "$schema": DIALECT,
        "title": "Omni rig file",
        "description": "Engines, models, deployments and routes of one host.",
        # An empty file is an empty rig.
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


# --- entries --------------------------------------------------------------------------------------
def _engine() -> Schema:
    flavour = {"enum": list(flavour_titles()), "default": DEFAULT_FLAVOUR}
    entry = _object(
        {"name": _name("engines"), "path": {"type": "string"}, "flavour": flavour},
        "name",
        "path",
    )
    is_external = {
        "properties": {"flavour": {"const": EXTERNAL}},
        "required": ["flavour"],
    }
    address = {
        "type": "string",
        "pattern": r"^https?://\S+$",
        "maxLength": LONGEST_ADDRESS,
    }
    address["description"] = "the address of an external server"
    program, server = (
        {"properties": {"path": path}} for path in (_path("its program"), address)
    )
    return {**entry, "if": is_external, "then": server, "else": program}


def _model() -> Schema:
    return _object(
        {
            "name": _name("models"),
            "path": _path(
                "the GGUF, or its first shard, or the folder with safetensors"
            ),
        },
        "name",
        "path",
    )


def _route() -> Schema:
    description = {**_text("what clients are told"), "maxLength": DESCRIPTION_LENGTH}
    properties = {
        "name": {**_name("routes"), "description": "the public model name"},
        "deployment": _text("the deployment it leads to"),
        "description": description,
        "rules": {
            "type": ["array", "null"],
            "items": _route_rule(),
            "maxItems": MOST_RULES,
            "description": "the first that applies says who answers",
        },
        "fallbacks": {
            "type": ["array", "null"],
            "items": _text("a deployment"),
            "description": "asked in this order when those before cannot be reached",
        },
    }
    return _object(properties, "name", "deployment")


def _route_rule() -> Schema:
    word = {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_WORD,
        "pattern": r"\S",
    }
    words = {"type": "array", "items": word, "minItems": 1, "maxItems": MOST_WORDS}
    kinds: dict[str, Schema] = {
        WORDS: {"anyOf": [word, words]},
        NUMBER: {"type": "number", "minimum": 0, "maximum": LARGEST_NUMBER},
        FLAG: {"type": "boolean"},
    }
    properties = {
        name: {**kinds[condition.kind], "description": condition.help}
        for name, condition in CONDITIONS.items()
    }
    to = {**kinds[WORDS], "description": "a deployment, or several equals"}
    return _object({**properties, TO: to}, TO)


def _deployment() -> Schema:
    properties: Schema = {
        "name": _name("deployments"),
        "strategy": {
            "enum": list(STRATEGIES),
            "default": DEFAULT_STRATEGY,
            "description": " ".join(
                f"{s.name}: {s.summary}" for s in STRATEGIES.values()
            ),
        },
        "engine": _text(
            "the name of an engine or a flavour; left out: the first that fits"
        ),
        "models": {"description": "which model plays which role"},
        "devices": {
            "description": "the devices of each role, in order, such as CUDA0 or CPU"
        },
        "settings": _settings(),
        "extra_args": _extra_args(),
        "purposes": _purposes(),
    }
    entry = _object(properties, "name", "models")
    # Only an external server has no devices, and such an engine is named.
    places = [{"required": ["devices"]}, {"required": ["engine"]}]
    return {
        **entry,
        "anyOf": places,
        "allOf": [_roles_of(strategy) for strategy in STRATEGIES.values()],
    }


def _roles_of(strategy: Strategy) -> Schema:
    """If the entry has this strategy, then its models and devices have its roles."""
    named: Schema = {"properties": {"strategy": {"const": strategy.name}}}
    if strategy.name != DEFAULT_STRATEGY:
        named["required"] = ["strategy"]
    device = {"type": "string", "pattern": _whole(DEVICE)}
    devices = {"type": "array", "items": device, "minItems": 1, "uniqueItems": True}
    both = {
        "models": _by_role(
            strategy,
            strategy.model_roles,
            [_text("a model; to plan only: hub:OWNER/REPO@BRANCH:QUANT")],
        ),
        "devices": _by_role(strategy, strategy.roles, [device, devices]),
    }
    optional = _optional_roles(strategy)
    return {
        "if": named,
        "then": {"properties": both} | ({"allOf": optional} if optional else {}),
    }


def _by_role(strategy: Strategy, roles: Sequence[str], kinds: list[Schema]) -> Schema:
    """A mapping by role; with one role its name may be left out."""
    needed = [role for role in strategy.roles if role not in strategy.optional_roles]
    mapping = _object({role: {"anyOf": kinds} for role in roles}, *needed)
    if len(strategy.roles) == 1:
        return {"anyOf": [mapping, *kinds]}
    return mapping


def _optional_roles(strategy: Strategy) -> list[Schema]:
    """One that is left out is left out of both models and devices."""

    def names(key: str, role: str) -> Schema:
        return {"properties": {key: {"required": [role]}}}

    pairs = (("models", "devices"), ("devices", "models"))
    return [
        {"if": names(a, role), "then": names(b, role)}
        for role in strategy.optional_roles
        for a, b in pairs
    ]


# --- values ---------------------------------------------------------------------------------------
def _settings() -> Schema:
    properties = {key: _setting(setting) for key, setting in SETTINGS.items()}
    return {
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


def _setting(setting: Setting) -> Schema:
    kinds: list[Schema] = []
    if setting.is_number:
        kinds.append(
            {"type": "integer", "minimum": setting.low, "maximum": setting.high}
        )
    if setting.words:
        # YAML 1.1 reads a bare on or off as a truth value.
        switches = [word == "on" for word in setting.words if word in ("on", "off")]
        kinds.append({"enum": [*setting.words, *switches]})
    if setting.is_list:
        kinds.append({"type": "string", "pattern": _whole(LIST_OF_NUMBERS)})
    if setting.is_name:
        kinds.append(_name("groups"))
    about = {
        "title": setting.title,
        "description": setting.help,
        "default": setting.default,
    }
    return about | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _extra_args() -> Schema:
    """One flag with its value an item, as --flag value or --flag=value, or each word an item of its
    own."""
    flags = "|".join(
        flag
        for flag in sorted({*ALLOWED, *(s for s, to in SHORT.items() if to in ALLOWED)})
    )
    word = rf"(?:(?:{flags})(?:=\S+)?|[^-\s]\S*|-\d\S*)"
    items = {"type": "string", "pattern": rf"^\s*{word}(?:\s+{word})*\s*$"}
    return {
        "type": ["array", "null"],
        "items": items,
        "description": "allow-listed flags for the engine",
    }


def _purposes() -> Schema:
    reserved = {"enum": sorted(RESERVED["deployments"])}
    known = f"{', '.join(KNOWN)}, or a name of your own"
    return {
        "type": ["array", "null"],
        "items": {**_name("deployments"), "not": reserved},
        "uniqueItems": True,
        "maxItems": MOST_PURPOSES,
        "description": f"what it is for and auto may send here: {known}",
    }


def _object(properties: Schema, *required: str) -> Schema:
    found: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return found | ({"required": list(required)} if required else {})


def _name(section: str) -> Schema:
    return {"type": "string", "pattern": _whole(NAME), "maxLength": LENGTH[section]}


def _path(what: str) -> Schema:
    text = f"full path of {what}"
    return {
        "type": "string",
        "pattern": r"^/[^\x00]*$",
        "maxLength": PATH_LENGTH,
        "description": text,
    }


def _text(description: str) -> Schema:
    return {"type": "string", "pattern": r"\S", "description": description}


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^(?:{pattern.pattern})$"
