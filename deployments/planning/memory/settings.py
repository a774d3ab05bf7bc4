"""The settings that decide how much memory a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.planning.memory.shares import as_written
from deployments.planning.repacking import Kernels
from deployments.planning.settings import ALL, AUTO, SHARES, with_defaults
from omni.units import MIB

# --load-mode: the file is mapped; else it is read into memory of the process's own.
MAPPING = (AUTO, "mmap", "mmap+mlock")


@dataclass(frozen=True)
class MemorySettings:
    """What decides about memory.

    `context` is for all parallel requests together; gpu_layers None is all.
    """

    context: int = 8192
    parallel: int = 1
    kv_unified: bool = False
    type_k: str = "f16"
    type_v: str = "f16"
    # None: the engine decides, which is on wherever its devices can.
    flash_attention: bool | None = None
    batch: int = 2048
    ubatch: int = 512
    gpu_layers: int | None = None
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] | None = None
    n_cpu_moe: int = 0
    cpu_moe: bool = False
    swa_full: bool = False
    offload_kqv: bool = True
    op_offload: bool = True
    mmap: bool = True
    # Of what the host holds nothing may be put away by the kernel.
    mlock: bool = False
    # The host rearranges some types in a copy of its own (repacking.py), unless a card has memory
    # on the host that it reaches faster, which no_host leaves alone.
    repack: bool = True
    no_host: bool = False
    kernels: Kernels = Kernels.AVX2
    # Answers are chosen on the devices, which keeps probabilities and candidates beside the logits.
    backend_sampling: bool = False
    # What prompts seen before may take in the host's memory, and the states of each request to go
    # back to.
    cache_ram_bytes: int = 0
    ctx_checkpoints: int = 32
    # Layers that predict further tokens ahead are loaded only for drafting with them.
    load_nextn: bool = False
    # Tokens of a draft that are checked at once, whoever drafts them.
    draft_max: int = 0
    # Where the projector works, and the most tokens of an image that keeps its own size; 0 is what
    # its file says.
    offload_projector: bool = True
    image_tokens: int = 0

    @property
    def flash(self) -> bool:
        return self.flash_attention is not False

    @property
    def drafted(self) -> int:
        """Tokens drafted at once by the model's own layers."""
        if self.load_nextn:
            return self.draft_max
        return 0

    @property
    def micro_batch(self) -> int:
        """Tokens of one graph: at most the batch and the context (llama-context.cpp,
        constructor)."""
        return min(self.ubatch or self.batch, self.batch, self.context)


def memory_settings(
    settings: Mapping[str, object], context_tokens: int
) -> MemorySettings:
    """A deployment's settings, with its context already in tokens; gpu_layers auto and all are
    None."""
    values = with_defaults(settings)
    layers = values["gpu_layers"]
    flash = values["flash_attention"]
    return MemorySettings(
        context=context_tokens,
        parallel=int(values["parallel"]),
        kv_unified=values["kv_unified"] == "on",
        type_k=str(values["kv_cache_k"]),
        type_v=str(values["kv_cache_v"]),
        flash_attention=None if flash == AUTO else flash == "on",
        batch=int(values["batch"]),
        ubatch=int(values["ubatch"]),
        gpu_layers=None if layers in (AUTO, ALL) else int(layers),
        tensor_split=parsed_split(values[SHARES]),
        n_cpu_moe=0 if values["n_cpu_moe"] in (AUTO, ALL) else int(values["n_cpu_moe"]),
        cpu_moe=values["n_cpu_moe"] == ALL,
        mmap=values["load_mode"] in MAPPING,
        mlock=values["load_mode"] in ("mlock", "mmap+mlock"),
        cache_ram_bytes=(
            0 if values["cache_ram_mib"] == AUTO else int(values["cache_ram_mib"]) * MIB
        ),
    )


def parsed_split(value: object) -> tuple[float, ...] | None:
    """'3,1' → (3.0, 1.0), and so is '97887,32607': bytes and speeds are of the ratio that the
    command has; auto → None."""
    if value == AUTO:
        return None
    return as_written(tuple(float(part) for part in str(value).split(",")))


def split_text(shares: tuple[float, ...]) -> str:
    """(3.0, 1.0) → '3,1'."""
    return ",".join(f"{share:g}" for share in shares)
