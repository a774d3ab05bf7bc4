"""What an engine is to Omni: how it is asked what it can do, and how its command line is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deployments.planning.plan import DeviceFacts, EngineFacts


@dataclass(frozen=True)
class ListedDevice:
    """A device as the engine lists it; the sizes are None where it does not say."""

    name: str
    description: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True)
class DraftSpec:
    """How drafts are made: a type of the engine's, and the model it needs, if any, with its devices."""

    type: str
    model_path: str = ""
    devices: tuple[DeviceFacts, ...] = ()
    gpu_layers: int | str = "all"


@dataclass(frozen=True)
class ServerSpec:
    """One server process to make a command for. `settings` may leave keys out; defaults apply.

    `split_mode` is one of the engine's own words, empty where nothing is split; `slots_folder` is where slots
    are saved to, empty for nowhere.
    """

    engine: EngineFacts
    model_path: str
    devices: tuple[DeviceFacts, ...]
    alias: str = ""
    context_tokens: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    api_key_file: str = ""
    split_mode: str = ""
    draft: DraftSpec | None = None
    slots_folder: str = ""
    swa_full: bool = False


@dataclass(frozen=True)
class Command:
    """`argv` holds planning.plan.PORT where the port goes; `needs_devices` must serve before it starts."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    needs_devices: tuple[str, ...] = ()


class EngineFlavour(ABC):
    """One kind of inference server. Pure: it reads text and makes commands, it starts nothing."""

    flavour: ClassVar[str]

    @abstractmethod
    def command(self, spec: ServerSpec) -> Command:
        """Raises OmniError when the binary lacks a flag that is needed, or an argument is not allowed."""

    @abstractmethod
    def parse_version(self, text: str) -> str:
        """What the binary calls its build; empty when it does not say."""

    @abstractmethod
    def parse_flags(self, text: str) -> frozenset[str]:
        """Every spelling of every flag in the help text."""

    @abstractmethod
    def parse_devices(self, text: str) -> tuple[ListedDevice, ...]:
        """The devices in the engine's list, in its order."""
