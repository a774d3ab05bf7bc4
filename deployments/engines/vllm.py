"""vLLM's OpenAI-compatible server.

Read in its source: vllm/engine/arg_utils.py (commit 99d7eb5d), vllm/entrypoints/openai/cli_args.py
(00522333). Version 0.32.0 for the CPU has run here (tests/real/test_vllm.py); a build for CUDA has
not. GET /health is 200 once the model is loaded; GET /metrics has counters such as
vllm:prompt_tokens_total and vllm:generation_tokens_total, and the gauges vllm:num_requests_running
and _waiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from deployments.engines.base import Command, Question, ServerSpec, Tokens
from deployments.engines.cuda_only import CudaOnly, cards_of, room_bytes, visible
from deployments.engines.endpoints import (
    DETOKENIZE,
    EMBEDDINGS,
    MESSAGES,
    MESSAGES_TOKENS,
    RERANK,
    RESPONSES,
    USUAL,
)
from deployments.engines.flags import allowed_args, require_flags
from deployments.engines.llama_cpp import require_probed, without_values
from deployments.engines.request_fields import (
    FLAG,
    LARGEST_TOKENS,
    TOKENS,
    Taken,
    number,
    whole,
)
from deployments.engines.spellings import listed_flags
from deployments.planning.plan import (
    KEY,
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    PlanRequest,
    Reason,
    Severity,
)
from deployments.planning.settings import AUTO, SHARES, with_defaults
from deployments.states import StrategyName
from omni.errors import OmniError
from omni.units import bytes_text

# (keys, values) → --kv-cache-dtype. Its 8-bit format is a float, llama.cpp's a block of integers.
KV_DTYPES = {("f16", "f16"): "auto", ("bf16", "bf16"): "auto", ("q8_0", "q8_0"): "fp8"}
# How builds for the CPU call themselves: 0.32.0+cpu.
CPU_BUILD = "+cpu"
# Its cache is cut into blocks of whole layers, so a little more is taken than the tokens need.
CACHE_STEP_BYTES = 64 << 20
# Formats of ExLlama, of which vLLM has no kernels (model_executor/layers/quantization/__init__.py).
OF_EXLLAMA = frozenset({"EXL2", "EXL3"})
# Of a card's memory, when a card's size is not known; the program's own default differs between
# versions.
USUAL_SHARE = 0.9
MOST_SHARE = 0.97


class Vllm(CudaOnly):
    flavour = "vllm"
    title = called = "vLLM"
    folder_kind = (
        "folders with safetensors (its GGUF support is experimental and a plugin of its"
        " own)"
    )
    strategies = frozenset({StrategyName.INDEPENDENT, StrategyName.TENSOR_SPLIT})
    allots = (
        "On cards vLLM takes its share at once and keeps what is left over for its"
        " cache."
    )
    metrics_path = "/metrics"
    # Its /tokenize asks for other fields than llama.cpp's, which is the one that Omni has.
    serves: ClassVar[frozenset[str]] = USUAL | {
        RESPONSES,
        MESSAGES,
        MESSAGES_TOKENS,
        EMBEDDINGS,
        RERANK,
        DETOKENIZE,
    }
    takes: ClassVar[Mapping[str, Taken]] = {
        "add_generation_prompt": FLAG,
        "continue_final_message": FLAG,
        "dimensions": whole(1, 1 << 16),
        "include_stop_str_in_output": FLAG,
        "length_penalty": number(0, 10),
        "min_tokens": whole(0, LARGEST_TOKENS),
        "repetition_penalty": number(0.01, 10),
        "skip_special_tokens": FLAG,
        "spaces_between_special_tokens": FLAG,
        "stop_token_ids": TOKENS,
    }
    # Without =all it lists groups of flags instead of flags.
    help_args: ClassVar[tuple[str, ...]] = ("serve", "--help=all")

    def command(self, spec: ServerSpec) -> Command:
        require_probed(spec)
        values = with_defaults(spec.settings)
        has_sockets = "--uds" in spec.engine.flags
        cards = tuple(device for device in spec.devices if device.kind == "cuda")
        parallel = int(values["parallel"])
        argv = [
            *("serve", spec.model_path, "--served-model-name", spec.alias),
            *(
                ("--uds", SOCKET)
                if has_sockets
                else ("--host", "127.0.0.1", "--port", PORT)
            ),
            *("--tensor-parallel-size", str(max(len(cards), 1))),
            # Here the context is that of one request.
            *(
                "--max-model-len",
                str(spec.context_tokens // parallel),
                "--max-num-seqs",
                str(parallel),
            ),
            *_memory(cards, spec),
            *(
                "--kv-cache-dtype",
                _kv_dtype(str(values["kv_cache_k"]), str(values["kv_cache_v"])),
            ),
            *(
                ("--max-num-batched-tokens", str(values["batch"]))
                if "batch" in spec.settings
                else ()
            ),
            *allowed_args(spec.extra_args),
        ]
        require_flags(without_values(argv), spec.engine.flags, spec.engine.name)
        # What it asks of the network and tells of its users is nobody's business.
        env = {
            **spec.engine.env,
            **_visible(cards, spec),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        if spec.api_key_file and not has_sockets:
            # By the environment: other users of the machine can read a command line.
            env["VLLM_API_KEY"] = KEY
        return Command((spec.engine.path, *argv), env, launch=self.facts(spec))

    # --- the first answer -------------------------------------------------------------------------
    def greedy_question(self, prompt: str, n_tokens: int, alias: str) -> Question:
        """It has OpenAI's calls alone, which go by names of models."""
        body = {
            "model": alias,
            "prompt": prompt,
            "max_tokens": n_tokens,
            "temperature": 0,
            "seed": 1,
            "logprobs": 0,
            "return_token_ids": True,
            "ignore_eos": True,
        }
        return Question("/v1/completions", body)

    def greedy_tokens(self, answer: Any) -> Tokens:
        choice = answer["choices"][0]
        ids = tuple(int(token) for token in choice["token_ids"])
        return Tokens(ids, tuple(map(str, choice["logprobs"]["tokens"])))

    # --- what it says of itself -------------------------------------------------------------------
    def parse_version(self, text: str) -> str:
        """A bare number on a line of its own, among messages of imports."""
        found = re.findall(r"^v?(\d+\.\d+[\w.+-]*)$", text, re.M)
        if found:
            return str(found[-1])
        return ""

    def parse_flags(self, text: str) -> frozenset[str]:
        return listed_flags(text)

    # --- planning ---------------------------------------------------------------------------------
    def adjusted(self, request: PlanRequest) -> PlanRequest:
        """Its ranks are equal: no other cut can be asked of it."""
        count = len(cards_of(request))
        if request.strategy != StrategyName.TENSOR_SPLIT or count < 2:
            return request
        return replace(
            request, settings={**request.settings, SHARES: ",".join("1" * count)}
        )

    def device_kind(self, build: str) -> str:
        if CPU_BUILD in build:
            return "cpu"
        return "cuda"

    def unreadable(self, quant: str) -> str:
        if quant in OF_EXLLAMA:
            return "Use TabbyAPI for it."
        return ""

    def more_reasons(self, request: PlanRequest) -> list[Reason]:
        cards = cards_of(request)
        reasons = []
        if request.strategy == StrategyName.INDEPENDENT and len(cards) > 1:
            text = "One vLLM process over several cards is tensor parallelism."
            reasons.append(
                Reason(
                    "one_card",
                    Severity.ERROR,
                    text,
                    "Choose one card, or the strategy tensor split.",
                )
            )
        if request.strategy == StrategyName.TENSOR_SPLIT and len(cards) > 1:
            asked = str(request.settings.get(SHARES, AUTO))
            reasons += [*_unequal(cards), *_heads(request, len(cards)), *_shares(asked)]
        return reasons


