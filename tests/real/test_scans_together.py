"""Looking for engines and models several times at once, on a machine where nothing was found
yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.panel import RunningPanel

pytestmark = pytest.mark.timeout(240)
SCANS = 4


def test_scans_at_the_same_time_all_find_everything_once(
    fresh_panel: RunningPanel,
) -> None:
    made = fresh_panel.manage("migrate", "--verbosity", "0")
    assert made.returncode == 0, made.stderr
    with ThreadPoolExecutor(SCANS) as pool:
        found = list(pool.map(lambda _: fresh_panel.document("scan"), range(SCANS)))
    assert [document["models"] for document in found] == [found[0]["models"]] * SCANS
    assert [model.get("error") for model in found[0]["models"]] == [None]
    devices = [device["name"] for device in fresh_panel.document("status")["devices"]]
    assert sorted(devices) == sorted(set(devices))
    assert {"CPU", "RPC0", "RPC1"} <= set(devices)
