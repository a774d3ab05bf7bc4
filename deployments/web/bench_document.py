"""A benchmark's document as values: what its page, its exports and its comparison read.

A document is JSON that grows while the run goes on, and an older one may lack what a newer one has.
What is not there, or is no number, is None or empty and never an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployments.bench.comparisons import SpeedVerdict
from deployments.bench.metrics import METRICS
from deployments.web.bench_values import (
    LARGEST,
    OF_A_REQUEST,
    Arm,
    ArmKey,
    Difference,
    Figure,
    Json,
    Measurements,
    Outlier,
    Perplexity,
    Problem,
    Quality,
    Request,
    Saturation,
    ServiceLevel,
    Setup,
)


# --- reading --------------------------------------------------------------------------------------
def read_document(document: Json | None) -> Measurements:
    found = document or {}
    rounds, environment = (
        _mapping(found.get("rounds")),
        _mapping(found.get("environment")),
    )
    host = _mapping(environment.get("host"))
    warnings = _texts(found.get("warnings"))
    return Measurements(
        number=whole(found.get("id")),
        scenario=text(found.get("scenario")),
        is_valid=bool(found.get("valid")) and not warnings,
        warnings=warnings,
        notes=_texts(found.get("notes")),
        rounds_done=whole(rounds.get("done")) or 0,
        rounds_planned=whole(rounds.get("planned")) or 0,
        ending=text(rounds.get("ending")),
        seconds=amount(rounds.get("seconds")),
        service_level=_service_level(found.get("service_level")),
        think_s=amount(found.get("think_s")) or 0.0,
        is_swapped=bool(environment.get("swapped")),
        host=text(host.get("name")),
        cpu=text(host.get("cpu")),
        setups=tuple(
            _setup(name, row)
            for name, row in _mapping(environment.get("deployments")).items()
        ),
        conditions=_mapping(environment.get("conditions")),
        arms=tuple(map(_arm, _rows(found.get("arms")))),
        differences=tuple(
            row
            for row in map(_difference, _rows(found.get("comparisons")))
            # It names parts of the page.
            if row.metric.isidentifier()
        ),
        requests=tuple(map(_request, _rows(found.get("requests")))),
    )


def _arm(row: Json) -> Arm:
    return Arm(
        key=_key(row),
        strategy=text(row.get("strategy")),
        requests=whole(row.get("requests")) or 0,
        errors=whole(row.get("errors")) or 0,
        problems=_problems(row.get("problems")),
        figures={
            name: _figure(value)
            for name, value in row.items()
            if isinstance(value, Mapping) and "p50" in value and name.isidentifier()
        },
        totals=_numbers(row, tuple(METRICS)),
        tokens_out=whole(row.get("tokens_out")),
        saturation=_saturation(row.get("saturation")),
        kept_level=whole(row.get("kept_level")),
        predicted=_numbers(
            _mapping(row.get("predicted")), ("prefill_tps", "decode_tps")
        ),
        quality=_quality(row.get("quality")),
    )


def _key(row: Json, *, name: str = "deployment", load: str = "load") -> ArmKey:
    users = whole(row.get("concurrency")) or 1
    rate = amount(row.get("rate")) or 0.0
    return ArmKey(text(row.get(name)), users, text(row.get(load)), rate)


def _saturation(found: object) -> Saturation | None:
    row = _mapping(found)
    if not row:
        return None
    return Saturation(
        text(row.get("state")),
        whole(row.get("arrived")) or 0,
        whole(row.get("answered")) or 0,
    )


def _service_level(found: object) -> ServiceLevel | None:
    row = _mapping(found)
    first_ms = amount(row.get("first_token_ms"))
    token_ms = amount(row.get("time_per_output_token_ms"))
    if first_ms is None and token_ms is None:
        return None
    return ServiceLevel(first_ms, token_ms)


def _figure(row: Json) -> Figure:
    outliers = [
        Outlier(_round_of(one), value)
        for one in _rows(row.get("outliers"))
        if (value := amount(one.get("value"))) is not None
    ]
    bounds = {
        name: amount(row.get(name)) for name in ("p50", "p95", "mean", "low", "high")
    }
    return Figure(**bounds, outliers=tuple(outliers))


def _round_of(outlier: Json) -> int | None:
    """Counted from 1, as the rounds of requests are."""
    block = whole(outlier.get("block"))
    return None if block is None else block + 1


def _problems(found: object) -> tuple[Problem, ...]:
    return tuple(
        Problem(ending, reason, whole(count) or 0)
        for ending, reasons in _mapping(found).items()
        for reason, count in _mapping(reasons).items()
    )


def _quality(found: object) -> Quality | None:
    row = _mapping(found)
    if not row:
        return None
    first = _mapping(row.get("first_difference"))
    return Quality(
        compared=whole(row.get("compared")) or 0,
        same=whole(row.get("same")) or 0,
        different_prompt=text(first.get("prompt")),
        different_word=whole(first.get("word")),
        right=whole(row.get("right")) or 0,
        known=whole(row.get("known")) or 0,
        perplexity=_perplexity(row.get("perplexity")),
    )


def _perplexity(found: object) -> Perplexity | None:
    row = _mapping(found)
    if not row:
        return None
    return Perplexity(
        value=amount(row.get("perplexity")),
        tokens=whole(row.get("tokens")) or 0,
        change=number(row.get("change_percent")),
        low=number(row.get("low_percent")),
        high=number(row.get("high_percent")),
        why=text(row.get("why")),
    )


def _difference(row: Json) -> Difference:
    baseline = _key(row, name="baseline", load="baseline_load")
    verdicts = {verdict.value: verdict for verdict in SpeedVerdict}
    return Difference(
        baseline=baseline,
        arm=_key(row),
        metric=text(row.get("metric")),
        rounds=whole(row.get("rounds")) or 0,
        change=number(row.get("change_percent")),
        low=number(row.get("low_percent")),
        high=number(row.get("high_percent")),
        verdict=verdicts.get(text(row.get("verdict")), SpeedVerdict.UNDECIDED),
    )


def _request(row: Json) -> Request:
    return Request(
        arm=_key(row),
        round=whole(row.get("round")),
        prompt=text(row.get("prompt")),
        ending=text(row.get("ending")),
        reason=text(row.get("reason")),
        values=_numbers(row, OF_A_REQUEST),
        kept_level=_flag(row.get("kept_level")),
    )


def _setup(name: str, found: object) -> Setup:
    row = _mapping(found)
    models = _mapping(row.get("models"))
    return Setup(
        name=text(name),
        engine=text(row.get("engine")),
        build=text(row.get("build")),
        generation=whole(row.get("generation")),
        settings=_mapping(row.get("settings")),
        extra_args=_texts(row.get("extra_args")),
        models=tuple(
            (role, text(model.get("name")), text(model.get("fingerprint")))
            for role, model in ((role, _mapping(one)) for role, one in models.items())
        ),
        devices=_texts(row.get("devices")),
    )


# --- JSON as it comes -----------------------------------------------------------------------------
def number(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    if isinstance(found, int) and found.bit_length() > 60:
        return None
    value = float(found)
    return value if abs(value) <= LARGEST else None


def amount(found: object) -> float | None:
    """What was measured or counted: nothing of that is less than nought."""
    value = number(found)
    return None if value is None or value < 0 else value


def whole(found: object) -> int | None:
    value = amount(found)
    return None if value is None else int(value)


def _flag(found: object) -> bool | None:
    return found if isinstance(found, bool) else None


def text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _texts(found: object) -> tuple[str, ...]:
    return tuple(map(str, found)) if isinstance(found, (list, tuple)) else ()


def _mapping(found: object) -> Json:
    return found if isinstance(found, Mapping) else {}


def _rows(found: object) -> list[Json]:
    if not isinstance(found, (list, tuple)):
        return []
    return [row for row in found if isinstance(row, Mapping)]


def _numbers(row: Json, names: Sequence[str]) -> dict[str, float]:
    found = {name: amount(row.get(name)) for name in names}
    return {name: value for name, value in found.items() if value is not None}
