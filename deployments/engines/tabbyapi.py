"""TabbyAPI, the server of ExLlamaV3: configured by a file in the folder it is started in.

Read in its source at commit e632af41: common/config_models.py, common/args.py, common/auth.py,
main.py; it has not run here. The engine's path is that of main.py; its environment is the folder
venv beside it, as start.sh makes it. GET /health is 200 once the model is loaded (it listens only
then); it has no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from deployments.engines.base import Command, ServerSpec
from deployments.engines.cuda_only import CudaOnly, room_bytes, visible
from deployments.engines.llama_cpp import require_probed
from deployments.engines.request_fields import (
    FLAG,
    LARGEST_TOKENS,
    Taken,
    number,
    whole,
)
from deployments.engines.spellings import listed_flags, no_such_flag
from deployments.planning.plan import KEY, PORT, DeviceFacts
from deployments.planning.settings import ALL, AUTO, SHARES, with_defaults
from deployments.states import StrategyName
from omni.errors import OmniError
from omni.units import GIB

CONFIG = "config.yml"
TOKENS = "api_tokens.yml"
# Bits per element; its cache is quantised in whole bits.
CACHE_BITS = {
    "q8_0": 8,
    "q8_kv": 8,
    "q6_0": 6,
    "q5_0": 5,
    "q5_1": 5,
    "q4_0": 4,
    "q4_1": 4,
}
# The cache is allotted in pages of so many tokens.
PAGE = 256
# exllamav3/modules/linear.py: what is in EXL3, and what is not quantised.
READ = frozenset({"EXL3", "BF16", "FP16", "FP32"})
DRAFT_MODES = {"draft-simple": "model", "draft-mtp": "mtp", "ngram-simple": "ngram"}


class TabbyApi(CudaOnly):
    flavour = "tabbyapi"
    title = "TabbyAPI (ExLlama)"
    called = "TabbyAPI"
    folder_kind = "folders with safetensors, in EXL3 or not quantised"
    strategies = frozenset(
        {
            StrategyName.INDEPENDENT,
            StrategyName.LAYER_SPLIT,
            StrategyName.TENSOR_SPLIT,
            StrategyName.SPECULATIVE,
            StrategyName.EXPERT_OFFLOAD,
        }
    )
    allots = "TabbyAPI loads layer by layer and fills the cards in their order."
    version_args: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[Mapping[str, Taken]] = {
        "add_bos_token": FLAG,
        "min_tokens": whole(0, LARGEST_TOKENS),
        "repetition_penalty": number(0.01, 10),
        "skip_special_tokens": FLAG,
        "temperature_last": FLAG,
        "token_healing": FLAG,
    }

    def unreadable(self, quant: str) -> str:
        if quant in READ:
            return ""
        return "Use vLLM for it, or download it in EXL3."

    def program(self, path: str) -> tuple[str, ...]:
        return (str(PurePath(path).parent / "venv" / "bin" / "python"), path)

    def command(self, spec: ServerSpec) -> Command:
        require_probed(spec)
        if spec.extra_args:
            raise OmniError(
                "bad_extra_arg",
                "TabbyAPI takes no extra arguments from Omni.",
                "Leave them out.",
            )
        cards = tuple(device for device in spec.devices if device.kind == "cuda")
        config = _config(spec, cards)
        for section in config.values():
            for key in section:
                if (flag := f"--{key.replace('_', '-')}") not in spec.engine.flags:
                    raise no_such_flag(flag, spec.engine.flags, spec.engine.name)
        files = {CONFIG: config, TOKENS: {"api_key": KEY, "admin_key": KEY}}
        drafting = tuple(
            d for d in (spec.draft.devices if spec.draft else ()) if d.kind == "cuda"
        )
        env = {**spec.engine.env, **visible(tuple(dict.fromkeys((*cards, *drafting))))}
        argv = (*self.program(spec.engine.path), "--config", CONFIG)
        return Command(argv, env, files=files, launch=self.facts(spec))

    def parse_version(self, text: str) -> str:
        return ""

    def parse_flags(self, text: str) -> frozenset[str]:
        return listed_flags(text)


def _config(
    spec: ServerSpec, cards: tuple[DeviceFacts, ...]
) -> dict[str, dict[str, Any]]:
    values = with_defaults(spec.settings)
    parallel = int(values["parallel"])
    path = PurePath(spec.model_path)
    model: dict[str, Any] = {
        "model_dir": str(path.parent),
        "model_name": path.name,
        "max_seq_len": spec.context_tokens // parallel,
        "cache_size": -(-spec.context_tokens // PAGE) * PAGE,
        "cache_mode": _cache_mode(str(values["kv_cache_k"]), str(values["kv_cache_v"])),
        "max_batch_size": parallel,
        "chunk_size": values["batch"],
    }
    if len(cards) > 1:
        model |= {"gpu_split_auto": False, "gpu_split": _gpu_split(spec, cards)}
    if spec.split_mode == "tensor":
        model["tensor_parallel"] = True
    if values["n_cpu_moe"] not in (AUTO, 0):
        model["cpu_moe_offload_layers"] = (
            999 if values["n_cpu_moe"] == ALL else values["n_cpu_moe"]
        )
    network = {
        "host": "127.0.0.1",
        "port": PORT,
        "disable_auth": False,
        "disable_fetch_requests": True,
    }
    config: dict[str, dict[str, Any]] = {"network": network, "model": model}
    if spec.draft:
        config["draft_model"] = _draft(spec, int(values["draft_max"]))
    return config


def _gpu_split(spec: ServerSpec, cards: tuple[DeviceFacts, ...]) -> list[float]:
    """GB of each card: what it has room for, or that in the proportion asked for."""
    rooms = [room_bytes(card) / GIB for card in cards]
    if not all(rooms):
        text = (
            f"TabbyAPI divides by gigabytes, and the memory of {cards[rooms.index(0)].name} is full"
            " or not known."
        )
        raise OmniError(
            "device_size_unknown", text, "Look at the Rig page.", retry=True
        )
    asked = str(with_defaults(spec.settings)[SHARES])
    if asked != AUTO:
        parts = [float(part) for part in asked.split(",")]
        parts = (parts + [0.0] * len(cards))[: len(cards)]
        # As much as the proportion allows before the first card is full.
        scale = min(
            room / part for room, part in zip(rooms, parts, strict=True) if part
        )
        rooms = [part * scale for part in parts]
    # Rounded down to what the card has for sure.
    return [int(room * 10) / 10 for room in rooms]


def _cache_mode(keys: str, values: str) -> str:
    if keys == values and keys in ("f16", "bf16"):
        return "FP16"
    if keys not in CACHE_BITS or values not in CACHE_BITS:
        text = f"TabbyAPI has no KV cache with keys in {keys} and values in {values}."
        raise OmniError(
            "bad_setting",
            text,
            "It has f16 for both, or 4 to 8 bits for each (q4_0, q5_0, q6_0, q8_0).",
        )
    return f"{CACHE_BITS[keys]},{CACHE_BITS[values]}"


def _draft(spec: ServerSpec, most: int) -> dict[str, Any]:
    assert spec.draft
    if spec.draft.type not in DRAFT_MODES:
        text = f"TabbyAPI does not draft by {spec.draft.type}."
        raise OmniError("bad_setting", text, f"It does by {', '.join(DRAFT_MODES)}.")
    found: dict[str, Any] = {
        "draft_mode": DRAFT_MODES[spec.draft.type],
        "draft_num_tokens": most,
    }
    if spec.draft.model_path:
        path = PurePath(spec.draft.model_path)
        found |= {"draft_model_dir": str(path.parent), "draft_model_name": path.name}
    return found
