"""Doors: requests pass while they are open, and are shut only while nobody is inside."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployments.instances.drain import Doors, DoorShut, Entrance
from tests.helpers import wait_until

INSIDE = """
import sys, time
from pathlib import Path
from deployments.instances.drain import Entrance
with Entrance(Path(sys.argv[1])).passing(7):
    print("inside", flush=True)
    time.sleep(600)
"""


def test_a_door_is_shut_only_while_nobody_is_inside(tmp_path: Path) -> None:
    entrance, doors = Entrance(tmp_path), Doors(tmp_path)
    with entrance.passing(1), entrance.passing(1):
        assert not doors.shut(1)
        assert doors.shut(2), "another deployment's door"
    assert doors.shut(1) and doors.shut(1)
    with pytest.raises(DoorShut), entrance.passing(1):
        raise AssertionError("somebody came in through a shut door")
    doors.open(1)
    with entrance.passing(1):
        assert not doors.shut(1)


def test_one_that_leaves_does_not_let_the_others_down(tmp_path: Path) -> None:
    entrance, doors = Entrance(tmp_path), Doors(tmp_path)
    first, second = entrance.passing(1), entrance.passing(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not doors.shut(1)
    second.__exit__(None, None, None)
    assert doors.shut(1)


def test_a_killed_process_holds_no_door(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    doors = Doors(tmp_path)
    try:
        assert process.stdout and process.stdout.readline() == "inside\n"
        assert not doors.shut(7)
    finally:
        process.kill()
        process.wait(10)
    assert doors.shut(7)


def test_each_request_leaves_its_mark(tmp_path: Path) -> None:
    entrance, doors = Entrance(tmp_path), Doors(tmp_path)
    marks = [doors.used_ns(1)]
    for _ in range(2):
        with entrance.passing(1):
            marks.append(doors.used_ns(1))
        wait_until(
            lambda: doors.used_ns(1) > marks[-1],
            5,
            "leaving is no use",
            interval_s=0.005,
        )
        marks.append(doors.used_ns(1))
    assert marks[0] == 0 and marks == sorted(marks)


def test_many_threads_in_and_out_end_with_nobody_inside(tmp_path: Path) -> None:
    entrance, doors, refused = Entrance(tmp_path), Doors(tmp_path), []

    def come_and_go() -> None:
        for _ in range(200):
            try:
                with entrance.passing(1):
                    assert not doors.shut(1)
            except DoorShut:
                refused.append(1)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not refused and doors.shut(1)
