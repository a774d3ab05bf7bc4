"""What is said of a prediction: what it rests on, and how right such predictions were before."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.planning.accuracy import Coverage, Trend
from deployments.planning.corrections import Alike, Correction, Errors, PastRun
from deployments.planning.plan import Predicted
from omni.units import percent_text

COMPUTED = "computed only: nothing like it was measured on this rig yet"
_OF = {
    Alike.MODEL: "this model",
    Alike.FORMAT: "models of this number format",
    Alike.OTHER_BUILD: "models of this number format, also on other builds of the engine",
    Alike.OTHER_FORMAT: "models of other number formats, too",
    Alike.OTHER_ENGINE: "other models and engines, too",
}


def source_text(by: Correction | None) -> str:
    """Inside a sentence: what a predicted speed rests on."""
    if by is None:
        return COMPUTED
    runs = runs_text(by.benchmarks, by.answers)
    if by.alike is Alike.DEVICES:
        each = ", each" if len(by.devices) > 1 else ""
        return f"predicted, corrected by {runs} on {_and(by.devices)} alone{each}"
    return f"predicted, corrected by {runs} with {_OF[by.alike]}"


def runs_text(benchmarks: int, answers: int) -> str:
    """2 benchmarks and 14 answers."""
    parts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((benchmarks, "benchmark"), (answers, "answer"))
        if count
    ]
    return " and ".join(parts)


def basis_text(predicted: Predicted) -> str:
    """A sentence: what the speeds of the answer and of the prompt rest on."""
    answer = source_text(predicted.decode_correction)
    prompt = source_text(predicted.prefill_correction)
    if answer == prompt:
        text = f"Speeds of one request alone, {answer}."
    else:
        text = f"Speeds of one request alone; the answer's: {answer}; the prompt's: {prompt}."
    if predicted.decode_correction and predicted.basis == "computed":
        text += " What other devices do of it is computed only."
    return text


def errors_text(what: str, errors: Errors | None) -> str:
    """A sentence about the predictions of `what` in earlier runs; empty where there were none."""
    if errors is None:
        return ""
    if errors.runs == 1:
        return f"The one prediction of {what} before was {off_text(errors.median)}."
    return (
        f"{errors.runs} predictions of {what} before were {off_text(errors.median)} in the median,"
        f" between {off_text(errors.low)} and {off_text(errors.high)}."
    )


def record_text(predicted: Predicted) -> str:
    """How right predictions of this kind were before; empty where there were none."""
    told = (
        errors_text("its answers", predicted.decode_errors),
        errors_text("its prompts", predicted.prefill_errors),
    )
    return " ".join(text for text in told if text)


def off_text(error: float) -> str:
    """0.12 → '12 % too fast'; `error` is predicted ÷ measured − 1."""
    percent = round(100 * abs(error))
    if not percent:
        return "right"
    return f"{percent} % too {'fast' if error > 0 else 'slow'}"


def trend_text(what: str, errors: Sequence[float], trend: Trend | None) -> str:
    """A sentence or two: how far off the last predictions of `what` (a plural) were, beside the
    first; empty where there were none."""
    if not errors:
        return ""
    if trend is None:
        return f"The one prediction of {what} was {off_text(errors[0])}."
    last, first, uncorrected = map(
        _off, (trend.last, trend.first, trend.last_uncorrected)
    )
    if trend.compared == 1:
        return (
            f"The last of {trend.count} predictions of {what} was {last}; the first was {first}."
            f" Uncorrected, the last would have been {uncorrected}."
        )
    return (
        f"The last {trend.compared} of {trend.count} predictions of {what} were {last} in the"
        f" median; the first {trend.compared} were {first}. Uncorrected, the last {trend.compared}"
        f" would have been {uncorrected}."
    )


def coverage_text(coverage: Coverage) -> str:
    """A sentence; empty where no range was predicted."""
    if not coverage.ranges:
        return ""
    share = coverage.inside / coverage.ranges
    if coverage.ranges == 1:
        lay = "lay" if coverage.inside else "did not lie"
        return f"The one speed with a predicted range {lay} in it."
    return (
        f"Of {coverage.ranges} speeds with a predicted range {coverage.inside} lay in it:"
        f" {percent_text(100 * share)}, and nine of ten should."
    )


def _off(error: float) -> str:
    return f"{percent_text(100 * error)} off"


def run_text(run: PastRun) -> str:
    """Benchmark of 40 requests."""
    if not run.is_benchmark:
        return "Answer"
    return f"Benchmark of {run.requests} request{'' if run.requests == 1 else 's'}"


def _and(names: Sequence[str]) -> str:
    """RPC0, RPC1 and CPU."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
