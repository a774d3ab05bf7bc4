"""/metrics as Prometheus reads it, and who may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from deployments.gateway import kv_transfer_state
from deployments.models import (
    Alert,
    ApiKey,
    Deployment,
    GatewayRequest,
    Instance,
    RequestTotals,
    ScrapeToken,
)
from deployments.services.history_marks import subject_of
from deployments.services.request_totals import add_up
from deployments.services.scrape import scrape_token_make
from gpus.buckets import save_buckets
from gpus.models import Gpu, Host
from gpus.recent import RecentWriter
from gpus.rollup import Bucket
from gpus.sample import CardSample, HostSample, NvmlState, Sample

Found = dict[str, dict[tuple[str, ...], float]]


def scraped(client: Client, **headers: str) -> Found:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"].startswith("text/plain; version=")
    found: Found = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        assert family.documentation, f"{family.name} says what it is"
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.fixture
def served(make_deployment: Callable[..., Deployment]) -> Deployment:
    made = make_deployment("served")
    Deployment.objects.update(desired=Deployment.Desired.RUNNING)
    Instance.objects.create(
        host=made.host,
        deployment=made,
        role="model",
        state="ready",
        generation=made.generation,
        restarts=3,
    )
    return made


def test_metrics_of_a_ready_deployment_are_one_and_its_restarts(
    admin: Client, served: Deployment
) -> None:
    found = scraped(admin)
    assert found["omni_deployment_ready"] == {("served", "independent"): 1}
    assert found["omni_instance_restarts_total"] == {("served", "model"): 3}
    assert found["omni_num_requests_running"] == {("served",): 0}


def test_metrics_of_a_stopped_deployment_are_nought(
    admin: Client, make_deployment: Callable[..., Deployment]
) -> None:
    make_deployment("idle")
    assert scraped(admin)["omni_deployment_ready"] == {("idle", "independent"): 0}


def test_metrics_of_kv_transfers_are_counted_by_outcome(
    admin: Client, served: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kv_transfer_state.counts, ('of "quotes"\n', "used"), 2)
    found = scraped(admin)["omni_handovers_total"]
    assert found[('of "quotes"\n', "used")] == 2


# --- requests -------------------------------------------------------------------------------------
def ended(first_token_ms: Iterable[int | None], **changes: Any) -> list[GatewayRequest]:
    usual = {
        "at": timezone.now(),
        "hour": 1,
        "surface": "gateway",
        "path": "/v1/chat/completions",
        "deployment_name": "smol",
        "status": 200,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 20,
        "duration_ms": 2000,
    }
    return [
        GatewayRequest(first_token_ms=ms, **usual | changes) for ms in first_token_ms
    ]


def test_counters_of_requests_add_up_and_never_go_back(admin: Client) -> None:
    add_up(ended([40, 300, 300]))
    add_up(ended([9000, 10**9]))
    add_up(ended([None], status=502, prompt_tokens=None, completion_tokens=None))
    add_up(ended([None], status=404, deployment_name="", duration_ms=3))
    GatewayRequest.objects.all().delete()
    found = scraped(admin)
    assert found["omni_requests_total"] == {
        ("", "404"): 1,
        ("smol", "200"): 5,
        ("smol", "502"): 1,
    }
    assert found["omni_prompt_tokens_total"][("smol",)] == 500
    assert found["omni_prompt_tokens_cached_total"][("smol",)] == 240
    assert found["omni_generation_tokens_total"][("smol",)] == 100
    of_smol = {
        labels[1]: value
        for labels, value in found["omni_time_to_first_token_seconds_bucket"].items()
        if labels[0] == "smol"
    }
    assert of_smol["0.02"] == 0 and of_smol["0.05"] == 1 and of_smol["0.5"] == 3
    assert of_smol["10.0"] == 4 and of_smol["160.0"] == 4 and of_smol["+Inf"] == 5
    assert found["omni_time_to_first_token_seconds_count"][("smol",)] == 5
    sums = found["omni_time_to_first_token_seconds_sum"]
    assert sums[("smol",)] == pytest.approx(9.64 + 10**6)
    assert found["omni_e2e_request_latency_seconds_count"][("smol",)] == 6


def test_buckets_of_other_bounds_are_begun_again(admin: Client) -> None:
    RequestTotals.objects.create(deployment_name="smol", first_token_buckets=[1, 2])
    add_up(ended([40]))
    found = scraped(admin)
    assert found["omni_time_to_first_token_seconds_count"][("smol",)] == 1


def test_loads_of_engines_are_those_of_the_newest_ten_seconds(
    admin: Client, served: Deployment
) -> None:
    start_s = int(time.time() // 10 * 10)
    kept = ((start_s - 10, 10.0), (start_s, 25.0), (start_s - 3600, 99.0))
    for at_s, kv in kept:
        bucket = Bucket(subject_of(served.pk), "kv_percent", at_s, kv, kv, kv, 1)
        save_buckets(served.host, [bucket])
    found = scraped(admin)
    assert found["omni_kv_cache_usage_perc"] == {("served",): 0.25}
    assert "omni_generation_tokens_per_second" not in found


# --- cards and alerts -----------------------------------------------------------------------------
def test_cards_have_the_names_of_dcgm_and_no_line_for_what_they_do_not_tell(
    admin: Client, host: Host
) -> None:
    Gpu.objects.create(host=host, uuid="GPU-1", index=1, name="RTX 5090")
    Gpu.objects.create(host=host, uuid="GPU-2", index=2, name="Old", state="lost")
    card = CardSample(
        "GPU-1",
        "RTX 5090",
        memory_used_bytes=3 << 30,
        temperature_celsius=61,
        power_watts=350.5,
    )
    stand_in = CardSample("RPC0", "RPC0", is_stand_in=True, temperature_celsius=1)
    sample = Sample(1, HostSample(1.0, 1, 2, 0, 0.1), (card, stand_in), NvmlState("ok"))
    RecentWriter(host.name).add(sample.frame(), sample.point())
    found = scraped(admin)
    labels = (host.name, "GPU-1", "1", "RTX 5090")
    assert found["DCGM_FI_DEV_FB_USED"] == {labels: 3072}
    assert found["DCGM_FI_DEV_GPU_TEMP"] == {labels: 61}
    assert found["DCGM_FI_DEV_POWER_USAGE"] == {labels: 350.5}
    assert "DCGM_FI_DEV_GPU_UTIL" not in found
    assert found["omni_gpu_ok"] == {labels: 1, (host.name, "GPU-2", "2", "Old"): 0}


def test_alerts_that_fire_are_a_gauge(admin: Client, host: Host) -> None:
    now = timezone.now()
    usual = {"host": host, "name": "A", "severity": "error", "fired_at": now}
    Alert.objects.create(code="gpu_lost", subject="a", **usual)
    Alert.objects.create(code="disk", subject="b", cleared_at=now, **usual)
    assert scraped(admin)["omni_alerts_firing"] == {("gpu_lost", "error", "A"): 1}


# --- who may --------------------------------------------------------------------------------------
def test_a_scrape_token_reads_metrics_and_nothing_else(
    anonymous: Client, admin_user: User, settings: Any
) -> None:
    made, secret = scrape_token_make(name="prometheus", user=admin_user)
    assert secret not in str(vars(made))
    bearer = {"authorization": f"Bearer {secret}"}
    assert "omni_alerts_firing" not in scraped(anonymous, **bearer)
    assert anonymous.get("/alerts/", headers=bearer).status_code == 302
    ScrapeToken.objects.all().delete()
    assert anonymous.get("/metrics", headers=bearer).status_code == 401
    settings.OMNI_SCRAPE_TOKEN = "a token of the environment"
    scraped(anonymous, authorization="bearer a token of the environment")


def test_a_gateway_key_that_may_ask_for_everything_reads_metrics(
    anonymous: Client, admin_user: User
) -> None:
    def asked(**terms: Any) -> int:
        _, key = ApiKey.objects.create_key(name="k", owner=admin_user, **terms)
        headers = {"authorization": f"Bearer {key}"}
        answer = anonymous.get("/metrics", headers=headers)
        if answer.status_code != 200:
            assert b"Authorization: Bearer" in answer.content
        return answer.status_code

    assert asked() == 200
    assert asked(allowed_names=["smol"]) == 403
    assert asked(revoked=True) == 401
    assert asked(expiry_date=timezone.now() - timedelta(days=1)) == 401


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic eDp5",
        f"Bearer {'x' * 5000}",
        "Bearer \xe4.y",
    ],
)
def test_without_a_right_token_it_says_what_to_do_and_never_asks_to_log_in(
    anonymous: Client, db: None, sent: str
) -> None:
    answer = anonymous.get("/metrics", headers={"authorization": sent})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer["Content-Type"].startswith("text/plain")
    assert b"Authorization: Bearer TOKEN" in answer.content


def test_a_session_reads_metrics_where_it_is_an_administrators(
    admin: Client, operator: Client
) -> None:
    scraped(admin)
    assert operator.get("/metrics").status_code == 401