def is_for_cpu(engine: EngineFacts) -> bool:
    return CPU_BUILD in engine.build


def _memory(cards: tuple[DeviceFacts, ...], spec: ServerSpec) -> tuple[str, str]:
    """On the CPU the share would be of all main memory, and it takes it whole: there the cache's
    size is said."""
    if not is_for_cpu(spec.engine):
        return "--gpu-memory-utilization", f"{memory_share(cards):.2f}"
    steps = -(-spec.kv_bytes // CACHE_STEP_BYTES) + 1
    return "--kv-cache-memory-bytes", str(steps * CACHE_STEP_BYTES)


def memory_share(cards: tuple[DeviceFacts, ...]) -> float:
    """The part of each card's memory it may take: one number for all cards, so the fullest one
    decides."""
    if not cards or not all(card.total_bytes for card in cards):
        return USUAL_SHARE
    smallest = min(room_bytes(card) / (card.total_bytes or 1) for card in cards)
    # Rounded down: it refuses to start when less is free than it is told to take.
    return max(min(int(smallest * 100) / 100, MOST_SHARE), 0.01)


def _visible(cards: tuple[DeviceFacts, ...], spec: ServerSpec) -> dict[str, str]:
    """Versions from before --device-ids read CUDA_VISIBLE_DEVICES as numbers and stop at a UUID
    (issue 41848)."""
    if is_for_cpu(spec.engine):
        return {}
    if "--device-ids" in spec.engine.flags:
        return visible(cards)
    numbers = [card.name.removeprefix("CUDA") for card in cards]
    if not all(number.isdecimal() for number in numbers):
        text = (
            f"This version of vLLM takes cards by number, and {cards[0].name} has none."
        )
        raise OmniError("device_not_for_engine", text, "Use a newer version of vLLM.")
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(numbers),
    }


