"""How fast the memory is: when it is measured, and which reading is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gpus import discovery
from gpus.models import Host
from gpus.ram import Reading, better, is_due, is_quiet_now, measure_ram

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
QUIET, BUSY = Reading(236.0, 2.0), Reading(2.3, 90.0)


def test_a_reading_is_plausible_and_says_how_busy_the_machine_was() -> None:
    found = measure_ram(2)
    assert 0.5 < found.gbps < 5000 and 0 <= found.busy_percent <= 100


@pytest.mark.parametrize(
    ("reading", "age", "factor", "due"),
    [
        (None, timedelta(0), None, True),
        (BUSY, timedelta(minutes=1), None, True),
        (QUIET, timedelta(days=30), None, False),
        (QUIET, timedelta(days=30), 1.3, False),
        (QUIET, timedelta(days=30), 3.5, True),
        (QUIET, timedelta(days=30), 0.2, True),
        # What is still off after a quiet reading has another cause.
        (QUIET, timedelta(hours=1), 3.5, False),
    ],
)
def test_it_is_measured_again_after_load_and_when_predictions_are_off(
    reading: Reading | None, age: timedelta, factor: float | None, due: bool
) -> None:
    assert is_due(reading, NOW - age, NOW, factor) == due


@pytest.mark.parametrize(
    ("kept", "new", "wanted"),
    [
        (None, BUSY, BUSY),
        (BUSY, QUIET, QUIET),
        (QUIET, Reading(180.0, 1.0), Reading(180.0, 1.0)),
        (QUIET, BUSY, QUIET),
        (BUSY, Reading(7.5, 60.0), Reading(7.5, 60.0)),
        (Reading(7.5, 60.0), BUSY, Reading(7.5, 60.0)),
    ],
)
def test_a_quiet_reading_wins_and_of_two_under_load_the_faster(
    kept: Reading | None, new: Reading, wanted: Reading
) -> None:
    assert better(kept, new) == wanted


@pytest.mark.parametrize(("busy", "quiet"), [(3.0, True), (80.0, False)])
def test_a_busy_machine_is_left_alone(busy: float, quiet: bool) -> None:
    assert is_quiet_now(lambda seconds: busy) == quiet


def test_a_reading_of_an_older_version_counts_as_taken_under_load(host: Host) -> None:
    host.ram_bandwidth_gbps = 2.3
    assert host.ram_reading == Reading(2.3, 100.0) and not host.ram_was_quiet


def test_what_was_measured_is_kept_with_its_moment(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "measure_ram", lambda: QUIET)
    discovery.measure_memory(host)
    kept = Host.objects.get(pk=host.pk)
    assert kept.ram_reading == QUIET and kept.ram_was_quiet and kept.ram_measured_at
