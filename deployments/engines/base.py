"""What an engine is to Omni: how it is asked what it can do, and how its command line is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from deployments.engines.endpoints import USUAL
from deployments.engines.request_fields import Taken
from deployments.formats.kinds import DEPLOYABLE, DRAFTING, USES, Kind, article
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.plan import (
    DeviceFacts,
    EngineFacts,
    Member,
    PlanRequest,
    Reason,
    Severity,
)
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import with_defaults


@dataclass(frozen=True)
class ListedDevice:
    """A device as the engine lists it; the sizes are None where it does not say."""

    name: str
    description: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True)
class DraftSpec:
    """How drafts are made: a type of the engine's, and the model it needs, if any, with its
    devices."""

    type: str
    model_path: str = ""
    devices: tuple[DeviceFacts, ...] = ()
    gpu_layers: int | str = "all"


@dataclass(frozen=True)
class ProjectorSpec:
    """With which file the model sees or hears, and on which device that works; None is the
    host."""

    path: str
    device: DeviceFacts | None = None


@dataclass(frozen=True)
class ServerSpec:
    """One server process to make a command for. `settings` may leave keys out; defaults apply.

    `split_mode` is one of the engine's own words, empty where nothing is split; `slots_folder` is
    where slots are saved to, empty for nowhere.
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
    projector: ProjectorSpec | None = None
    slots_folder: str = ""
    swa_full: bool = False
    # What the model answers with, and how its file says that tokens become one vector.
    kind: str = Kind.TEXT
    pooling: str = ""
    # What the context takes, all devices together, as planned.
    kv_bytes: int = 0


@dataclass(frozen=True)
class Command:
    """`argv`, `env` and `files` hold placeholders of planning.plan; `needs_devices` must serve
    before it starts.

    `files` are data, written as YAML into a folder of the instance's own, in which the process then
    starts.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    needs_devices: tuple[str, ...] = ()
    files: Mapping[str, Any] = field(default_factory=dict)
    launch: LaunchFacts = LaunchFacts()


@dataclass(frozen=True)
class Question:
    """One POST to an engine."""

    path: str
    body: Mapping[str, object]


@dataclass(frozen=True)
class Tokens:
    """What an engine said one token after the other: their numbers, and the text of each."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]


