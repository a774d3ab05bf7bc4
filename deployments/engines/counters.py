"""What engines say at /metrics of the work they do, in the text format of Prometheus.

llama.cpp (tools/server, server_task_result_metrics) counts the tokens of an answer when it is over;
vLLM (v1/metrics/loggers.py) while they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Name without labels, and the value; other lines are comments.
LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\s+([^\s]+)")
# The field, the names that engines have for it, and what makes it the unit of the field.
NAMES: Mapping[str, tuple[str, float]] = {
    "llamacpp:requests_processing": ("requests", 1),
    "llamacpp:requests_deferred": ("queued", 1),
    "llamacpp:kv_cache_usage_ratio": ("kv_percent", 100),
    "llamacpp:prompt_tokens_total": ("prompt_tokens", 1),
    "llamacpp:tokens_predicted_total": ("output_tokens", 1),
    "vllm:num_requests_running": ("requests", 1),
    "vllm:num_requests_waiting": ("queued", 1),
    "vllm:gpu_cache_usage_perc": ("kv_percent", 100),
    "vllm:kv_cache_usage_perc": ("kv_percent", 100),
    "vllm:prompt_tokens_total": ("prompt_tokens", 1),
    "vllm:generation_tokens_total": ("output_tokens", 1),
    "vllm:spec_decode_num_draft_tokens_total": ("drafted_tokens", 1),
    "vllm:spec_decode_num_accepted_tokens_total": ("accepted_tokens", 1),
}
# llama.cpp says it in its log, once a request.
ACCEPTED = re.compile(
    r"draft acceptance(?: rate)? *= *[\d.]+ *\( *(\d+) accepted */ *(\d+) generated *\)"
)


@dataclass(frozen=True)
class EngineCounters:
    """None is what the engine does not tell. Tokens are counted since it was started."""

    requests: float | None = None
    queued: float | None = None
    kv_percent: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None


def engine_counters(text: str) -> EngineCounters:
    """Of several engines behind one address (vLLM, by label) the work is added up."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        known = NAMES.get(match[1]) if match else None
        value = _number(match[2]) if match and known else None
        if known and value is not None:
            field, factor = known
            found.setdefault(field, []).append(value * factor)
    return EngineCounters(
        **{
            field: sum(values) / len(values) if field == "kv_percent" else sum(values)
            for field, values in found.items()
        }
    )


def drafts_in_log(text: str) -> tuple[int, int]:
    """Tokens that were drafted, and those of them that were accepted."""
    found = [(int(made), int(kept)) for kept, made in ACCEPTED.findall(text)]
    return sum(made for made, _ in found), sum(kept for _, kept in found)


def _number(text: str) -> float | None:
    """None for what is no count: NaN and infinity, too."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e18 else None
