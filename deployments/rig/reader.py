"""Reads a rig file. Every mistake in it is found at once, each with its line.

What a file alone can tell is checked here; whether a model, engine or device exists is for whoever
has the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from pathlib import PurePath
from typing import Any

import yaml

from deployments.engines import flavour_titles
from deployments.engines.external import EXTERNAL
from deployments.engines.flags import ExtraArgError, allowed_args
from deployments.names import LENGTH, is_name
from deployments.planning.settings import conflicts, parse_setting
from deployments.rig.nodes import compose, is_null, lines_of, shortened
from deployments.rig.words import (
    DEFAULT_FLAVOUR,
    DEFAULT_STRATEGY,
    DESCRIPTION_LENGTH,
    DEVICE,
    PATH_LENGTH,
    Problem,
    Rig,
    RigDeployment,
    RigEngine,
    RigError,
    RigModel,
    RigRoute,
)
from deployments.strategies import STRATEGIES, get_strategy
from omni.errors import OmniError

MOST_VALUES = 100_000
MOST_PROBLEMS = 200
LARGEST_NUMBER = 1 << 63


def parse(text: str) -> Rig:
    """Raises RigError with every mistake in the file."""
    reader = _Reader()
    root = compose(text)
    try:
        rig = reader.rig(root)
    except _Enough:
        rig = Rig()
    if reader.problems:
        raise RigError(reader.problems)
    return rig


class _Enough(Exception):
    """The walk ends here: what was noted so far is told."""


class _Reader:
    """Walks the nodes by what is expected; a mistake is noted and the walk goes on.

    What it does is bounded: aliases may name a long list many times, and one mistake may be made in
    every line.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values = 0

    def note(self, node: yaml.Node, text: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, text))
        if len(self.problems) >= MOST_PROBLEMS:
            text = f"There are more mistakes behind these {MOST_PROBLEMS}."
            self.problems.append(Problem(node.start_mark.line + 1, text))
            raise _Enough

    def count(self, node: yaml.CollectionNode) -> None:
        self.values += len(node.value)
        if self.values > MOST_VALUES:
            text = (
                f"The file has more than {MOST_VALUES} values, those of aliases counted"
                " each time."
            )
            self.problems.append(Problem(node.start_mark.line + 1, text))
            raise _Enough

    # --- sections ---------------------------------------------------------------------------------
    def rig(self, root: yaml.Node | None) -> Rig:
        if root is None:
            return Rig()
        kinds: dict[str, Callable[[yaml.Node], Any]] = {
            "engines": self.engine,
            "models": self.model,
            "deployments": self.deployment,
            "routes": self.route,
        }
        found = self.mapping(root, "the file", set(kinds))
        return Rig(
            **{key: self.section(key, node, kinds[key]) for key, node in found.items()}
        )

    def section(
        self, key: str, node: yaml.Node, read: Callable[[yaml.Node], Any]
    ) -> tuple[Any, ...]:
        entries = [read(item) for item in self.sequence(node, key)]
        for what in ("name", "path"):
            seen: set[str] = set()
            for entry in entries:
                value = getattr(entry, what, "")
                if value in seen:
                    self.problems.append(
                        Problem(
                            entry.line(what),
                            f"The {what} {value!r} is there twice in {key}.",
                        )
                    )
                seen |= {value} if value else set()
        return tuple(entries)

    def engine(self, node: yaml.Node) -> RigEngine:
        keys = self.entry(node, "engine", {"name", "path"}, {"flavour"})
        flavour = self.text(keys.get("flavour"), "flavour") or DEFAULT_FLAVOUR
        if flavour not in flavour_titles():
            self.note(
                keys["flavour"],
                f"The flavour is {flavour!r}. Omni knows:"
                f" {', '.join(flavour_titles())}.",
            )
        # Which hosts are allowed is for whoever has the settings.
        if flavour == EXTERNAL:
            path = self.text(keys.get("path"), "path")
        else:
            path = self.path(keys)
        return RigEngine(
            self.name(keys, "engines"), path, flavour, lines=lines_of(node, keys)
        )

    def model(self, node: yaml.Node) -> RigModel:
        keys = self.entry(node, "model", {"name", "path"})
        return RigModel(
            self.name(keys, "models"), self.path(keys), lines=lines_of(node, keys)
        )

    def route(self, node: yaml.Node) -> RigRoute:
        keys = self.entry(node, "route", {"name", "deployment"}, {"description"})
        texts = [self.text(keys.get(key), key) for key in ("deployment", "description")]
        if len(texts[1]) > DESCRIPTION_LENGTH:
            self.note(
                keys["description"],
                f"The description is longer than {DESCRIPTION_LENGTH} characters.",
            )
        return RigRoute(self.name(keys, "routes"), *texts, lines=lines_of(node, keys))

    def deployment(self, node: yaml.Node) -> RigDeployment:
        optional = {"strategy", "engine", "settings", "extra_args", "devices"}
        keys = self.entry(node, "deployment", {"name", "models"}, optional)
        strategy = self.strategy(keys)
        # An external server has none; which engines are such is known once they are
        # looked up.
        if (
            "engine" not in keys
            and "devices" not in keys
            and isinstance(node, yaml.MappingNode)
        ):
            self.note(node, "The deployment has no devices.")
        models = self.roles(
            keys.get("models"), "models", strategy, lambda n: self.text(n, "the model")
        )
        devices = self.places(keys, strategy)
        if devices or "engine" not in keys:
            self.same_roles(keys, strategy, models, devices)
        return RigDeployment(
            self.name(keys, "deployments"),
            strategy,
            self.text(keys.get("engine"), "engine"),
            models,
            devices,
            self.settings(keys.get("settings")),
            self.extra_args(keys.get("extra_args")),
            lines=lines_of(node, keys),
        )

    # --- values -----------------------------------------------------------------------------------
    def strategy(self, keys: dict[str, yaml.Node]) -> str:
        name = self.text(keys.get("strategy"), "strategy") or DEFAULT_STRATEGY
        try:
            get_strategy(name)
        except OmniError as error:
            self.note(keys["strategy"], str(error))
        return name

    def roles(
        self,
        node: yaml.Node | None,
        key: str,
        strategy: str,
        read: Callable[[yaml.Node], Any],
    ) -> dict[str, Any]:
        """A mapping with the strategy's roles; with one role its name may be left out."""
        try:
            roles = get_strategy(strategy).roles
            optional = get_strategy(strategy).optional_roles
        except OmniError:
            return {}
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode) and len(roles) == 1:
            return {roles[0]: read(node)}
        found = self.mapping(node, key, set(roles))
        for role in roles:
            if role not in found and role not in optional:
                self.note(
                    node, f"{key} lacks the role {role} of the strategy {strategy}."
                )
        return {role: read(value) for role, value in found.items()}

    def same_roles(
        self,
        keys: dict[str, yaml.Node],
        strategy: str,
        models: dict[str, Any],
        devices: dict[str, Any],
    ) -> None:
        """A role that may be left out is left out of both; one that may not has been asked for
        already."""
        for role in (
            STRATEGIES[strategy].optional_roles if strategy in STRATEGIES else ()
        ):
            if (role in models) != (role in devices) and {"models", "devices"} <= set(
                keys
            ):
                lacking = "devices" if role in models else "models"
                self.note(
                    keys[lacking],
                    f"{lacking} lacks the role {role}, which the other names.",
                )

    def places(
        self, keys: dict[str, yaml.Node], strategy: str
    ) -> dict[str, tuple[str, ...]]:
        """Role → devices; empty ones are left out where the engine may be one that needs none."""
        node = keys.get("devices")
        if "engine" not in keys:
            return self.roles(node, "devices", strategy, self.devices)
        if (
            node is None
            or is_null(node)
            or (isinstance(node, yaml.CollectionNode) and not node.value)
        ):
            return {}
        found = self.roles(
            node, "devices", strategy, lambda n: self.devices(n, may_be_empty=True)
        )
        return {role: names for role, names in found.items() if names}

    def devices(
        self, node: yaml.Node, *, may_be_empty: bool = False
    ) -> tuple[str, ...]:
        items: list[yaml.Node]
        if isinstance(node, yaml.ScalarNode):
            items = [node]
        else:
            items = self.sequence(node, "devices")
        names = [self.text(item, "the device") for item in items]
        for item, name in zip(items, names, strict=True):
            if name and not DEVICE.fullmatch(name):
                self.note(
                    item, f"{name!r} is not a device's name, such as CUDA0 or CPU."
                )
        if not names and not may_be_empty:
            self.note(node, "The list of devices is empty; CPU is one too.")
        if len(set(names)) != len(names):
            self.note(node, "A device is named twice.")
        return tuple(names)

    def settings(self, node: yaml.Node | None) -> dict[str, int | str]:
        if node is None or is_null(node):
            return {}
        found = {key: value for key, _, value in self.pairs(node, "settings")}
        values: dict[str, int | str] = {}
        for key, value in found.items():
            try:
                values[key] = parse_setting(key, self.scalar(value, key))
            except OmniError as error:
                self.note(value, str(error))
        for key, conflict in conflicts(values):
            self.note(found.get(key, node), str(conflict))
        return values

    def extra_args(self, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None or is_null(node):
            return ()
        items = self.sequence(node, "extra_args")
        args = tuple(self.text(item, "the argument") for item in items)
        try:
            allowed_args(args)
        except ExtraArgError as error:
            self.note(items[error.item], str(error))
        return args

    def name(self, keys: dict[str, yaml.Node], section: str) -> str:
        name = self.text(keys.get("name"), "name")
        if name and not is_name(name, section):
            wanted = (
                f"up to {LENGTH[section]} lowercase letters, digits, hyphens and"
                " underscores"
            )
            self.note(keys["name"], f"{name!r} cannot be a name: use {wanted}.")
        return name

    def path(self, keys: dict[str, yaml.Node]) -> str:
        path = self.text(keys.get("path"), "path")
        if path and (not PurePath(path).is_absolute() or "\0" in path):
            self.note(keys["path"], f"{path!r} is not a full path: begin it with /.")
        if len(path) > PATH_LENGTH:
            self.note(
                keys["path"], f"The path is longer than {PATH_LENGTH} characters."
            )
        return path

    # --- nodes ------------------------------------------------------------------------------------
    def entry(
        self,
        node: yaml.Node,
        what: str,
        required: Set[str],
        optional: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        keys = self.mapping(node, f"the {what}", required | optional)
        for key in sorted(required - set(keys)):
            if isinstance(node, yaml.MappingNode):
                self.note(node, f"The {what} has no {key}.")
        return keys

    def mapping(
        self, node: yaml.Node, what: str, known: Set[str]
    ) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, at, value in self.pairs(node, what):
            if key in known:
                found[key] = value
            else:
                self.note(
                    at,
                    f"{what} has no key {shortened(key)!r}; it has"
                    f" {', '.join(sorted(known))}.",
                )
        return found

    def pairs(
        self, node: yaml.Node, what: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Each key as text and as the node where it stands, and its value."""
        if not isinstance(node, yaml.MappingNode):
            self.note(node, f"{what} must be a list of `key: value` lines.")
            return
        self.count(node)
        seen: set[str] = set()
        for key, value in node.value:
            text = self.text(key, "the key")
            if text in seen:
                self.note(key, f"The key {shortened(text)!r} is there twice.")
            elif text:
                seen.add(text)
                yield text, key, value

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            self.count(node)
            return list(node.value)
        if not is_null(node):
            self.note(node, f"{what} must be a list.")
        return []

    def scalar(self, node: yaml.Node, what: str) -> Any:
        """The value as YAML understands it: number, truth value or text."""
        if not isinstance(node, yaml.ScalarNode):
            raise OmniError("bad_value", f"{what} must be one value.")
        if node.tag.rsplit(":", 1)[-1] in ("int", "bool", "null"):
            try:
                value = yaml.constructor.SafeConstructor().construct_object(node)
                # No setting is that large, and Python refuses to write such a number into a
                # message.
                if not isinstance(value, int) or abs(value) < LARGEST_NUMBER:
                    return value
                raise OmniError(
                    "bad_value", f"{what} is larger than any setting can be."
                )
            except (ValueError, KeyError):
                # What `!!int` and its like stand before need not be one.
                text = (
                    f"{what} is {shortened(node.value)!r}, which is no"
                    f" {node.tag.rsplit(':', 1)[-1]}."
                )
                raise OmniError("bad_value", text) from None
        return node.value

    def text(self, node: yaml.Node | None, what: str) -> str:
        if node is None:
            return ""
        if (
            not isinstance(node, yaml.ScalarNode)
            or is_null(node)
            or not node.value.strip()
        ):
            self.note(node, f"{what} must be a text.")
            return ""
        return str(node.value)
