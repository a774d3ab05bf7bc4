"""Roll-ups of a version before are kept: what they say is read where it was, and in the new
resolutions."""

from __future__ import annotations

import json
from pathlib import Path

from tests.upgrade.old_home import manage, old_home

DAY = 1_800_000_000 // 86_400 * 86_400
LOOK = """
import json
from gpus.models import HistoryBucket, HistorySubject
from gpus.rollup import figures_in
found = {}
for row in HistoryBucket.objects.select_related("subject").order_by("start_s"):
    for place, each in figures_in(row.figures).items():
        key = f"{row.subject.key} {row.subject.metrics[place]} {row.resolution_s}"
        found.setdefault(key, []).append(
            [row.start_s, each.minimum, round(each.mean, 6), each.maximum, each.count])
print(json.dumps(found))
"""


def row(metric: str, resolution_s: int, start_s: int, mean: float, count: int) -> str:
    return (
        "INSERT INTO gpus_samplerollup (card, metric, resolution_s, start, minimum, mean,"
        f" maximum, count, host_id) SELECT 'GPU-1', '{metric}', {resolution_s},"
        f" datetime({start_s}, 'unixepoch'), {mean - 1}, {mean}, {mean + 1}, {count}, id"
        " FROM gpus_host LIMIT 1"
    )


def test_nothing_that_was_kept_is_lost(tmp_path: Path) -> None:
    home = old_home(
        tmp_path,
        # An hour of which nothing finer is left, and one of which its minutes are.
        row("power_watts", 3600, DAY, 300, 7200),
        row("power_watts", 3600, DAY + 3600, 200, 240),
        row("power_watts", 60, DAY + 3600, 100, 120),
        row("power_watts", 60, DAY + 3660, 300, 120),
        # The hour that was not over, with its last minute.
        row("power_watts", 60, DAY + 7200, 50, 120),
        row("power_watts", 10, DAY + 7260, 80, 40),
        row("temperature_celsius", 10, DAY + 7260, 60, 20),
    )
    manage(home, "migrate", "-v0")
    found = json.loads(manage(home, "shell", "-v0", "-c", LOOK).splitlines()[-1])
    assert found == {
        "GPU-1 power_watts 10": [[DAY + 7260, 79, 80, 81, 40]],
        "GPU-1 power_watts 60": [
            [DAY + 3600, 99, 100, 101, 120],
            [DAY + 3660, 299, 300, 301, 120],
            [DAY + 7200, 49, 50, 51, 120],
            [DAY + 7260, 79, 80, 81, 40],
        ],
        "GPU-1 power_watts 600": [
            [DAY + 3600, 99, 200, 301, 240],
            [DAY + 7200, 49, 57.5, 81, 160],
        ],
        "GPU-1 power_watts 3600": [
            [DAY, 299, 300, 301, 7200],
            [DAY + 3600, 199, 200, 201, 240],
            [DAY + 7200, 49, 57.5, 81, 160],
        ],
        "GPU-1 power_watts 21600": [
            [DAY, 49, round((300 * 7200 + 200 * 240 + 57.5 * 160) / 7600, 6), 301, 7600]
        ],
        "GPU-1 temperature_celsius 10": [[DAY + 7260, 59, 60, 61, 20]],
        **{
            f"GPU-1 temperature_celsius {resolution_s}": [
                [(DAY + 7260) // resolution_s * resolution_s, 59, 60, 61, 20]
            ]
            for resolution_s in (60, 600, 3600, 21_600)
        },
    }
