"""Predictions fitted to what this rig did, and the reading of its memory that they rest on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from deployments.models import Measurement, Model
from deployments.planning.corrections import Rate, Subject
from deployments.services import fitting
from gpus import discovery
from gpus.models import Host
from gpus.ram import Reading

QUIET = Reading(10.0, 1.0)


@pytest.fixture
def measured(host: Host, model: Model, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each measuring of the memory, on a machine with nothing else to do."""
    done: list[str] = []

    def measure() -> Reading:
        done.append("memory")
        return QUIET

    monkeypatch.setattr(discovery, "measure_ram", measure)
    monkeypatch.setattr(fitting, "is_quiet_now", lambda: True)
    return done


def answered(
    host: Host, model: Model, device: str, rate: float, computed: float
) -> None:
    Measurement.objects.create(
        host=host,
        model=model,
        deployment_name="m",
        strategy="independent",
        devices=[device],
        decode_tps=rate,
        computed_decode_tps=computed,
    )


def kept(host: Host, reading: Reading, days: int) -> None:
    host.ram_bandwidth_gbps, host.ram_busy_percent = reading.gbps, reading.busy_percent
    host.ram_measured_at = timezone.now() - timedelta(days=days)
    host.save()


def test_a_reading_under_load_is_taken_again(host: Host, measured: list[str]) -> None:
    kept(host, Reading(2.3, 90.0), 0)
    assert fitting.keep_ram_measured(host) and not fitting.keep_ram_measured(host)
    assert (
        measured == ["memory"]
        and Host.objects.get(pk=host.pk).ram_bandwidth_gbps == 10.0
    )


def test_a_quiet_reading_of_today_needs_no_look_at_what_was_measured(
    host: Host, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    kept(host, QUIET, 0)
    with django_assert_num_queries(1):
        assert not fitting.keep_ram_measured(host)


def test_a_machine_at_work_is_not_measured(
    host: Host, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "is_quiet_now", lambda: False)
    kept(host, Reading(2.3, 90.0), 0)
    assert not fitting.keep_ram_measured(host) and not measured


def test_answers_far_from_what_was_computed_call_for_another_reading(
    host: Host, model: Model, measured: list[str]
) -> None:
    kept(host, QUIET, 3)
    answered(host, model, "CPU", 10.0, 9.0)
    assert not fitting.keep_ram_measured(host)
    for _ in range(3):
        answered(host, model, "CPU", 40.0, 9.0)
    assert fitting.keep_ram_measured(host) and measured == ["memory"]


def ratio_of(host: Host, device: str) -> float | None:
    past = fitting.past_of(host)
    found = past.device_correction(device, Subject((), ""), Rate.DECODE)
    return found.ratio if found else None


def test_answers_from_before_a_reading_correct_nothing_that_rests_on_it(
    host: Host, model: Model
) -> None:
    """They were computed from another speed of the memory."""
    answered(host, model, "CPU", 40.0, 10.0)
    assert ratio_of(host, "CPU") == 4.0
    kept(host, QUIET, 0)
    assert ratio_of(host, "CPU") is None
    answered(host, model, "CPU", 12.0, 10.0)
    assert ratio_of(host, "CPU") == pytest.approx(1.2)
