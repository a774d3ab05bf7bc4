"""The fault table of a whole panel: web server, agent, broker, sampler, engine as `make up` starts
them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import processes, rows_bench, rows_panel
from tests.faults.panel_rig import FaultPanel, PanelRig
from tests.faults.table import Measured, Row

ROWS = (*rows_panel.ROWS, *rows_bench.ROWS)
DISK_BYTES = 256 << 20

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelRig]:
    """One panel goes through all rows. Its home is a disk of its own where that is possible."""
    panel = FaultPanel(tmp_path_factory.mktemp("faults") / "home", is_prepared=True)
    with own_disk(panel.home):
        panel.start()
        made = PanelRig(panel)
        made.prepare()
        yield made
        panel.stop()


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    size = f"size={DISK_BYTES},mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_fault(row: Row, rig: PanelRig, measured: Measured) -> None:
    rig.reach(row.at)
    before, was_restarted = rig.pid, rig.restarts
    began = time.monotonic()
    row.strike(rig)
    ends = row.ends
    rig.until(
        lambda: (
            rig.state == ends.state
            and (ends.is_same is not False or rig.pid not in (None, before))
        ),
        row.within_s,
    )
    is_same = rig.pid == before
    measured.add(
        row,
        f"{rig.state}, {'same' if is_same else 'new'} process",
        time.monotonic() - began,
    )
    if ends.is_same is not None and ends.state == "ready":
        assert is_same == ends.is_same
    if ends.restarts is not None:
        assert rig.restarts == was_restarted + ends.restarts
    if rig.answer and ends.is_same:
        rig.answer.goes_on()
    rig.hang_up()
    rig.check_nothing_is_left_over()
    if ends.state == "stopped":
        rig.check_clean_after_a_stop()


def test_after_all_of_them_a_stop_leaves_nothing(rig: PanelRig) -> None:
    rig.reach("ready")
    rig.check_clean_after_a_stop()
    assert rig.panel.process
    rig.panel.process.send_signal(signal.SIGINT)
    assert rig.panel.process.wait(30) == 0, rig.panel.said()
    assert rig.panel.processes() == [] and processes.found(rig.run) == []
