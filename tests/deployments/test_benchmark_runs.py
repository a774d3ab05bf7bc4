"""What may be asked of a benchmark, and what becomes of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from deployments.bench import runs
from deployments.bench.executing import execute
from deployments.bench.metrics import ServiceLevel
from deployments.bench.prepared import differ_in_precision
from deployments.bench.prompts import Prompt
from deployments.bench.runs import (
    asked_by,
    benchmark_cancel,
    benchmark_forget,
    benchmark_request,
    get_benchmark,
    shape_of,
)
from deployments.bench.shape import Shape
from deployments.models import BenchmarkRun, Deployment, Model
from gpus.models import Host
from omni.errors import OmniError

State = BenchmarkRun.State
GATEWAY = "http://127.0.0.1:1"
ROOMY = {"context": 4096}


@pytest.fixture
def two(make_deployment: Callable[..., Deployment], model: Model) -> list[str]:
    """Each on a device of its own."""
    for number, name in enumerate(("one", "other")):
        members = {"model": (model, [f"RPC{number}"])}
        make_deployment(name, members=members, settings=ROOMY)
    return ["one", "other"]


def asked(names: list[str], **changes: Any) -> BenchmarkRun:
    return benchmark_request(
        **{"names": names, "scenario": "chat", "gateway": GATEWAY, **changes}
    )


def question(number: int, text: str = "Why?") -> Prompt:
    return Prompt(f"own/{number}", ({"role": "user", "content": text},), 8)


def test_run_waits_for_its_process_with_all_that_it_is_asked(two: list[str]) -> None:
    run = asked(two, concurrency=(1, 4), most_rounds=3, seconds=60.0)
    assert (run.state, run.names, run.concurrency) == (State.QUEUED, two, [1, 4])
    assert (run.most_rounds, run.seconds, run.swaps) == (3, 60.0, False)
    assert get_benchmark(run.pk) == run


def test_load_and_service_level_are_kept_with_the_run(two: list[str]) -> None:
    thinking = Shape(think_s=2.0, service_level=ServiceLevel(500.0, 50.0))
    at_rates = Shape(rates=(0.5, 1.0))
    assert shape_of(get_benchmark(asked(two, shape=thinking).pk)) == thinking
    run = get_benchmark(asked(two, shape=at_rates).pk)
    assert shape_of(run) == at_rates
    assert {arm.rate for arm in asked_by(run).arms} == {0.5, 1.0}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"names": []}, "bad_benchmark"),
        ({"names": ["one", "one"]}, "bad_benchmark"),
        ({"names": ["nobody"]}, "not_found"),
        ({"scenario": "nothing"}, "scenario_unknown"),
        ({"concurrency": (0,)}, "bad_benchmark"),
        ({"concurrency": (1000,)}, "bad_benchmark"),
        ({"shape": Shape(rates=(1.0,)), "concurrency": (4,)}, "bad_benchmark"),
        ({"shape": Shape(rates=(1.0,)), "scenario": "mixed"}, "bad_benchmark"),
        ({"shape": Shape(think_s=-1.0)}, "bad_benchmark"),
        ({"most_rounds": 0}, "bad_benchmark"),
        ({"seconds": 0.0}, "bad_benchmark"),
        ({"scenario": "long_prompt", "names": ["small"]}, "context_too_small"),
        ({"scenario": "mixed", "names": ["one"]}, "not_mixed"),
        ({"prompts": [question(1)]}, "too_few_prompts"),
        ({"prompts": [question(n, "a" * 10**6) for n in range(5)]}, "bad_benchmark"),
        ({"user": AnonymousUser()}, "forbidden"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_nothing_is_kept(
    two: list[str],
    make_deployment: Callable[..., Deployment],
    changes: dict[str, Any],
    code: str,
) -> None:
    make_deployment("small", settings={"context": 512})
    with pytest.raises(OmniError) as refused:
        asked(**{"names": two, **changes})
    assert refused.value.code == code
    assert not BenchmarkRun.objects.exists()


def test_deployments_of_two_hosts_are_not_compared(
    two: list[str], model: Model
) -> None:
    Deployment.objects.filter(name="other").update(
        host=Host.objects.create(name="elsewhere")
    )
    with pytest.raises(OmniError, match="different hosts"):
        asked(two)


def test_deployments_that_cannot_be_up_together_are_swapped(
    two: list[str], make_deployment: Callable[..., Deployment], model: Model
) -> None:
    """An RPC server serves one engine at a time."""
    make_deployment("third", members={"model": (model, ["RPC0"])}, settings=ROOMY)
    assert not asked(["one", "other"]).swaps
    assert asked(["one", "third"]).swaps
    with pytest.raises(OmniError) as refused:
        asked(["one", "third"], scenario="mixed")
    assert refused.value.code == "not_mixed"


def test_run_that_waits_is_cancelled_at_once_and_one_that_runs_by_its_process(
    two: list[str],
) -> None:
    waits, runs_ = asked(two), asked(two)
    BenchmarkRun.objects.filter(pk=runs_.pk).update(state=State.RUNNING)
    benchmark_cancel(run=waits)
    benchmark_cancel(run=runs_)
    assert get_benchmark(waits.pk).state == State.CANCELLED
    assert get_benchmark(runs_.pk).state == State.CANCELLING
    with pytest.raises(OmniError) as refused:
        benchmark_cancel(run=waits)
    assert refused.value.code == "benchmark_over"


def test_only_a_run_that_is_over_is_deleted(two: list[str]) -> None:
    run = asked(two)
    with pytest.raises(OmniError) as refused:
        benchmark_forget(run=run)
    assert refused.value.code == "benchmark_open"
    benchmark_cancel(run=run)
    benchmark_forget(run=get_benchmark(run.pk))
    with pytest.raises(OmniError) as refused:
        get_benchmark(run.pk)
    assert refused.value.code == "unknown_benchmark"


def test_old_runs_make_room_for_new_ones_and_none_that_is_not_over(
    two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", 2)
    open_ = asked(two)
    over = [asked(two) for _ in range(3)]
    for run in over:
        benchmark_cancel(run=run)
    newest = asked(two)
    kept = set(BenchmarkRun.objects.values_list("pk", flat=True))
    assert kept == {open_.pk, over[1].pk, over[2].pk, newest.pk}


def test_process_of_a_run_that_was_cancelled_meanwhile_does_nothing(
    two: list[str],
) -> None:
    run = asked(two)
    benchmark_cancel(run=run)
    execute(run.pk)
    now = get_benchmark(run.pk)
    assert (now.state, now.started_at, now.document) == (State.CANCELLED, None, None)


def test_run_that_was_left_in_the_middle_is_ended_with_what_it_found(
    two: list[str],
) -> None:
    run = asked(two)
    found = {
        "valid": True,
        "warnings": [],
        "answer": "faster",
        "comparisons": [{"verdict": "faster"}],
        "arms": [1],
    }
    Deployment.objects.filter(name="one").update(desired="running")
    BenchmarkRun.objects.filter(pk=run.pk).update(
        state=State.RUNNING,
        document=found,
        were_wanted={"one": False, "other": True, "deleted": True},
    )
    execute(run.pk)
    now = get_benchmark(run.pk)
    assert (now.state, now.error_code) == (State.FAILED, "process_ended")
    assert now.document["arms"] == [1]
    assert not now.document["valid"]
    assert now.document["comparisons"] == [{"verdict": "undecided"}]
    wanted = dict(Deployment.objects.values_list("name", "desired"))
    assert wanted == {"one": "stopped", "other": "running"}


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ({}, False),
        ({"context": 8192}, False),
        ({"kv_cache_k": "q8_0"}, True),
        ({"kv_cache_v": "q4_0", "flash_attention": "on"}, True),
    ],
)
def test_other_types_of_kv_cache_may_answer_otherwise(
    two: list[str],
    make_deployment: Callable[..., Deployment],
    settings: dict[str, Any],
    differ: bool,
) -> None:
    make_deployment("third", settings={**ROOMY, **settings})
    assert differ_in_precision(["one", "third"]) == differ


def test_other_weights_may_answer_otherwise_and_another_draft_does_not(
    two: list[str], make_deployment: Callable[..., Deployment], model: Model
) -> None:
    smaller = Model.objects.get(pk=model.pk)
    smaller.pk, smaller.name, smaller.path = None, "smaller", "/models/smaller.gguf"
    smaller.save()
    make_deployment("quantised", members={"model": (smaller, ["CPU"])}, settings=ROOMY)
    make_deployment(
        "drafting",
        strategy="speculative",
        members={"target": (model, ["CPU"]), "draft": (smaller, ["CPU"])},
        settings=ROOMY,
    )
    assert differ_in_precision(["one", "quantised"])
    assert not differ_in_precision(["one", "drafting"])


def test_context_that_is_left_to_omni_is_enough_for_long_prompts(
    make_deployment: Callable[..., Deployment],
) -> None:
    make_deployment("roomy", settings={"context": "auto"})
    assert asked(["roomy"], scenario="long_prompt").state == State.QUEUED
