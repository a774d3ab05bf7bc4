"""What planning takes and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any

from deployments.formats.model_facts import ModelFacts
from deployments.planning.architecture import ModelShape
from deployments.planning.corrections import Correction, Errors
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.repacking import Kernels
from deployments.planning.vocabulary import VocabFacts


class Placeholder(str):
    """A value of a command that is known only when the process is started.

    It is told from what users write by its type, never by its text: a model may be called {port}.
    """

    __slots__ = ()


# The Unix socket to listen on, or the port where the engine knows no sockets.
SOCKET = Placeholder("{socket}")
PORT = Placeholder("{port}")
# The key that an engine with a port asks for, and the file it is in.
KEY = Placeholder("{key}")
KEY_FILE = Placeholder("{key_file}")
# By their texts: what was stored as JSON becomes the same objects again.
PLACEHOLDERS = {str(each): each for each in (SOCKET, PORT, KEY, KEY_FILE)}
Filling = Mapping[Placeholder, str | int]


def filled(data: Any, filling: Filling) -> Any:
    """The same data with every placeholder replaced by its value.

    Raises KeyError for one that has none.
    """
    if isinstance(data, Placeholder):
        return filling[data]
    if isinstance(data, Mapping):
        return {name: filled(value, filling) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [filled(value, filling) for value in data]
    return data


def filled_argv(argv: Iterable[str], filling: Filling) -> list[str]:
    return [str(word) for word in filled(list(argv), filling)]


def placeholders(data: Any) -> set[Placeholder]:
    """Those that stand anywhere in the data."""
    if isinstance(data, Placeholder):
        return {data}
    parts: Iterable[Any]
    if isinstance(data, Mapping):
        parts = data.values()
    elif isinstance(data, list | tuple):
        parts = data
    else:
        parts = ()
    return {found for part in parts for found in placeholders(part)}


class Verdict(StrEnum):
    VIABLE = "viable"
    CAUTION = "caution"
    NOT_VIABLE = "not_viable"


class Severity(StrEnum):
    INFO = "info"
    CAUTION = "caution"
    ERROR = "error"


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is; `fix` says what would change it, `changes` are the settings that
    do so."""

    code: str
    severity: Severity
    text: str
    fix: str = ""
    changes: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceFacts:
    """A device as planning needs to know it; None is unknown."""

    name: str
    kind: str = "cpu"
    total_bytes: int | None = None
    free_bytes: int | None = None
    # What is added here meets no fact that somebody gives by its place.
    _: KW_ONLY
    endpoint: str = ""
    gpu_uuid: str = ""
    is_stand_in: bool = False
    # Its memory, and its way to the host (bytes × 10⁹ per second).
    bandwidth_gbps: float | None = None
    link_gbps: float | None = None
    # Single-precision arithmetic at the clock its maker gives, 10¹² operations per second.
    tflops: float | None = None
    # GDDR6, HBM3, LPDDR5X …; empty is unknown.
    memory_kind: str = ""
    # Measured ÷ computed speed on this device, once something has run on it alone.
    decode_correction: Correction | None = None
    prefill_correction: Correction | None = None
    # It has no memory of its own but uses the host's: what it holds, the host cannot.
    shares_ram: bool = False


@dataclass(frozen=True)
class EngineFacts:
    name: str
    flavour: str
    path: str
    flags: frozenset[str] = frozenset()
    # What every process of it needs in its environment on this machine.
    env: Mapping[str, str] = field(default_factory=dict)
    # What the binary calls itself.
    build: str = ""
    # What it multiplies with on the host.
    kernels: Kernels = Kernels.AVX2
    # Architectures that it was asked for and does not have.
    lacks_archs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Member:
    """The model that plays a role, where its file lies and on which devices it goes."""

    name: str
    path: str
    facts: ModelFacts
    shape: ModelShape
    devices: tuple[DeviceFacts, ...]
    vocab: VocabFacts = VocabFacts()


@dataclass(frozen=True)
class PlanRequest:
    strategy: str
    engine: EngineFacts
    members: Mapping[str, Member]
    settings: Mapping[str, object] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    alias: str = ""
    # Every device of the host in the panel's order: RPC devices are numbered by this order.
    host_devices: tuple[DeviceFacts, ...] = ()
    api_key_file: str = ""
    slots_folder: str = ""


