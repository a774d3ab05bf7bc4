"""ik_llama.cpp's llama-server: a fork of llama.cpp with a command line and split modes of its own.

Read in its source at commit 8337e4cd, common/common.cpp and examples/server/server.cpp, and run as
a build of that commit for the CPU; graph split needs CUDA cards and has not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from deployments.engines.base import Command, ServerSpec
from deployments.engines.device_flags import DeviceFlags, accelerators
from deployments.engines.endpoints import RERANK, RESPONSES, RESPONSES_TOKENS
from deployments.engines.llama_cpp import EVERY_LAYER, LlamaCpp, listening
from deployments.engines.spellings import listed_flags
from deployments.planning.kv import IK_ONLY
from deployments.planning.plan import PlanRequest, Reason, Severity
from deployments.planning.settings import ALL, with_defaults
from deployments.states import StrategyName
from omni.errors import OmniError

# Taken (gpt_params_find_arg) but not listed by --help.
UNLISTED = frozenset({"--alias", "-a", "--n-gpu-layers", "--n-predict"})
# Listed only by builds that can offload; the others have nothing to place.
PLACEMENT_SETTINGS = frozenset({"-ngl", "-dev", "-sm", "-ts", "-ngld", "-devd"})
DRAFTING = {"draft-simple": "draft", "draft-mtp": "mtp", "draft-eagle3": "eagle3"}
# Only its help has these: the scheduling of -sm graph.
MARKS = frozenset({"-smgs", "--split-mode-graph-scheduling"})
# Strategy → why not, and what instead.
REFUSED: dict[str, tuple[str, str]] = {
    StrategyName.TENSOR_SPLIT: (
        "ik_llama.cpp has no -sm tensor; its own tensor parallelism is the strategy graph split.",
        "Choose graph split, or llama.cpp.",
    ),
    # handle_slots_save posts its task before it waits for the result; seen with 7 and with 250
    # tokens.
    StrategyName.PREFILL_DECODE: (
        (
            "ik_llama.cpp loses its answer to a quick save of the KV cache, so a prompt cannot be"
            " handed over."
        ),
        "Choose llama.cpp.",
    ),
}
LOAD_MODES = {
    "none": ["--no-mmap"],
    "mmap": [],
    "mlock": ["--no-mmap", "--mlock"],
    "mmap+mlock": ["--mlock"],
}


class IkLlamaCpp(LlamaCpp):
    flavour = title = "ik_llama.cpp"
    tells_own_drafting = False
    # Only where it is told to (-rtr), which Omni does not.
    rearranges = False
    reads_ik_formats: ClassVar[bool] = True
    splits_graph: ClassVar[bool] = True
    caps_context: ClassVar[bool] = False
    # It has no call that lists devices.
    devices_args: ClassVar[tuple[str, ...]] = ()
    serves: ClassVar[frozenset[str]] = LlamaCpp.serves - {
        RESPONSES,
        RESPONSES_TOKENS,
        RERANK,
    }
    kv_cache_types: ClassVar[frozenset[str]] = LlamaCpp.kv_cache_types | frozenset(
        IK_ONLY
    )

    def command(self, spec: ServerSpec) -> Command:
        for device in (*spec.devices, *(spec.draft.devices if spec.draft else ())):
            if device.kind == "rpc":
                text = (
                    "ik_llama.cpp's RPC is not that of llama.cpp, whose server stands behind"
                    f" {device.name}."
                )
                raise OmniError(
                    "device_not_for_engine",
                    text,
                    "Use a llama.cpp engine for it, or another device.",
                )
        return super().command(spec)

    def reasons(self, request: PlanRequest) -> tuple[Reason, ...]:
        refused = REFUSED.get(request.strategy)
        others = super().reasons(request)
        if not refused:
            return others
        return (*others, Reason("strategy_not_for_engine", Severity.ERROR, *refused))

    def recognises(self, help_text: str) -> bool:
        return bool(listed_flags(help_text) & MARKS)

    def parse_flags(self, text: str) -> frozenset[str]:
        found = super().parse_flags(text)
        if found:
            return found | UNLISTED
        return found

    # --- the parts of the command line ------------------------------------------------------------
    def server_flags(self, spec: ServerSpec) -> list[str]:
        """It tells its memory without being asked to; its --fit is off unless it is given."""
        return [*listening(spec), "--metrics", "--webui", "none"]

    def device_flags(self, spec: ServerSpec) -> DeviceFlags:
        found = super().device_flags(spec)
        spelled = ["-dev" if word == "--device" else word for word in found.flags]
        return replace(found, flags=tuple(_placeable(spec, spelled)))

    def setting_flags(self, spec: ServerSpec, *, offloads: bool) -> list[str]:
        return _placeable(spec, super().setting_flags(spec, offloads=offloads))

    def flash_attention(self, spec: ServerSpec, value: str) -> list[str]:
        """There is no third value: what it calls auto is on."""
        return ["-fa", "off" if value == "off" else "on"]

    def swa_flags(self) -> list[str]:
        """Its sliding-window layers keep the whole context unless --swa-compress is given."""
        return []

    def kv_type(self, value: str) -> str:
        if value == "q8_kv":
            return "q8_KV"
        return super().kv_type(value)

    def load_flags(self, spec: ServerSpec, mode: str) -> list[str]:
        if mode == "dio":
            raise OmniError(
                "bad_setting",
                "ik_llama.cpp cannot load by direct I/O.",
                "Choose another load_mode.",
            )
        return LOAD_MODES.get(mode, [])

    def draft_flags(self, spec: ServerSpec) -> list[str]:
        """The numbers belong to the type; the flags that llama.cpp had for them end the program."""
        if spec.draft is None:
            return []
        values = with_defaults(spec.settings)
        kind = DRAFTING.get(spec.draft.type, spec.draft.type)
        if spec.draft.type in DRAFTING:
            kind += f":n_max={values['draft_max']},n_min={values['draft_min']}"
        flags = ["--spec-type", kind]
        if spec.draft.model_path:
            if spec.draft.gpu_layers == ALL:
                layers = EVERY_LAYER
            else:
                layers = str(spec.draft.gpu_layers)
            flags += ["-md", spec.draft.model_path, "-ngld", layers]
        return _placeable(spec, flags)


def _placeable(spec: ServerSpec, flags: Sequence[str]) -> list[str]:
    """Without what a build for the CPU alone does not list, where nothing is placed."""
    drafting = spec.draft.devices if spec.draft else ()
    if accelerators((*spec.devices, *drafting)) or "-ngl" in spec.engine.flags:
        return list(flags)
    pairs = zip(["", *flags], flags, strict=False)
    return [
        word
        for before, word in pairs
        if word not in PLACEMENT_SETTINGS and before not in PLACEMENT_SETTINGS
    ]
