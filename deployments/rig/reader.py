"""Reads a rig file. Every mistake in it is found at once, each with its line.

What a file alone can tell is checked here; whether a model, engine or device exists is for whoever
has the database.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import yaml

from deployments.advice.purposes import MOST_PURPOSES, why_no_purpose
from deployments.engines import flavour_titles
from deployments.engines.external import EXTERNAL
from deployments.engines.flags import ExtraArgError, allowed_args
from deployments.gateway.auto.rules import CONDITIONS, MOST_RULES, TO, read_rule
from deployments.names import LENGTH, is_name
from deployments.planning.settings import conflicts, parse_setting
from deployments.rig.nodes import compose, is_null, lines_of
from deployments.rig.walk import Enough, Walk
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


def parse(text: str) -> Rig:
    """Raises RigError with every mistake in the file."""
    reader = _Reader()
    root = compose(text)
    try:
        rig = reader.rig(root)
    except Enough:
        rig = Rig()
    if reader.problems:
        raise RigError(reader.problems)
    return rig


class _Reader(Walk):
    """Reads each section by what is expected of it."""

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
        optional = {"description", "rules", "fallbacks"}
        keys = self.entry(node, "route", {"name", "deployment"}, optional)
        texts = [self.text(keys.get(key), key) for key in ("deployment", "description")]
        if len(texts[1]) > DESCRIPTION_LENGTH:
            self.note(
                keys["description"],
                f"The description is longer than {DESCRIPTION_LENGTH} characters.",
            )
        return RigRoute(
            self.name(keys, "routes"),
            texts[0],
            texts[1],
            self.rules(keys.get("rules")),
            self.fallbacks(keys.get("fallbacks")),
            lines=lines_of(node, keys),
        )

    def rules(self, node: yaml.Node | None) -> tuple[dict[str, Any], ...]:
        """The rules of a route, each as its document."""
        if node is None or is_null(node):
            return ()
        items = self.sequence(node, "rules")
        if len(items) > MOST_RULES:
            self.note(node, f"A route has at most {MOST_RULES} rules.")
            return ()
        found = []
        for item in items:
            keys = self.mapping(item, "the rule", {*CONDITIONS, TO})
            try:
                given = {key: self.plain(value, key) for key, value in keys.items()}
                found.append(read_rule(given).document())
            except OmniError as error:
                self.note(item, str(error))
        return tuple(found)

    def plain(self, node: yaml.Node, key: str) -> Any:
        """A list of texts, or one value; numbers with a point, too."""
        if isinstance(node, yaml.SequenceNode):
            return [self.text(item, key) for item in self.sequence(node, key)]
        value = self.scalar(node, key)
        if node.tag.endswith(":float"):
            return yaml.constructor.SafeConstructor().construct_object(node)
        return value

    def fallbacks(self, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None or is_null(node):
            return ()
        return tuple(
            self.text(item, "the fall-back")
            for item in self.sequence(node, "fallbacks")
        )

    def deployment(self, node: yaml.Node) -> RigDeployment:
        optional = {
            "strategy",
            "engine",
            "settings",
            "extra_args",
            "devices",
            "purposes",
        }
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
            self.purposes(keys.get("purposes")),
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
            known = get_strategy(strategy).model_roles if key == "models" else roles
        except OmniError:
            return {}
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode) and len(roles) == 1:
            return {roles[0]: read(node)}
        found = self.mapping(node, key, set(known))
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

    def purposes(self, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None or is_null(node):
            return ()
        items = self.sequence(node, "purposes")
        names = tuple(self.text(item, "the purpose") for item in items)
        for item, name in zip(items, names, strict=True):
            if name and (why := why_no_purpose(name)):
                self.note(item, why)
        if len(set(names)) != len(names):
            self.note(node, "A purpose is named twice.")
        if len(names) > MOST_PURPOSES:
            text = f"These are {len(names)} purposes; {MOST_PURPOSES} are the most."
            self.note(node, text)
        return names

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
