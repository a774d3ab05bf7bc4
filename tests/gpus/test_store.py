"""Roll-ups in the database: all resolutions at once, read for a span, old ones deleted."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import OperationalError
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from gpus.buckets import prune_buckets, read_history, save_buckets
from gpus.link_history import last_under_load
from gpus.models import Gpu, HistoryBucket, HistorySubject, Host
from gpus.rollup import KEEP_S, Bucket, Figures, Roller, figures_in, packed, start_of
from gpus.sample import CardIdentity, CardSample, NvmlState
from gpus.store import Store

HOUR = 1_800_000_000 // 3600 * 3600


def bucket(start_s: int, mean: float, count: int = 20) -> Bucket:
    return Bucket("GPU-1", "power_watts", start_s, mean - 5, mean, mean + 5, count)


def rows(
    resolution_s: int, key: str = "GPU-1"
) -> list[tuple[int, float, float, float, int]]:
    found = HistoryBucket.objects.filter(resolution_s=resolution_s, subject__key=key)
    return [
        (row.start_s, each.minimum, each.mean, each.maximum, each.count)
        for row in found.order_by("start_s")
        for each in figures_in(row.figures).values()
    ]


def test_a_bucket_is_joined_in_every_resolution_at_once(host: Host) -> None:
    save_buckets(
        host, [bucket(HOUR + second, 100.0 + second) for second in range(0, 50, 10)]
    )
    assert len(rows(10)) == 5
    assert rows(60) == [(HOUR, 95.0, 120.0, 145.0, 100)]
    save_buckets(host, [bucket(HOUR + 50, 150.0)])
    assert rows(60) == rows(600) == [(HOUR, 95.0, 125.0, 155.0, 120)]


def test_a_bucket_in_two_parts_around_a_restart_is_whole(host: Host) -> None:
    save_buckets(host, [bucket(HOUR, 100.0, count=10)])
    save_buckets(host, [bucket(HOUR, 400.0, count=20)])
    for resolution_s in KEEP_S:
        [[_, *figures]] = rows(resolution_s)
        assert figures == [95.0, 300.0, 405.0, 30]


def test_metrics_that_come_later_have_places_of_their_own(host: Host) -> None:
    save_buckets(host, [bucket(HOUR, 100.0)])
    save_buckets(host, [Bucket("GPU-1", "clock_mhz", HOUR, 1, 2, 3, 4)])
    subject = HistorySubject.objects.get()
    assert subject.metrics == ["power_watts", "clock_mhz"]
    assert [row[1:] for row in rows(10)] == [(95, 100, 105, 20), (1, 2, 3, 4)]


def test_all_resolutions_are_written_or_none(host: Host) -> None:
    with (
        patch("gpus.buckets.packed", side_effect=[b"", OperationalError("full")]),
        pytest.raises(OperationalError),
    ):
        save_buckets(host, [bucket(HOUR, 100.0)])
    assert not HistoryBucket.objects.exists() and not HistorySubject.objects.exists()


values = st.floats(0, 1e9, width=32)
moments = st.integers(0, 8 * 3600 * 2)


@pytest.mark.django_db(transaction=True)
@settings_of(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(moments, values), min_size=1, max_size=80),
    st.sets(st.integers(0, 79)),
)
def test_what_is_kept_is_what_the_samples_make(
    samples: list[tuple[int, float]], writes: set[int]
) -> None:
    """Half seconds in any order; written now and then, each time by a new process."""
    Host.objects.all().delete()
    host, roller = Host.objects.create(name="other"), Roller()
    closed: list[Bucket] = []
    for number, (moment, value) in enumerate(samples):
        closed += roller.add(HOUR + moment / 2, {("GPU-1", "power_watts"): value})
        if number in writes:
            save_buckets(host, closed + roller.close())
            closed, roller = [], Roller()
    save_buckets(host, closed + roller.close())
    for resolution_s in KEEP_S:
        expected: dict[int, list[float]] = {}
        for moment, value in samples:
            start_s = start_of(HOUR + moment / 2, resolution_s)
            expected.setdefault(start_s, []).append(value)
        assert rows(resolution_s) == [
            (
                start_s,
                min(each),
                pytest.approx(sum(each) / len(each)),
                max(each),
                len(each),
            )
            for start_s, each in sorted(expected.items())
        ]


# --- reading --------------------------------------------------------------------------------------
def test_an_hour_is_read_in_tens_of_seconds_and_a_day_in_minutes(host: Host) -> None:
    save_buckets(host, [bucket(HOUR + second, 200.0) for second in range(0, 3600, 10)])
    subject, now_s = HistorySubject.objects.get(), HOUR + 3600
    hour = read_history(subject, HOUR, now_s, now_s)
    assert (hour.step_s, len(hour.starts)) == (10, 360)
    assert hour.metrics["power_watts"].mean == [200.0] * 360
    day = read_history(subject, now_s - 24 * 3600, now_s, now_s)
    assert (day.step_s, len(day.starts)) == (300, 12)
    assert day.metrics["power_watts"].count == [600] * 12
    assert read_history(subject, HOUR - 7200, HOUR - 3600, now_s).starts == []


def test_hours_of_an_older_version_are_shown_where_there_is_nothing_finer(
    host: Host,
) -> None:
    subject = HistorySubject.objects.create(host=host, key="RPC0", metrics=["x"])
    for day in range(30):
        HistoryBucket.objects.create(
            subject=subject,
            resolution_s=3600,
            start_s=HOUR - day * 24 * 3600,
            figures=packed({0: Figures(5, 1, 2, 3)}),
        )
    now_s = HOUR + 3600
    found = read_history(subject, now_s - 20 * 24 * 3600, now_s, now_s)
    assert (found.step_s, len(found.starts)) == (3600, 20)


# --- deleting -------------------------------------------------------------------------------------
def test_each_resolution_is_kept_for_its_own_time(host: Host) -> None:
    subject = HistorySubject.objects.create(host=host, key="GPU-1")
    for resolution_s, keep_s in KEEP_S.items():
        for age_s in (keep_s - 60, keep_s + 60):
            HistoryBucket.objects.create(
                subject=subject,
                resolution_s=resolution_s,
                start_s=HOUR - age_s,
                figures=b"",
            )
    assert prune_buckets(host, HOUR) is False
    kept = HistoryBucket.objects.values_list("resolution_s", flat=True)
    assert sorted(kept) == sorted(KEEP_S)


def test_a_few_are_deleted_at_a_time(host: Host) -> None:
    subject = HistorySubject.objects.create(host=host, key="GPU-1")
    HistoryBucket.objects.bulk_create(
        HistoryBucket(subject=subject, resolution_s=10, start_s=second, figures=b"")
        for second in range(25)
    )
    with patch("gpus.buckets.MOST_DELETED", 10):
        assert [prune_buckets(host, HOUR) for _ in range(3)] == [True, True, False]
    assert not HistoryBucket.objects.exists()


def test_one_step_writes_what_was_handed_over_and_reads_the_stand_ins(
    host: Host,
) -> None:
    store = Store(settings.OMNI_HOST_NAME)
    store.keep_rig(NvmlState("no_devices", "No card.", fix="Look."), ())
    store.keep_samples([bucket(HOUR, 50.0)], ())
    assert store.step()
    assert set(store.stand_ins) == {"RPC0", "RPC1"} and all(store.stand_ins.values())
    assert HistoryBucket.objects.count() == len(KEEP_S)
    host.refresh_from_db()
    assert (host.nvml_state, host.nvml_text, host.nvml_fix) == (
        "no_devices",
        "No card.",
        "Look.",
    )


def test_the_state_of_a_card_follows_what_was_sampled(host: Host) -> None:
    store = Store(settings.OMNI_HOST_NAME)
    store.keep_rig(NvmlState("ok"), (CardIdentity(0, "GPU-1", "RTX 5090"),))
    store.keep_samples(
        [bucket(HOUR, 50.0)],
        [CardSample("GPU-1", "RTX 5090", state="lost", error="Gone.")],
    )
    store.step()
    assert Gpu.objects.values_list("state", "error").get() == ("lost", "Gone.")
    store.keep_samples([bucket(HOUR + 10, 50.0)], [CardSample("GPU-1", "RTX 5090")])
    store.step()
    assert Gpu.objects.values_list("state", "error").get() == ("ok", "")


def test_what_a_database_does_not_take_is_kept_for_later(host: Host) -> None:
    store = Store(settings.OMNI_HOST_NAME)
    store.keep_samples([bucket(HOUR, 50.0)], ())
    with patch(
        "gpus.store.save_buckets", side_effect=OperationalError("database is locked")
    ):
        assert not store.step() and not store.step()
    store.keep_samples([bucket(HOUR + 10, 60.0)], ())
    assert store.step()
    assert [row[0] for row in rows(10)] == [HOUR, HOUR + 10]


@pytest.mark.django_db(transaction=True)
def test_the_thread_writes_by_itself_and_finishes_what_waits() -> None:
    store = Store(settings.OMNI_HOST_NAME)
    store.start()
    store.keep_samples([bucket(HOUR, 50.0)], ())
    store.stop(timeout_s=5)
    assert HistoryBucket.objects.count() == len(KEEP_S)


def test_the_link_under_load_is_read_from_the_last_hour(host: Host) -> None:
    def keep(at_s: int, busy: float, generation: int) -> None:
        figures = {
            "utilisation_percent": busy,
            "pcie_generation": generation,
            "pcie_width": 16,
        }
        save_buckets(
            host,
            [Bucket("GPU-1", name, at_s, v, v, v, 20) for name, v in figures.items()],
        )

    now_s = 1_700_000_000
    assert last_under_load(host, "GPU-1", now_s) is None
    keep(now_s - 4000, 90, 3)
    assert last_under_load(host, "GPU-1", now_s) is None
    keep(now_s - 600, 90, 4)
    keep(now_s - 300, 2, 1)
    seen = last_under_load(host, "GPU-1", now_s)
    assert seen and (seen.generation, seen.width, seen.at_s) == (4, 16, now_s - 600)
    keep(now_s - 60, 90, 5)
    mended = last_under_load(host, "GPU-1", now_s)
    assert mended and mended.generation == 5
    assert last_under_load(host, "GPU-1", now_s + 4000) is None
