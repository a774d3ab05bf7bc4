"""The page that shows predictions beside what was measured."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import BenchmarkRun, Measurement, Model
from deployments.planning.corrections import Rate
from deployments.services.accuracy import accuracy_of
from gpus.models import Host
from tests.helpers import squeezed


def measured(host: Host, model: Model, decode: float | None, **fields: object) -> None:
    """Of what was computed as 10 tokens/s, on the first stand-in."""
    known: dict[str, object] = {
        "deployment_name": "small",
        "strategy": "independent",
        "devices": ["RPC0"],
        "flavour": "llama.cpp",
        "build": "b6123",
        "number_format": "Q4_1",
        "is_benchmark": True,
        "requests": 40,
        "decode_tps": decode,
        "computed_decode_tps": 10.0,
        "predicted_decode_tps": 10.0,
    }
    Measurement.objects.create(host=host, model=model, **(known | fields))


def shown(client: Client) -> str:
    answer = client.get("/plan/accuracy/")
    assert answer.status_code == 200, answer.content
    return squeezed(answer.content.decode())


def test_without_measurements_it_says_how_to_get_them(
    viewer: Client, host: Host
) -> None:
    page = shown(viewer)
    assert (
        "Nothing has been measured yet" in page and "<strong>Measure</strong>" in page
    )
    assert 'class="plane-plot"' not in page


def test_predictions_stand_beside_measurements_and_get_better(
    viewer: Client, host: Host, model: Model
) -> None:
    for number in range(6):
        measured(host, model, 5.0 + 0.1 * (number % 2))
    page = shown(viewer)
    assert (
        "The last 3 of 6 predictions of answers were 2 % off in the median; the first 3 were 2 %"
        " off. Uncorrected, the last 3 would have been 96 % off."
    ) in page
    assert "Of 5 speeds with a predicted range 5 lay in it: 100 %" in page
    assert "Errors of predicted answers in time order" in page
    assert "Errors of predicted prompts" not in page
    assert len(re.findall(r"M\d+ \d+h0", page)) >= 24


def test_the_correction_stands_by_device_build_and_format(
    viewer: Client, host: Host, model: Model
) -> None:
    measured(host, model, 5.0)
    measured(host, model, 8.0, build="b7000", devices=["RPC0", "RPC1"])
    page = shown(viewer)
    groups = page.split("<article")[1:]
    assert len(groups) == 2
    assert all(
        words in groups[0]
        for words in ("RPC0, RPC1", "llama.cpp b7000", "Q4_1", "0.8×")
    )
    assert "b6123" in groups[1] and "0.5×" in groups[1]
    assert "5 tokens/s measured" in groups[1] and "100 % too fast" in groups[1]


def test_rows_of_earlier_versions_say_what_they_did_not_keep(
    viewer: Client, host: Host, model: Model
) -> None:
    measured(host, model, 5.0, flavour="", build="", number_format="")
    page = shown(viewer)
    assert "engine not kept" in page and "format not kept" in page


def test_one_run_of_a_benchmark_says_nothing_of_the_others(
    host: Host, model: Model
) -> None:
    run = BenchmarkRun.objects.create(host=host, most_rounds=1)
    for name in ("a", "b"):
        measured(host, model, 5.0, run=run, deployment_name=name)
    measured(host, model, 5.0)
    runs = accuracy_of(host).runs
    assert [each.checks[Rate.DECODE].predicted for each in runs] == [10.0, 10.0, 5.0]


@pytest.mark.parametrize(("is_before", "predicted"), [(True, 10.0), (False, 5.0)])
def test_what_was_computed_from_an_older_reading_of_the_memory_corrects_nothing(
    host: Host, model: Model, is_before: bool, predicted: float
) -> None:
    for _ in range(2):
        measured(host, model, 5.0, devices=["CPU"])
    first, last = Measurement.objects.order_by("id")
    Measurement.objects.filter(pk=first.pk).update(at=last.at - timedelta(hours=2))
    since = timedelta(hours=1) if is_before else timedelta(hours=3)
    Host.objects.update(ram_measured_at=timezone.now() - since)
    host.refresh_from_db()
    assert accuracy_of(host).runs[-1].checks[Rate.DECODE].predicted == predicted


@pytest.mark.parametrize("address", ["/", "/plan/"])
def test_it_is_reached_from_the_first_page_and_from_the_plan_page(
    viewer: Client, host: Host, address: str
) -> None:
    page = viewer.get(address).content.decode()
    assert page.count('href="/plan/accuracy/"') == 1
