"""What requests wait for, as other processes see it: marks and counts in files."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from deployments.instances.demand import Demand, WaitingCounts


def test_a_mark_stays_as_it_was_until_it_is_cleared(tmp_path: Path) -> None:
    demand = Demand(tmp_path / "demand")
    assert demand.asked_for_s(7) is None
    demand.ask(7)
    os.utime(tmp_path / "demand" / "7.asked", (1.0, 1.0))
    demand.ask(7)
    waited_s = demand.asked_for_s(7)
    assert waited_s is not None and waited_s > 1e9
    demand.clear(7)
    demand.clear(7)
    assert demand.asked_for_s(7) is None


def test_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    one, other = WaitingCounts(tmp_path), WaitingCounts(tmp_path)
    assert Demand(tmp_path).waiting() == {}
    one.write({1: 2, 3: 120})
    other.write({1: 5})
    assert Demand(tmp_path).waiting() == {1: 7, 3: 120}
    one.write({1: 1})
    assert Demand(tmp_path).waiting() == {1: 6}
    other.close()
    assert Demand(tmp_path).waiting() == {1: 1}
    one.close()
    assert Demand(tmp_path).waiting() == {} and not list(tmp_path.iterdir())


def _counts_until_it_is_killed(folder: Path, said: Connection) -> None:
    WaitingCounts(folder).write({1: 9})
    said.send("written")
    signal.pause()


def test_a_process_that_is_killed_leaves_no_count(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_counts_until_it_is_killed, args=(tmp_path, there)
    )
    process.start()
    assert here.recv() == "written"
    assert Demand(tmp_path).waiting() == {1: 9}
    process.kill()
    process.join(10)
    assert Demand(tmp_path).waiting() == {} and not list(tmp_path.iterdir())
