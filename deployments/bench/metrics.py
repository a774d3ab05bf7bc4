"""The figures of a benchmark: what each is called, means and is made of, in one table.

The definitions are the field's. Where its tools differ, the explanation says which one this is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deployments.bench.measured import Measured
from deployments.gateway.timings import Drafts


@dataclass(frozen=True)
class ServiceLevel:
    """What an answer has to keep to, to count as good; None sets no limit."""

    first_token_ms: float | None = None
    time_per_output_token_ms: float | None = None
    e2e_ms: float | None = None

    @property
    def has_limits(self) -> bool:
        limits = (self.first_token_ms, self.time_per_output_token_ms, self.e2e_ms)
        return any(limit is not None for limit in limits)

    def is_kept_by(self, one: Measured) -> bool:
        """What is not known does not keep to a limit."""
        if not one.is_done:
            return False

        pause_ms = one.time_per_output_token_ms
        if one.output_tokens == 1:
            # There is no token that the next one could be waited for after.
            pause_ms = 0.0
        return (
            _is_within(one.first_token_ms, self.first_token_ms)
            and _is_within(pause_ms, self.time_per_output_token_ms)
            and _is_within(one.e2e_ms, self.e2e_ms)
        )


@dataclass(frozen=True)
class Run:
    """All counted requests of one load, and how long they took together."""

    measured: tuple[Measured, ...]
    began_s: float
    ended_s: float
    service_level: ServiceLevel = ServiceLevel()
    # What the devices took meanwhile, and the most memory in use on them; None where nobody
    # measured it.
    energy_joules: float | None = None
    peak_memory_bytes: int | None = None
    # What went over the links of the cards meanwhile, on the mean and both ways.
    link_gbps: float | None = None
    # From the wish to start the deployment until it was ready, where it was started for this run.
    start_ms: float | None = None

    @property
    def done(self) -> list[Measured]:
        return [one for one in self.measured if one.is_done]

    def per_second(self, count: float | None) -> float | None:
        span_s = self.ended_s - self.began_s
        if count is None or span_s <= 0:
            return None
        return count / span_s


# --- the table ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Metric:
    """`higher_is_better` is None for what is neither good nor bad."""

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    explanation: str


@dataclass(frozen=True)
class RequestMetric(Metric):
    """What each request has of its own: none, one or many values."""

    values: Callable[[Measured], Sequence[float]]


@dataclass(frozen=True)
class RunMetric(Metric):
    """What only all requests together have."""

    value: Callable[[Run], float | None]


def _one(read: Callable[[Measured], float | None]) -> Callable[[Measured], list[float]]:
    def values(one: Measured) -> list[float]:
        found = read(one)
        return [] if found is None else [found]

    return values


def _output_tps(one: Measured) -> float | None:
    pause_ms = one.time_per_output_token_ms
    return 1000 / pause_ms if pause_ms else None


def _kv_transfer_ms(one: Measured) -> float | None:
    parts = [one.handed_over.get(name) for name in ("save_ms", "restore_ms")]
    known = [part for part in parts if isinstance(part, (int, float))]
    return sum(known) if len(known) == len(parts) else None


def output_tokens(run: Run) -> int | None:
    """Of all answers that are done; None where one of them was not counted by its engine."""
    return _sum(one.output_tokens for one in run.done)


def _all_tokens(run: Run) -> int | None:
    prompts = _sum(one.figures["prompt_tokens"] for one in run.done)
    outputs = output_tokens(run)
    if prompts is None or outputs is None:
        return None
    return prompts + outputs


def _goodput(run: Run) -> float | None:
    if not run.service_level.has_limits:
        return None
    return run.per_second(sum(map(run.service_level.is_kept_by, run.measured)))


def _drafts(run: Run) -> Drafts | None:
    found = [one.drafts for one in run.done if one.drafts]
    if not found:
        return None
    return Drafts(sum(d.drafted for d in found), sum(d.accepted for d in found))


def _acceptance(run: Run) -> float | None:
    drafts = _drafts(run)
    if drafts is None:
        return None
    return drafts.accepted / drafts.drafted


def _mean_accepted_length(run: Run) -> float | None:
    """Each step of the target writes one token of its own beside those it accepts. The first token
    comes of reading the prompt."""
    drafts = _drafts(run)
    written = output_tokens(run)
    if drafts is None or written is None:
        return None

    behind_first = written - len(run.done)
    steps = behind_first - drafts.accepted
    if steps <= 0:
        return None
    return behind_first / steps


def _mean_watts(run: Run) -> float | None:
    return run.per_second(run.energy_joules)


def _joules_per_token(run: Run) -> float | None:
    written = output_tokens(run)
    if run.energy_joules is None or not written:
        return None
    return run.energy_joules / written


REQUEST_METRICS = (
    RequestMetric(
        "first_token_ms",
        "time to first token",
        "ms",
        False,
        "From sending the request to the first token that came back, reasoning or answer.",
        _one(lambda one: one.first_token_ms),
    ),
    RequestMetric(
        "first_answer_ms",
        "time to the answer",
        "ms",
        False,
        "From sending the request to the first token of the answer itself, behind any reasoning.",
        _one(lambda one: one.first_answer_ms),
    ),
    RequestMetric(
        "time_per_output_token_ms",
        "time per output token",
        "ms",
        False,
        "Mean pause between two tokens of one answer, its first token left out; guidellm calls it"
        " inter-token latency.",
        _one(lambda one: one.time_per_output_token_ms),
    ),
    RequestMetric(
        "inter_token_ms",
        "inter-token latency",
        "ms",
        False,
        "Each single pause between two tokens, as the engine counts them; tokens that come together"
        " share theirs.",
        lambda one: one.token_gaps_ms,
    ),
    RequestMetric(
        "e2e_ms",
        "end to end",
        "ms",
        False,
        "From sending the request to the end of its answer.",
        _one(lambda one: one.e2e_ms),
    ),
    RequestMetric(
        "output_tps",
        "output speed of one answer",
        "tokens/s",
        True,
        "Output tokens a second of one answer, from its first token to its last.",
        _one(_output_tps),
    ),
    RequestMetric(
        "prefill_tps",
        "prefill",
        "tokens/s",
        True,
        "How fast the prompt was read, by the engine's own clock; tokens from its cache left out.",
        _one(lambda one: one.prefill_tps),
    ),
    RequestMetric(
        "decode_tps",
        "decode",
        "tokens/s",
        True,
        "How fast the answer was written, by the engine's own clock where it tells.",
        _one(lambda one: one.figures["decode_tps"]),
    ),
    RequestMetric(
        "prompt_tokens",
        "prompt",
        "tokens",
        None,
        "Length of the prompt as the engine counts it, with what its chat template adds.",
        _one(lambda one: one.figures["prompt_tokens"]),
    ),
    RequestMetric(
        "cached_tokens",
        "from the cache",
        "tokens",
        None,
        "Tokens of the prompt that the engine still had: many of them make a first token look"
        " faster than it is.",
        _one(lambda one: one.figures["cached_tokens"]),
    ),
    RequestMetric(
        "output_tokens",
        "output",
        "tokens",
        None,
        "Length of the answer as the engine counts it, reasoning included.",
        _one(lambda one: one.output_tokens),
    ),
    RequestMetric(
        "kv_transfer_ms",
        "KV transfer",
        "ms",
        False,
        "Saving the KV cache of a prompt and restoring it where the answer is written.",
        _one(_kv_transfer_ms),
    ),
    RequestMetric(
        "late_ms",
        "sent late by",
        "ms",
        False,
        "How much later a request was sent than it should have been: a busy load generator, not a"
        " slow engine.",
        _one(lambda one: one.late_ms),
    ),
)
RUN_METRICS = (
    RunMetric(
        "total_tps",
        "output of all answers",
        "tokens/s",
        True,
        "Output tokens of all answers together, by the seconds of the whole run; vLLM calls it"
        " output token throughput.",
        lambda run: run.per_second(output_tokens(run)),
    ),
    RunMetric(
        "prompt_and_output_tps",
        "prompts and output",
        "tokens/s",
        True,
        "Tokens of prompts and answers together, by the seconds of the whole run; vLLM calls it"
        " total token throughput.",
        lambda run: run.per_second(_all_tokens(run)),
    ),
    RunMetric(
        "requests_per_second",
        "requests",
        "1/s",
        True,
        "Whole answers a second; what was cut or failed does not count.",
        lambda run: run.per_second(len(run.done)),
    ),
    RunMetric(
        "goodput",
        "goodput",
        "1/s",
        True,
        "Whole answers a second that kept to every limit of the service level.",
        _goodput,
    ),
    RunMetric(
        "acceptance",
        "acceptance rate",
        "share",
        True,
        "Share of the drafted tokens that the target kept, from 0 to 1.",
        _acceptance,
    ),
    RunMetric(
        "mean_accepted_length",
        "mean accepted length",
        "tokens",
        True,
        "Output tokens that one step of the target brought: those it accepted and one of its own.",
        _mean_accepted_length,
    ),
    RunMetric(
        "joules_per_token",
        "energy per token",
        "J",
        False,
        "What the devices took during the run, by its output tokens.",
        _joules_per_token,
    ),
    RunMetric(
        "mean_watts",
        "mean power",
        "W",
        False,
        "What the devices took during the run, by its seconds; all that they did is in it.",
        _mean_watts,
    ),
    RunMetric(
        "peak_memory_bytes",
        "peak memory",
        "bytes",
        False,
        "The most memory that was in use on the devices during the run, by whomever.",
        lambda run: run.peak_memory_bytes,
    ),
    RunMetric(
        "link_gbps",
        "link traffic",
        "GB/s",
        None,
        "What went over the PCIe links of all its cards during the measured blocks, both ways"
        " together: the mean of NVML's readings, each of 20 ms.",
        lambda run: run.link_gbps,
    ),
    RunMetric(
        "start_ms",
        "time to start",
        "ms",
        False,
        "From the wish to start the deployment until it was ready to answer.",
        lambda run: run.start_ms,
    ),
)
METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (*REQUEST_METRICS, *RUN_METRICS)
}


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them is not known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _is_within(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and value <= limit)
