"""Random layouts that somebody may want of a model: what benchmarks/layout_memory.py plans and
starts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.memory.cases import SMOLLM2
from deployments.planning.memory.reported import MIB
from deployments.planning.settings import KV_CACHE_TYPES
from deployments.states import StrategyName
from omni.units import GIB

# Dense, a mixture of experts, with a sliding window, recurrent.
MODELS = (SMOLLM2, "qwen3moe", "gemma3", "jamba")
# What drafts for each: a model of the same vocabulary.
DRAFTS = {
    SMOLLM2: SMOLLM2,
    "qwen3moe": "qwen3",
    "gemma3": "gemma3",
    "jamba": "qwen3",
}


@dataclass(frozen=True)
class Kind:
    """A sort of layout: `with_draft` is a model beside the main one, `on_host` has no card."""

    name: str
    strategy: str
    n_cards: int = 1
    with_draft: bool = False
    takes: tuple[str, ...] = ("gpu_layers",)


KINDS = (
    Kind("independent", StrategyName.INDEPENDENT),
    Kind("on the CPU", StrategyName.INDEPENDENT, 0),
    Kind("layer split", StrategyName.LAYER_SPLIT, 2, takes=("tensor_split",)),
    Kind("tensor split", StrategyName.TENSOR_SPLIT, 2, takes=("tensor_split",)),
    Kind("expert offload", StrategyName.EXPERT_OFFLOAD, 1, takes=("n_cpu_moe",)),
    Kind(
        "expert offload, two",
        StrategyName.EXPERT_OFFLOAD,
        2,
        takes=("n_cpu_moe", "tensor_split"),
    ),
    Kind("n-grams", StrategyName.SPECULATIVE, takes=("gpu_layers", "draft_max")),
    Kind("draft model", StrategyName.SPECULATIVE, 2, True, ("gpu_layers", "draft_max")),
    Kind("draft beside", StrategyName.SPECULATIVE, 1, True, ("draft_max",)),
    Kind("prefill–decode", StrategyName.PREFILL_DECODE, 2),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Draw:
    """A layout as somebody may want it; `rooms` are the bytes of the two cards."""

    kind: Kind
    model: str
    settings: Mapping[str, int | str]
    rooms: tuple[int, int] = (24 * GIB, 24 * GIB)
    is_turned: bool = False

    @property
    def name(self) -> str:
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        rooms = "+".join(f"{room / GIB:.3g}" for room in self.rooms)
        return f"{self.kind.name}: {self.model} {settings}, {rooms} GiB"


def draws(seed: int) -> Iterator[Draw]:
    """Without an end; kinds and models in turn, everything else by chance."""
    chance = random.Random(seed)
    while True:
        pairs = [(kind, model) for kind in KINDS for model in MODELS]
        chance.shuffle(pairs)
        for kind, model in pairs:
            settings = _settings(chance, kind)
            rooms = (_room(chance, model), _room(chance, model))
            yield Draw(kind, model, settings, rooms, chance.random() < 0.5)


def _settings(chance: random.Random, kind: Kind) -> dict[str, int | str]:
    users = chance.choice((1, 1, 2, 3, 4, 6))
    each = chance.choice((chance.randint(256, 1024), chance.randint(1024, 6144)))
    settings: dict[str, int | str] = {"context": users * each, "parallel": users}
    if chance.random() < 0.7:
        settings["kv_cache_k"] = chance.choice(KV_CACHE_TYPES)
        settings["kv_cache_v"] = chance.choice(KV_CACHE_TYPES)
    if users > 1 and chance.random() < 0.2:
        settings["kv_unified"] = "on"
    choices: dict[str, int | str] = {
        "gpu_layers": chance.randint(1, 9),
        "tensor_split": f"{chance.randint(1, 4)},{chance.randint(1, 4)}",
        "n_cpu_moe": chance.randint(1, 8),
        "draft_max": chance.choice((2, 5, 8, 16)),
    }
    wanted = [key for key in kind.takes if chance.random() < 0.5]
    return settings | {key: choices[key] for key in wanted}


def _room(chance: random.Random, model: str) -> int:
    """Much, or little more than the planner leaves free: then a part of the layers stays on the
    host."""
    if chance.random() < 0.6:
        return 24 * GIB
    small = 250 if model == SMOLLM2 else 60
    return GIB + int(chance.uniform(0.3, 1.0) * small * MIB)
