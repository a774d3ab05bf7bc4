"""What a process was started with, for those who look after it.

The engine's flavour says it when it makes the command, and it is kept with the process: nobody
reads it out of a command line, which each engine spells in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deployments.formats.kinds import Kind


@dataclass(frozen=True)
class LaunchFacts:
    """Empty is: nothing of the kind, or not known."""

    # Which engine it is; empty for the server of a device.
    flavour: str = ""
    model_path: str = ""
    draft_path: str = ""
    # The GGUF with which it sees or hears.
    projector_path: str = ""
    # Whether these are folders with safetensors; else each is the first file of a GGUF.
    is_folder: bool = False
    # The name under which the engine answers.
    alias: str = ""
    # What it answers with.
    kind: str = Kind.TEXT.value
    # How many requests it works on at once, and where it saves and loads their KV caches.
    slots: int = 1
    slots_folder: str = ""
    # host:port of the device servers it computes on, in the engine's own order.
    rpc_endpoints: tuple[str, ...] = ()
    # The devices it was told to compute on, under the engine's own names.
    devices: tuple[str, ...] = ()
    # One of the engine's own words; empty where nothing was said.
    split_mode: str = ""
    drafts: bool = False
    # Where the server of a device listens; empty for one that listens on this machine alone.
    bind_address: str = ""

    def document(self) -> dict[str, Any]:
        """What JSON keeps of it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def read_launch_facts(document: object) -> LaunchFacts:
    """What `document` made of them. Of another version's keys those that are known are taken.

    Raises ValueError for what is no such document.
    """
    if not isinstance(document, Mapping):
        raise ValueError("launch facts are not a mapping")
    known = {field.name: field.default for field in fields(LaunchFacts)}
    given = {name: document[name] for name in known if name in document}
    return LaunchFacts(
        **{name: _read(name, known[name], value) for name, value in given.items()}
    )


def _read(name: str, default: object, value: object) -> Any:
    """The value in the form that the field has."""
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
    # A truth value is a number to Python, and none here.
    elif type(value) is type(default):
        return value
    raise ValueError(f"launch facts: {name} is {value!r}")
