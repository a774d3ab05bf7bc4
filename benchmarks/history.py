"""A year of history for 8 GPUs and 10 deployments: its size on disk, and what charts, pages, writes
and deletions of it take.

    python benchmarks/history.py [--gpus 8] [--deployments 10]

SQLite in a folder of its own, or the empty database that OMNI_TEST_DATABASE_URL names. The limits
are printed beside the figures; ends with 1 when one is passed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import postgres  # noqa: E402

QUERY_LIMIT_MS, PAGE_LIMIT_MS = 50.0, 200.0
ROUNDS = 7
DAY_S = 24 * 3600
SPANS = {
    "15 min": 900,
    "1 h": 3600,
    "24 h": DAY_S,
    "7 d": 7 * DAY_S,
    "30 d": 30 * DAY_S,
    "90 d": 90 * DAY_S,
    "1 y": 365 * DAY_S,
}
# As many as the reader has for a card, and as are read of a deployment and the host.
METRICS = {"GPU": 15, "deployment": 8, "host": 4}
ROWS_AT_ONCE = 5000
DIFFERENT_ROWS = 500


def subjects(gpus: int, deployments: int) -> Iterator[tuple[str, str, list[str]]]:
    """Key, kind and metrics."""
    names = {
        kind: [f"{kind}_metric_{n}" for n in range(METRICS[kind])] for kind in METRICS
    }
    yield "host", "host", names["host"]
    for number in range(gpus):
        yield f"GPU-{number:08}-0000-0000-0000-000000000000", "GPU", names["GPU"]
    for number in range(deployments):
        yield f"deployment:{number}", "deployment", names["deployment"]


def fill(gpus: int, deployments: int, now_s: int) -> int:
    """Every bucket that is kept of everything; how many rows that is."""
    from django.db import connection, transaction

    from gpus.models import HistorySubject, Host
    from gpus.rollup import KEEP_S, Figures, packed

    random, count = Random(7), 0
    host = Host.objects.create(name="testhost")
    insert = (
        "INSERT INTO gpus_historybucket (subject_id, resolution_s, start_s, figures)"
        " VALUES (%s, %s, %s, %s)"
    )
    for key, _, metrics in subjects(gpus, deployments):
        row = HistorySubject.objects.create(
            host=host, key=key, title=key, metrics=metrics
        )
        made = [
            packed(
                {
                    place: Figures(
                        20, 100 * random.random(), 100.0, 200 * random.random()
                    )
                    for place in range(len(metrics))
                }
            )
            for _ in range(DIFFERENT_ROWS)
        ]
        rows = (
            (
                row.pk,
                resolution_s,
                start_s,
                made[start_s // resolution_s % DIFFERENT_ROWS],
            )
            for resolution_s, keep_s in KEEP_S.items()
            for start_s in range(
                (now_s - keep_s) // resolution_s * resolution_s, now_s, resolution_s
            )
        )
        with transaction.atomic(), connection.cursor() as cursor:
            for part in batched_rows(rows):
                cursor.executemany(insert, part)
                count += len(part)
    return count


def batched_rows(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part


def disk_bytes() -> int:
    """Of the whole database, tables and indexes."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Path(connection.settings_dict["NAME"]).stat().st_size
        cursor.execute("VACUUM ANALYZE gpus_historybucket")
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def median_ms(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


class Report:
    """Prints figures and remembers whether one was over its limit."""

    def __init__(self) -> None:
        self.is_slow = False

    def line(
        self, what: str, ms: float, limit_ms: float = float("inf"), more: str = ""
    ) -> None:
        is_over = ms > limit_ms
        self.is_slow |= is_over
        print(f"  {what:44} {ms:8.1f} ms{'  OVER' if is_over else ''}  {more}")


def measure_queries(report: Report, now_s: int) -> None:
    from gpus.buckets import read_history
    from gpus.models import HistorySubject

    print(f"chart query, all metrics of a subject (limit {QUERY_LIMIT_MS:.0f} ms)")
    for key in ("GPU-00000003-0000-0000-0000-000000000000", "deployment:3"):
        subject = HistorySubject.objects.get(key=key)
        for name, span_s in SPANS.items():
            found = read_history(subject, now_s - span_s, now_s, now_s)
            ms = median_ms(
                lambda subject=subject, span_s=span_s: read_history(
                    subject, now_s - span_s, now_s, now_s
                )
            )
            more = f"{len(found.starts)} points of {found.step_s} s, {len(found.metrics)} metrics"
            report.line(f"{key[:14]} {name}", ms, QUERY_LIMIT_MS, more)


def measure_pages(report: Report, now_s: int) -> None:
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.create_superuser("benchmark"))
    key = "GPU-00000003-0000-0000-0000-000000000000"
    print(f"pages (limit {PAGE_LIMIT_MS:.0f} ms)")
    addresses = {"page": f"/history/?subject={key}"}
    for name, span_s in SPANS.items():
        query = f"subject={key}&from={now_s - span_s}&to={now_s}"
        addresses[f"points, {name}"] = f"/history/points.json?{query}"
    for name, address in addresses.items():
        answer = client.get(address)
        assert answer.status_code == 200, answer.content
        ms = median_ms(lambda address=address: client.get(address))
        report.line(name, ms, PAGE_LIMIT_MS, f"{len(answer.content) / 1024:.0f} KiB")


def measure_writes(report: Report, gpus: int, deployments: int, now_s: int) -> None:
    from gpus.buckets import prune_buckets, save_buckets
    from gpus.models import Host
    from gpus.rollup import Bucket

    host, at_s = Host.objects.get(), now_s

    def write() -> None:
        nonlocal at_s
        at_s += 10
        save_buckets(
            host,
            [
                Bucket(key, metric, at_s, 1.0, 2.0, 3.0, 20)
                for key, _, metrics in subjects(gpus, deployments)
                for metric in metrics
            ],
        )

    print("writes")
    report.line("ten seconds of everything, all resolutions", median_ms(write))
    later_s = now_s + 3600
    report.line(
        "one step of deleting what is an hour too old",
        median_ms(lambda: prune_buckets(host, later_s)),
    )


def measure(gpus: int, deployments: int) -> int:
    now_s = int(time.time()) // 21_600 * 21_600
    empty = disk_bytes()
    began = time.perf_counter()
    count = fill(gpus, deployments, now_s)
    print(f"{gpus} GPUs, {deployments} deployments: {count:,} rows")
    size = disk_bytes() - empty
    print(f"  on disk: {size / (1 << 20):.0f} MiB, {size / count:.0f} bytes a row")
    print(f"  (filled in {time.perf_counter() - began:.0f} s)")
    report = Report()
    measure_queries(report, now_s)
    measure_pages(report, now_s)
    measure_writes(report, gpus, deployments, now_s)
    return int(report.is_slow)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    words.add_argument("--gpus", type=int, default=8)
    words.add_argument("--deployments", type=int, default=10)
    chosen = words.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"OMNI_HOME": home, "OMNI_HOST_NAME": "testhost"}
        os.environ |= postgres.own_database("history_benchmark")
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        return measure(chosen.gpus, chosen.deployments)


if __name__ == "__main__":
    sys.exit(main())
