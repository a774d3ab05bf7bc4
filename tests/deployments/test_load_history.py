"""What deployments do, read from their engines and the history of requests, and kept."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from deployments.engines.counters import (
    EngineCounters,
    drafts_in_log,
    engine_counters,
)
from deployments.engines.slots import held_percent
from deployments.models import BenchmarkRun, Deployment, GatewayRequest, Instance
from deployments.services.history_marks import mark_run, subject_of
from deployments.services.load_history import LoadHistory
from deployments.supervision.saving import keep
from gpus.buckets import read_history
from gpus.models import HistoryMark, HistorySubject
from tests.fakes.engine import UnixServer
from tests.helpers import HandClock

LLAMA = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total {prompt}
llamacpp:tokens_predicted_total {output}
llamacpp:predicted_tokens_seconds 41.5
llamacpp:requests_processing {running}
llamacpp:requests_deferred 1
"""
VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="big"} 3.0
vllm:num_requests_running{engine="1",model_name="big"} 4.0
vllm:num_requests_waiting{engine="0",model_name="big"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="big"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="big"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="big"} 1.5e+06
vllm:generation_tokens_total{engine="0",model_name="big"} 2000.0
vllm:generation_tokens_created{engine="0",model_name="big"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0"} 100.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 60.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 5
"""


# --- what engines say -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            LLAMA.format(prompt=120, output=45, running=2),
            EngineCounters(2, 1, None, 120, 45),
        ),
        (VLLM, EngineCounters(7, 2, 50, 1.5e6, 2000, 100, 60)),
        ("llamacpp:kv_cache_usage_ratio 0.5", EngineCounters(kv_percent=50)),
        ("llamacpp:prompt_tokens_total NaN", EngineCounters()),
        ("llamacpp:prompt_tokens_total -1", EngineCounters()),
        ("llamacpp:prompt_tokens_total many", EngineCounters()),
        ("<html>", EngineCounters()),
        ("", EngineCounters()),
    ],
)
def test_counters_are_read_from_either_engine(
    text: str, expected: EngineCounters
) -> None:
    assert engine_counters(text) == expected


def test_drafts_are_added_up_over_the_requests_of_a_log() -> None:
    log = (
        "slot print_timing: id  0 | task 3 | draft acceptance rate = 0.83333 (   25 accepted /"
        "    30 generated)\nother\n"
        "draft acceptance = 0.50000 (    5 accepted /    10 generated)\n"
    )
    assert drafts_in_log(log) == (40, 30)
    assert drafts_in_log("draft acceptance rate = none") == (0, 0)


@pytest.mark.parametrize(
    ("slots", "is_shared", "percent"),
    [
        ([{"n_ctx": 1000, "n_prompt_tokens": 250}, {"n_ctx": 1000}], False, 12.5),
        ([{"n_ctx": 1000, "n_prompt_tokens": 250}, {"n_ctx": 1000}], True, 25),
        ([{"n_ctx": 1000, "n_prompt_tokens": 3000}], False, 100),
        ([{"n_ctx": 1000}], False, None),
        ([{"n_prompt_tokens": 10}, 7], False, None),
        ([], True, None),
    ],
)
def test_slots_tell_how_much_of_the_cache_is_held(
    slots: list[Any], is_shared: bool, percent: float | None
) -> None:
    assert held_percent(slots, is_shared=is_shared) == percent


# --- an engine ------------------------------------------------------------------------------------
class FakeServer:
    """Answers /slots and /metrics on a Unix socket with what it is told to."""

    def __init__(self, path: Path) -> None:
        self.decoding: list[int] = []
        self.prompt = self.output = 0
        self.is_silent = False
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = engine.said(self.path).encode()
                self.send_response(500 if engine.is_silent else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = UnixServer(str(path), Handler)  # type: ignore[arg-type]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def said(self, path: str) -> str:
        if path == "/metrics":
            running = len(self.decoding)
            return LLAMA.format(prompt=self.prompt, output=self.output, running=running)
        return json.dumps(
            [
                {
                    "id": number,
                    "id_task": number,
                    "is_processing": True,
                    "n_ctx": 1000,
                    "n_prompt_tokens": 100 + tokens,
                    "next_token": [{"n_decoded": tokens}],
                }
                for number, tokens in enumerate(self.decoding)
            ]
        )


@pytest.fixture
def instance(deployment: Deployment, tmp_path: Path) -> Instance:
    return Instance.objects.create(
        host=deployment.host,
        deployment=deployment,
        role="model",
        state="ready",
        pid=1,
        start_time=1.0,
        socket=str(tmp_path / "engine.sock"),
        log_path=str(tmp_path / "engine.log"),
        launch={"drafts": True},
        generation=deployment.generation,
    )


@pytest.fixture
def server(instance: Instance) -> Iterator[FakeServer]:
    running = FakeServer(Path(instance.socket))
    yield running
    running.server.shutdown()
    running.server.server_close()


class Looks:
    """Looks of the agent, ten seconds apart."""

    def __init__(self, deployment: Deployment) -> None:
        self.clock = HandClock()
        self.history = LoadHistory(deployment.host, lambda: self.clock.now_s)
        self.key = subject_of(deployment.pk)
        self.begin_s = self.at_s = time.time() // 10 * 10 - 3600

    def __call__(self) -> dict[str, Any]:
        """What this look has kept."""
        self.at_s += 10
        self.clock.now_s += 10
        self.history.tick(self.at_s)
        subject = HistorySubject.objects.filter(key=self.key).first()
        if subject is None:
            return {}
        found = read_history(subject, self.at_s, self.at_s + 10, self.at_s + 10)
        return {
            name: columns.mean[-1]
            for name, columns in found.metrics.items()
            if columns.mean[-1] is not None and found.starts[-1] == self.at_s
        }


@pytest.fixture
def look(deployment: Deployment) -> Looks:
    return Looks(deployment)


def test_rates_are_what_was_counted_between_two_looks(
    server: FakeServer, look: Looks
) -> None:
    server.prompt, server.output = 1000, 500
    first = look()
    assert first == {"requests": 0, "queue_length": 1}
    server.prompt, server.output, server.decoding = 3000, 600, [150, 50]
    second = look()
    # 100 of requests that are over, and 200 of two that are not counted yet.
    assert second["prompt_tps"] == 200 and second["output_tps"] == 30
    assert (second["requests"], second["queue_length"]) == (2, 1)
    assert second["kv_percent"] == 20
    server.output, server.decoding = 800, []
    assert look()["output_tps"] == 0
    assert HistorySubject.objects.get().title == "small"


def test_an_engine_that_is_silent_once_is_counted_at_the_next_look(
    server: FakeServer, look: Looks
) -> None:
    look()
    server.is_silent = True
    server.output = 100
    assert look() == {"queue_length": 0}
    server.is_silent = False
    server.output = 400
    assert look()["output_tps"] == 20


def test_a_process_that_was_started_again_begins_at_nought(
    server: FakeServer, look: Looks
) -> None:
    server.output = 5000
    look()
    Instance.objects.update(pid=2)
    server.output = 10
    assert "output_tps" not in look()
    server.output = 60
    assert look()["output_tps"] == 5


def test_drafts_are_read_from_the_log(
    server: FakeServer, look: Looks, instance: Instance
) -> None:
    log = Path(instance.log_path)
    log.write_text("draft acceptance rate = 1.0 ( 9 accepted / 9 generated)\n")
    assert "acceptance_percent" not in look()
    with log.open("a") as file:
        file.write("draft acceptance rate = 0.75 ( 30 accepted / 40 generated)\n")
    assert look()["acceptance_percent"] == 75
    assert "acceptance_percent" not in look()


def request_of(name: str, first_ms: int | None, prompt: int, output: int) -> None:
    now = timezone.now()
    GatewayRequest.objects.create(
        at=now,
        hour=int(now.timestamp() // 3600),
        surface="gateway",
        path="/v1/chat/completions",
        deployment_name=name,
        status=200,
        prompt_tokens=prompt,
        cached_tokens=100,
        completion_tokens=output,
        first_token_ms=first_ms,
        duration_ms=1000,
    )


def test_first_tokens_are_those_of_requests_that_ended(
    server: FakeServer, look: Looks
) -> None:
    request_of("small", 9999, 1, 1)
    assert "first_token_ms" not in look()
    for first_ms in (100, 300, None):
        request_of("small", first_ms, 200, 50)
    request_of("another", 5000, 200, 50)
    assert look()["first_token_ms"] == 200
    assert "first_token_ms" not in look()


def test_without_counters_tokens_are_those_of_requests_that_ended(
    instance: Instance, look: Looks
) -> None:
    """Nothing answers at its socket."""
    look()
    request_of("small", 100, 1100, 300)
    found = look()
    assert (found["prompt_tps"], found["output_tps"]) == (100, 30)
    assert "requests" not in found
    assert look()["output_tps"] == 0


def test_what_is_not_ready_or_a_trial_has_no_history(
    server: FakeServer, look: Looks
) -> None:
    Deployment.objects.update(trial_of=3)
    assert look() == {}
    Deployment.objects.update(trial_of=None)
    Instance.objects.update(state="loading")
    assert look() == {}


# --- marks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("loading", "ready", [("started", "small (model) is ready")]),
        ("unhealthy", "ready", []),
        ("stopping", "stopped", [("stopped", "small (model) stopped")]),
        ("ready", "crashed", [("crashed", "small (model) crashed: why")]),
        ("crashed", "failed", [("crashed", "small (model) failed: why")]),
        ("stopped", "starting", []),
        ("ready", "ready", []),
    ],
)
def test_changes_of_a_deployment_are_marked(
    instance: Instance, old: str, new: str, expected: list[tuple[str, str]]
) -> None:
    instance.state = new
    keep(instance, old, "why")
    assert list(HistoryMark.objects.values_list("kind", "text")) == expected
    assert {row.subject for row in HistoryMark.objects.all()} <= {
        subject_of(instance.deployment_id or 0)
    }


def test_a_benchmark_is_marked_for_everything_of_its_host(
    deployment: Deployment,
) -> None:
    run = BenchmarkRun.objects.create(
        host=deployment.host,
        scenario="chat",
        names=["small", "big"],
        most_rounds=1,
        gateway="http://127.0.0.1:1",
    )
    mark_run(run, "began")
    [row] = HistoryMark.objects.all()
    assert (row.kind, row.subject) == ("run", "")
    assert row.text == f"Benchmark {run.pk}: chat of small, big began"
