"""Every layer cut over all cards by ik_llama.cpp: -sm graph, its own tensor parallelism with
per-layer KV."""

from __future__ import annotations

from deployments.engines import get_flavour
from deployments.planning.plan import InstancePlan, PlanRequest, Reason
from deployments.states import StrategyName
from deployments.strategies.base import caution, error
from deployments.strategies.layer_split import needs_two
from deployments.strategies.placed_model import PlacedModel, instance
from deployments.strategies.tensor_split import TensorSplit

# ik_llama.cpp, src/llama.cpp (is_model_split_supported): others fall back to layer split with a
# warning.
SUPPORTED_ARCHS = frozenset(
    {
        "llama",
        "qwen3moe",
        "glm4moe",
        "mistral3",
        "command-r",
        "cohere2",
        "cohere2moe",
        "mimo2",
        "qwen3",
        "qwen3vl",
        "hunyuan-moe",
        "gpt-oss",
        "ernie4_5-moe",
        "minimax-m2",
        "minimax-m3",
        "seed_oss",
        "step35",
        "laguna",
        "qwen35",
        "qwen35moe",
        "gemma4",
        "deepseek2",
        "glm-dsa",
        "mistral4",
        "mellum",
        "muse-glimmer",
    }
)


class GraphSplit(TensorSplit):
    name = StrategyName.GRAPH_SPLIT
    title = "Graph split"
    summary = (
        "ik_llama.cpp's tensor parallelism (-sm graph): all cards compute each layer"
        " together."
    )

    def instances(
        self, request: PlanRequest, found: PlacedModel
    ) -> tuple[InstancePlan, ...]:
        if not _is_able(request) or any(card.kind != "cuda" for card in found.cards):
            return ()
        return (instance(request, found, "model", split_mode="graph"),)

    def refusals(self, request: PlanRequest, found: PlacedModel) -> list[Reason]:
        reasons = []
        if not _is_able(request):
            text = (
                f"Only ik_llama.cpp has -sm graph; {request.engine.name} is"
                f" {request.engine.flavour}."
            )
            reasons.append(
                error(
                    "needs_ik_llama_cpp",
                    text,
                    "Choose an ik_llama.cpp engine, or use tensor split.",
                )
            )
        if len(found.cards) < 2:
            return [*reasons, needs_two(found)]
        others = sorted({card.name for card in found.cards if card.kind != "cuda"})
        if others:
            text = (
                f"Graph split cuts over CUDA cards only; {', '.join(others)}"
                f" {'is' if len(others) == 1 else 'are'} not."
            )
            reasons.append(
                error(
                    "needs_cuda",
                    text,
                    "Use layer split, or tensor split with llama.cpp.",
                )
            )
        if (arch := found.member.shape.arch) not in SUPPORTED_ARCHS:
            text = (
                f"ik_llama.cpp's graph split does not know the architecture {arch} and"
                " changes to layer split."
            )
            reasons.append(error("arch_refused", text, "Use layer split."))
        if found.settings.n_cpu_moe or found.settings.cpu_moe:
            text = (
                "With experts on the CPU graph split is off unless -smgs is given, and"
                " has been reported wrong."
            )
            reasons.append(
                caution("experts_on_host", text, "Keep the experts on the cards.")
            )
        return reasons


def _is_able(request: PlanRequest) -> bool:
    return get_flavour(request.engine.flavour).splits_graph