def _kv_dtype(keys: str, values: str) -> str:
    if (keys, values) not in KV_DTYPES:
        text = f"vLLM has no KV cache with keys in {keys} and values in {values}."
        raise OmniError(
            "bad_setting", text, "It has f16, and fp8, which q8_0 for both stands for."
        )
    return KV_DTYPES[keys, values]


def _unequal(cards: tuple[DeviceFacts, ...]) -> list[Reason]:
    """vllm/v1/core/kv_cache_utils.py: every rank gets as many cache blocks as the one that has the
    fewest."""
    sizes = [card.total_bytes or 0 for card in cards]
    wasted = sum(size - min(sizes) for size in sizes)
    if not wasted or not min(sizes):
        return []
    largest = max(cards, key=lambda card: card.total_bytes or 0)
    text = (
        f"vLLM gives every card the same share: of {bytes_text(sum(sizes))} it can use"
        f" {len(cards)} × {bytes_text(min(sizes))} ="
        f" {bytes_text(len(cards) * min(sizes))} and wastes {bytes_text(wasted)}, most"
        f" of it on {largest.name}."
    )
    return [
        Reason(
            "equal_shares_waste",
            Severity.CAUTION,
            text,
            "llama.cpp cuts by the memory of each card.",
        )
    ]


def _heads(request: PlanRequest, count: int) -> list[Reason]:
    shape = next(iter(request.members.values())).shape
    heads = max((kind.n_head for kind in shape.layer_kinds()), default=0)
    if heads % count == 0:
        return []
    text = (
        f"{heads} attention heads cannot be given to {count} cards in equal parts, and"
        " vLLM gives no others."
    )
    return [
        Reason(
            "heads_not_divisible",
            Severity.ERROR,
            text,
            "Choose another number of cards.",
        )
    ]


def _shares(asked: str) -> list[Reason]:
    if asked == AUTO or len(set(asked.split(","))) == 1:
        return []
    text = f"Shares of {asked} are asked for; vLLM has equal ones only."
    return [
        Reason(
            "shares_ignored",
            Severity.ERROR,
            text,
            "Leave tensor_split at auto.",
            {SHARES: AUTO},
        )
    ]
