"""Roll-ups in rows of all metrics of a subject; those that there are are kept.

Older versions had a row for each metric, in 10 s, 60 s and 3600 s.
"""

import struct
from typing import Any

import django.db.models.deletion
from django.db import migrations, models

# As gpus/rollup.py had them when this was written.
ENTRY = struct.Struct("<BIfdf")
RESOLUTIONS_S = (10, 60, 600, 3600, 21_600)
WRITTEN_AT_ONCE = 2000
# By bucket's start: by place of the metric: count, minimum, mean, maximum.
Buckets = dict[int, dict[int, tuple[int, float, float, float]]]


def convert(apps: Any, schema_editor: Any) -> None:
    old = apps.get_model("gpus", "SampleRollup").objects.order_by()
    subjects = apps.get_model("gpus", "HistorySubject").objects
    for host, card in old.values_list("host_id", "card").distinct():
        rows = old.filter(host=host, card=card)
        names = sorted(rows.values_list("metric", flat=True).distinct())
        subject = subjects.create(host_id=host, key=card, metrics=names)
        finer: Buckets = {}
        for resolution_s in RESOLUTIONS_S:
            buckets = _old(rows.filter(resolution_s=resolution_s), names)
            # What no row of this resolution says is joined from the finer ones.
            for start_s, figures in _joined(finer, resolution_s).items():
                buckets[start_s] = {**figures, **buckets.get(start_s, {})}
            _write(apps, subject, resolution_s, buckets)
            finer = buckets


def _old(rows: Any, names: list[str]) -> Buckets:
    found: Buckets = {}
    for row in rows.iterator(chunk_size=WRITTEN_AT_ONCE):
        figures = found.setdefault(int(row.start.timestamp()), {})
        figures[names.index(row.metric)] = (
            row.count,
            row.minimum,
            row.mean,
            row.maximum,
        )
    return found


def _joined(finer: Buckets, resolution_s: int) -> Buckets:
    found: Buckets = {}
    for start_s, figures in finer.items():
        into = found.setdefault(start_s // resolution_s * resolution_s, {})
        for place, (count, low, mean, high) in figures.items():
            if place in into:
                before, least, average, most = into[place]
                count += before
                mean = average + (mean - average) * (count - before) / count
                low, high = min(low, least), max(high, most)
            into[place] = count, low, mean, high
    return found


def _write(apps: Any, subject: Any, resolution_s: int, buckets: Buckets) -> None:
    model = apps.get_model("gpus", "HistoryBucket")
    rows = (
        model(
            subject=subject,
            resolution_s=resolution_s,
            start_s=start_s,
            figures=b"".join(
                ENTRY.pack(place, count, low, mean, high)
                for place, (count, low, mean, high) in sorted(figures.items())
            ),
        )
        for start_s, figures in sorted(buckets.items())
    )
    model.objects.bulk_create(rows, batch_size=WRITTEN_AT_ONCE)


class Migration(migrations.Migration):
    dependencies = [("gpus", "0008_host_problems")]

    operations = [
        migrations.CreateModel(
            name="HistorySubject",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                (
                    "key",
                    models.CharField(
                        help_text="GPU UUID, device name, 'host', or 'deployment:<id>'",
                        max_length=80,
                    ),
                ),
                (
                    "title",
                    models.CharField(
                        blank=True,
                        help_text="its name, which stays when it is deleted",
                        max_length=120,
                    ),
                ),
                ("metrics", models.JSONField(blank=True, default=list)),
                (
                    "host",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="history_subjects",
                        to="gpus.host",
                    ),
                ),
            ],
            options={
                "ordering": ("host", "key"),
                "constraints": [
                    models.UniqueConstraint(
                        fields=["host", "key"], name="history_subject_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="HistoryBucket",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("resolution_s", models.PositiveIntegerField()),
                ("start_s", models.BigIntegerField(help_text="seconds since 1970")),
                ("figures", models.BinaryField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="buckets",
                        to="gpus.historysubject",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=["subject", "resolution_s", "start_s"],
                        name="history_bucket_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="HistoryMark",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("started", "Started"),
                            ("stopped", "Stopped"),
                            ("crashed", "Crashed"),
                            ("run", "Benchmark"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "subject",
                    models.CharField(
                        blank=True,
                        help_text="key of the subject; empty: all of them",
                        max_length=80,
                    ),
                ),
                ("text", models.CharField(max_length=300)),
                (
                    "host",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="history_marks",
                        to="gpus.host",
                    ),
                ),
            ],
            options={
                "ordering": ("-at", "-pk"),
                "indexes": [
                    models.Index(fields=["host", "at"], name="history_mark_by_time")
                ],
            },
        ),
        migrations.RunPython(convert, migrations.RunPython.noop),
        migrations.DeleteModel(name="SampleRollup"),
    ]