class EngineFlavour(ABC):
    """One kind of inference server. Pure: it reads text and makes commands, it starts nothing."""

    # Its name in rig files and rows, and on pages.
    flavour: ClassVar[str]
    title: ClassVar[str]
    # What the program is called with to hear its build, its flags and its devices; () where it has
    # no such call.
    version_args: ClassVar[tuple[str, ...]] = ("--version",)
    help_args: ClassVar[tuple[str, ...]] = ("--help",)
    devices_args: ClassVar[tuple[str, ...]] = ("--list-devices",)
    # GGUF files; else folders with safetensors.
    reads_gguf: ClassVar[bool] = True
    # Its binary tells for which architectures it drafts with a model's own layers (mtp.py).
    tells_own_drafting: ClassVar[bool] = False
    # Keeps weights that the host multiplies with in an order of its own (planning/repacking.py).
    rearranges: ClassVar[bool] = False
    # The number formats that only ik_llama.cpp has.
    reads_ik_formats: ClassVar[bool] = False
    # What only the thread that computes answers, by GET and at once while it has nothing to do; ""
    # where none is known.
    liveness_path: ClassVar[str] = ""
    # What answers, by GET, with counters of its work (engines/counters.py); "" where nothing does.
    metrics_path: ClassVar[str] = ""
    # What answers, by GET, with whether it drafts (`is_drafting`); "" where nothing does.
    drafting_path: ClassVar[str] = ""
    # Loads a projector beside a model.
    takes_projector: ClassVar[bool] = False
    # Has -sm graph: all cards compute each layer together, and layers are cut by memory.
    splits_graph: ClassVar[bool] = False
    # Where it can be asked (engines/endpoints.py).
    serves: ClassVar[frozenset[str]] = USUAL
    # Fields of a request that it takes besides those that every engine knows.
    takes: ClassVar[Mapping[str, Taken]] = {}
    # A request gets at most the context that the model was trained for, whatever is asked for.
    caps_context: ClassVar[bool] = True
    # What it takes before it says anything; Python programs import for many seconds.
    slow_start_s: ClassVar[float] = 0.0
    # What it takes to get ready besides reading its file: kernels are compiled, graphs are
    # recorded.
    slow_load_s: ClassVar[float] = 0.0

    def program(self, path: str) -> tuple[str, ...]:
        """How the engine at this path is called."""
        return (path,)

    def recognises(self, help_text: str) -> bool:
        """Whether a help text is this engine's and of no other."""
        return False

    def loading_args(self, path: str) -> tuple[str, ...]:
        """With what the program is called to say what it thinks of a model's file and end; () where
        there is no such call."""
        return ()

    def has_arch(self, said: str) -> bool | None:
        """Whether it has the architecture of a file that holds nothing else, by what it says while
        it fails to load it; None where that does not tell."""
        return None

    def reasons(self, request: PlanRequest) -> tuple[Reason, ...]:
        """What has to be said of this request because of the engine; an error is a refusal."""
        members = request.members.values()
        folders = tuple(
            _folder(member, self.flavour)
            for member in members
            if member.shape.is_folder
        )
        return (
            *folders,
            *kind_reasons(request),
            *self._no_projector(request),
            *self._unreadable(request),
        )

    def _no_projector(self, request: PlanRequest) -> Iterator[Reason]:
        """Where it is given one and cannot load it."""
        if PROJECTOR in request.members and not self.takes_projector:
            text = f"{self.title} loads no projector: {request.engine.name} answers texts only."
            fix = "Choose a llama.cpp engine, or leave the projector out."
            yield Reason("projector_not_for_engine", Severity.ERROR, text, fix)

    def _unreadable(self, request: PlanRequest) -> Iterator[Reason]:
        """What in the models' files this build does not know."""
        for role, member in request.members.items():
            if role == PROJECTOR:
                continue
            if member.facts.arch in request.engine.lacks_archs:
                yield _unknown_arch(member, request)
            if member.facts.only_ik and not self.reads_ik_formats:
                yield _ik_formats(member, self.flavour)

    def device_kind(self, build: str) -> str:
        """The one kind of device on which this build computes; empty where there are several."""
        return ""

    def adjusted(self, request: PlanRequest) -> PlanRequest:
        """The request as this engine will carry it out, where it leaves no choice."""
        return request

    def answers(self, reason: Reason) -> bool:
        """Whether a strategy's reason holds for this engine; strategies were written with llama.cpp
        in mind."""
        return True

    @abstractmethod
    def command(self, spec: ServerSpec) -> Command:
        """Raises OmniError when the binary lacks a flag that is needed, or an argument is not
        allowed."""

    def facts(self, spec: ServerSpec) -> LaunchFacts:
        """What is true of every server that is started for this."""
        return LaunchFacts(
            flavour=self.flavour,
            model_path=spec.model_path,
            draft_path=spec.draft.model_path if spec.draft else "",
            projector_path=spec.projector.path if spec.projector else "",
            is_folder=not self.reads_gguf,
            alias=spec.alias,
            kind=str(spec.kind),
            slots=int(with_defaults(spec.settings)["parallel"]),
            slots_folder=spec.slots_folder,
            split_mode=spec.split_mode,
            drafts=spec.draft is not None,
        )

    def worded(self, path: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request's fields in the words that this engine knows, where it reads others than the
        API has."""
        return fields

    # --- the first answer -------------------------------------------------------------------------
    def greedy_question(
        self, prompt: str, n_tokens: int, alias: str
    ) -> Question | None:
        """How it is asked for the most likely continuation, token by token; None where it has no
        such call."""
        return None

    def greedy_tokens(self, answer: Any) -> Tokens:
        """Of the JSON that it answered with. Raises ValueError, LookupError or TypeError for
        another form."""
        raise ValueError(f"{self.flavour} tells no tokens")

    def is_drafting(self, answer: Any) -> bool:
        """By what it answers at `drafting_path`."""
        return True

    @abstractmethod
    def parse_version(self, text: str) -> str:
        """What the binary calls its build; empty when it does not say."""

    @abstractmethod
    def parse_flags(self, text: str) -> frozenset[str]:
        """Every spelling of every flag in the help text."""

    def parse_devices(self, text: str) -> tuple[ListedDevice, ...]:
        """The devices in the engine's list, in its order."""
        return ()


def _folder(member: Member, flavour: str) -> Reason:
    text = f"{member.name} is a folder with safetensors, and {flavour} loads GGUF files only."
    fix = "Choose a vLLM or TabbyAPI engine, or convert it with llama.cpp's convert_hf_to_gguf.py."
    return Reason("folder_for_other_engine", Severity.ERROR, text, fix)


def may_play(role: str, kind: str) -> bool:
    """Whether a file of this kind can have this role."""
    able = {"draft": DRAFTING, PROJECTOR: {Kind.PROJECTOR}}
    return kind in able.get(role, DEPLOYABLE)


def kind_reasons(request: PlanRequest) -> Iterator[Reason]:
    """Files that cannot play the role that they are given."""
    for role, member in request.members.items():
        kind = member.facts.kind
        if not may_play(role, kind):
            text = f"{member.name} is {article(kind)} and cannot be the {role}."
            yield Reason(
                "wrong_kind",
                Severity.ERROR,
                text,
                USES[Kind(kind)] or "Choose another model.",
            )


def _unknown_arch(member: Member, request: PlanRequest) -> Reason:
    engine = request.engine
    build = f" ({engine.build})" if engine.build else ""
    text = (
        f"{member.name} has the architecture {member.facts.arch}, which {engine.name}{build} does"
        " not know."
    )
    return Reason(
        "unknown_arch",
        Severity.ERROR,
        text,
        "Use a newer build of the engine, or another engine.",
    )


def _ik_formats(member: Member, flavour: str) -> Reason:
    text = (
        f"{member.name} has number formats that only ik_llama.cpp reads; {flavour} refuses the"
        " file."
    )
    return Reason(
        "format_for_other_engine",
        Severity.ERROR,
        text,
        "Choose an ik_llama.cpp engine, or another file.",
    )
