"""Roll-ups in the database: finest at once, coarser when their time is over, old ones pruned."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from gpus.models import Gpu, Host, SampleRollup
from gpus.rollup import KEEP_S, Bucket
from gpus.sample import CardIdentity, CardSample, NvmlState
from gpus.store import Store, prune, save_buckets

HOUR = 1_800_000_000 // 3600 * 3600


def bucket(start_s: int, mean: float, count: int = 20) -> Bucket:
    return Bucket("GPU-1", "power_watts", start_s, mean - 5, mean, mean + 5, count)


def rows(resolution_s: int) -> list[tuple[int, float, float, float, int]]:
    found = SampleRollup.objects.filter(resolution_s=resolution_s).order_by("start")
    return [
        (int(r.start.timestamp()), r.minimum, r.mean, r.maximum, r.count) for r in found
    ]


def test_a_minute_is_written_when_its_last_part_has_come(host: Host) -> None:
    save_buckets(
        host, [bucket(HOUR + second, 100.0 + second) for second in range(0, 50, 10)]
    )
    assert len(rows(10)) == 5 and rows(60) == []
    save_buckets(host, [bucket(HOUR + 50, 150.0)])
    assert rows(60) == [(HOUR, 95.0, 125.0, 155.0, 120)]


def test_an_hour_is_written_when_its_last_minute_has_come(host: Host) -> None:
    save_buckets(host, [bucket(HOUR + second, 200.0) for second in range(0, 3600, 10)])
    assert rows(3600) == [(HOUR, 195.0, 200.0, 205.0, 7200)]


def test_writing_a_bucket_again_replaces_it(host: Host) -> None:
    save_buckets(host, [bucket(HOUR, 100.0)])
    save_buckets(host, [bucket(HOUR, 300.0)])
    assert rows(10) == [(HOUR, 295.0, 300.0, 305.0, 20)]


def test_each_resolution_is_kept_for_its_own_time(host: Host) -> None:
    for resolution_s, keep_s in KEEP_S.items():
        for age_s in (keep_s - 60, keep_s + 60):
            SampleRollup.objects.create(
                host=host,
                card="GPU-1",
                metric="power_watts",
                resolution_s=resolution_s,
                start=timezone.now() - timedelta(seconds=age_s),
                minimum=1,
                mean=1,
                maximum=1,
                count=1,
            )
    prune(host)
    assert sorted(
        SampleRollup.objects.values_list("resolution_s", flat=True)
    ) == sorted(KEEP_S)


def test_one_step_writes_what_was_handed_over_and_reads_the_stand_ins(
    host: Host,
) -> None:
    store = Store(settings.OMNI_HOST_NAME)
    store.keep_rig(NvmlState("no_devices", "No card.", fix="Look."), ())
    store.keep_samples([bucket(HOUR, 50.0)], ())
    assert store.step()
    assert set(store.stand_ins) == {"RPC0", "RPC1"} and all(store.stand_ins.values())
    assert SampleRollup.objects.count() == 1
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
    assert SampleRollup.objects.count() == 1