@dataclass(frozen=True)
class DeviceUse:
    name: str
    total_bytes: int | None
    weights_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    other_bytes: int = 0
    # The file with which the model sees or hears, and what it works with.
    projector_bytes: int = 0
    # What others (deployments, programs) hold there at the moment.
    held_bytes: int = 0
    # Of the weights: mapped parts of the file that are not computed with, which the kernel drops
    # when it must.
    reclaimable_bytes: int = 0

    @property
    def free_bytes(self) -> int | None:
        """What is left beside this plan and the others; negative when it does not fit."""
        if self.total_bytes is None:
            return None
        return self.total_bytes - self.held_bytes - self.resident_bytes

    @property
    def resident_bytes(self) -> int:
        """What has to be in memory for the plan to run."""
        return self.needed_bytes - self.reclaimable_bytes

    def document(self) -> dict[str, Any]:
        """What commands print of it as JSON; of a projector only where there is one."""
        found = {
            "name": self.name,
            "total_bytes": self.total_bytes,
            "weights_bytes": self.weights_bytes,
            "kv_bytes": self.kv_bytes,
            "compute_bytes": self.compute_bytes,
            "other_bytes": self.other_bytes,
        }
        if self.projector_bytes:
            found["projector_bytes"] = self.projector_bytes
        return found

    @property
    def needed_bytes(self) -> int:
        return (
            self.weights_bytes
            + self.kv_bytes
            + self.compute_bytes
            + self.other_bytes
            + self.projector_bytes
        )


@dataclass(frozen=True)
class InstancePlan:
    """One process.

    `argv`, `env` and `files` hold placeholders; the RPC servers of `needs_devices` start first.
    """

    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    needs_devices: tuple[str, ...] = ()
    file_bytes: int = 0
    ordinal: int = 0
    # Name → data, written as YAML into the instance's own folder, in which the process then starts.
    files: Mapping[str, Any] = field(default_factory=dict)
    # What those need to know of the process who look after it; may hold placeholders, too.
    launch: LaunchFacts = LaunchFacts()

    @property
    def program(self) -> str:
        """The file that is executed."""
        return self.argv[0]

    @property
    def placeholders(self) -> set[Placeholder]:
        return placeholders([self.argv, self.env, self.files])


@dataclass(frozen=True)
class Predicted:
    """Tokens/s of one request alone, each with the range it lies in (low, high)."""

    prefill_tps: float | None = None
    decode_tps: float | None = None
    prefill_range: tuple[float, float] | None = None
    decode_range: tuple[float, float] | None = None
    # measured: corrected by this rig's own runs; computed: from the devices' data sheets.
    basis: str = "computed"
    # The same places before any correction: what runs are compared with.
    computed_prefill_tps: float | None = None
    computed_decode_tps: float | None = None
    # By what they were corrected.
    prefill_correction: Correction | None = None
    decode_correction: Correction | None = None
    # How far off such predictions were before.
    prefill_errors: Errors | None = None
    decode_errors: Errors | None = None
    # What the ranges rest on that nobody has measured or looked up for this rig, in whole
    # sentences.
    assumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number worth seeing beside a verdict, ready to show: what it is, and its value with
    unit."""

    code: str
    title: str
    text: str


@dataclass(frozen=True)
class CacheSize:
    """What a prompt's KV cache takes in the file by which it is handed over."""

    token_bytes: float
    # Recurrent states: the same for every length.
    state_bytes: int = 0
    is_recurrent: bool = False


@dataclass(frozen=True)
class Plan:
    """`settings` are those that the planner chose where the request said auto."""

    strategy: str
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    devices: tuple[DeviceUse, ...] = ()
    instances: tuple[InstancePlan, ...] = ()
    predicted: Predicted = Predicted()
    figures: tuple[Figure, ...] = ()
    settings: Mapping[str, int | str] = field(default_factory=dict)
    # Of a strategy whose instances hand prompts over.
    transferred: CacheSize | None = None
