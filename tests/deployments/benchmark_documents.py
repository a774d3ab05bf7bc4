"""What runs of a benchmark have to say: documents as they are kept, for pages that show them."""

from __future__ import annotations

from typing import Any

FIGURES = (
    "first_token_ms",
    "first_answer_ms",
    "time_per_output_token_ms",
    "output_tps",
    "e2e_ms",
    "prefill_tps",
    "decode_tps",
    "kv_transfer_ms",
    "start_ms",
)
NUMBERS = (
    "total_tps",
    "requests_per_second",
    "goodput",
    "acceptance",
    "mean_accepted_length",
    "joules_per_token",
    "mean_watts",
    "peak_memory_bytes",
)
NOTHING: dict[str, Any] = dict.fromkeys(("p50", "p95", "mean", "low", "high"))


def figures(value: float) -> dict[str, Any]:
    return {
        "p50": value,
        "p95": 1.3 * value,
        "mean": 1.02 * value,
        "low": 0.97 * value,
        "high": 1.05 * value,
        "outliers": [],
    }


def arm(name: str, strategy: str, speed: float) -> dict[str, Any]:
    return {
        "deployment": name,
        "strategy": strategy,
        "concurrency": 1,
        "load": "",
        "requests": 24,
        "errors": 0,
        "problems": {},
        **{figure: NOTHING | {"outliers": []} for figure in FIGURES},
        **dict.fromkeys(NUMBERS),
        "first_token_ms": figures(310.0),
        "time_per_output_token_ms": figures(1000 / speed),
        "output_tps": figures(speed),
        "e2e_ms": figures(310.0 + 100_000 / speed),
        "tokens_out": 2400,
        "predicted": {"prefill_tps": 200.0, "decode_tps": 1.1 * speed},
        "quality": None,
    }


def document(baseline: str, other: str, *, valid: bool = True) -> dict[str, Any]:
    """Of a run of two deployments, the second faster, or disturbed."""
    verdict = "faster" if valid else "undecided"
    answer = (
        f"{other} against {baseline}: faster, Output speed +31.2 % (+28.4 to +34.1 %)."
    )
    return {
        "id": 1,
        "scenario": "chat",
        "valid": valid,
        "warnings": [] if valid else [f"{other} was started again meanwhile."],
        "notes": [],
        "answer": answer if valid else "Nothing is concluded: the run was disturbed.",
        "rounds": {"done": 6, "planned": 10, "ending": "settled", "seconds": 81.2},
        "environment": {
            "swapped": False,
            "host": {"name": "testhost", "cpu": "A CPU"},
            "deployments": {
                name: {
                    "engine": "llama.cpp",
                    "build": "b1",
                    "generation": 1,
                    "settings": {},
                    "extra_args": [],
                    "models": {"model": {"name": "small", "fingerprint": "f"}},
                    "devices": ["CPU"],
                }
                for name in (baseline, other)
            },
            "conditions": None,
        },
        "arms": [arm(baseline, "independent", 20.0), arm(other, "speculative", 26.2)],
        "comparisons": [
            {
                "baseline": baseline,
                "deployment": other,
                "concurrency": 1,
                "load": "",
                "baseline_load": "",
                "metric": "output_tps",
                "rounds": 6,
                "change_percent": 31.2,
                "low_percent": 28.4,
                "high_percent": 34.1,
                "verdict": verdict,
            }
        ],
        "requests": [],
    }
