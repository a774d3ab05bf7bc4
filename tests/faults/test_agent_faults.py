"""The fault table, on real processes: each row strikes once, and all end in what holds for every
fault."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.faults import rows_disk, rows_files, rows_parts, rows_signals
from tests.faults.rig import Rig
from tests.faults.table import Measured, Row

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]
ROWS = (*rows_signals.ROWS, *rows_parts.ROWS, *rows_files.ROWS, *rows_disk.ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_fault(row: Row, make_rig: Callable[[Row], Rig], measured: Measured) -> None:
    rig = make_rig(row)
    rig.reach(row.at)
    before = rig.record().get("pid") if row.at not in ("stopped", "crashed") else None
    began = time.monotonic()
    row.strike(rig)
    rig.until_end(row.ends, before, row.within_s)
    measured.add(row, _reached(rig, row, before), time.monotonic() - began)
    rig.check_end(row.ends, before)
    if rig.answer and row.at == "generating" and row.ends.is_same is not True:
        rig.answer.check_broken_off(by_somebody=row.ends == rows_files.GONE)
    rig.undo.close()
    if row.mend:
        row.mend(rig)
        rig.start()
        rig.until(lambda: rig.state == "ready", 30)
    if rig.state == "ready":
        rig.check_nothing_is_left_over()
    rig.check_clean_after_a_stop()


def _reached(rig: Rig, row: Row, before: int | None) -> str:
    if rig.state != "ready":
        return f"{rig.state} {row.ends.code}".strip()
    return "ready, same process" if rig.instance.pid == before else "ready, new process"


def test_no_two_rows_are_the_same_and_there_are_many() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 50
