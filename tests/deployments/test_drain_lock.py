"""The drain lock: requests pass while nobody has it, and it is taken only while none passes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deployments.instances.drain import Draining, DrainLocks, RequestLocks
from tests.helpers import wait_until

INSIDE = """
import sys, time
from pathlib import Path
from deployments.instances.drain import RequestLocks
with RequestLocks(Path(sys.argv[1])).held(7):
    print("inside", flush=True)
    time.sleep(600)
"""


def test_drain_lock_while_a_request_is_in_flight_is_not_acquired(
    tmp_path: Path,
) -> None:
    request_locks, drain_locks = RequestLocks(tmp_path), DrainLocks(tmp_path)
    with request_locks.held(1), request_locks.held(1):
        assert not drain_locks.acquire(1)
        assert drain_locks.acquire(2), "another deployment's lock"
    assert drain_locks.acquire(1) and drain_locks.acquire(1)
    with pytest.raises(Draining), request_locks.held(1):
        raise AssertionError("a request passed while draining")
    drain_locks.release(1)
    with request_locks.held(1):
        assert not drain_locks.acquire(1)


def test_one_that_leaves_does_not_let_the_others_down(tmp_path: Path) -> None:
    request_locks, drain_locks = RequestLocks(tmp_path), DrainLocks(tmp_path)
    first, second = request_locks.held(1), request_locks.held(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not drain_locks.acquire(1)
    second.__exit__(None, None, None)
    assert drain_locks.acquire(1)


def test_request_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    drain_locks = DrainLocks(tmp_path)
    try:
        assert process.stdout and process.stdout.readline() == "inside\n"
        assert not drain_locks.acquire(7)
    finally:
        process.kill()
        process.wait(10)
    assert drain_locks.acquire(7)


def test_each_request_leaves_its_mark(tmp_path: Path) -> None:
    request_locks, drain_locks = RequestLocks(tmp_path), DrainLocks(tmp_path)
    marks = [drain_locks.last_used_ns(1)]
    for _ in range(2):
        with request_locks.held(1):
            marks.append(drain_locks.last_used_ns(1))
        wait_until(
            lambda: drain_locks.last_used_ns(1) > marks[-1],
            5,
            "leaving is no use",
            interval_s=0.005,
        )
        marks.append(drain_locks.last_used_ns(1))
    assert marks[0] == 0 and marks == sorted(marks)


def test_many_threads_in_and_out_end_with_nobody_inside(tmp_path: Path) -> None:
    request_locks, drain_locks, refused = (
        RequestLocks(tmp_path),
        DrainLocks(tmp_path),
        [],
    )

    def come_and_go() -> None:
        for _ in range(200):
            try:
                with request_locks.held(1):
                    assert not drain_locks.acquire(1)
            except Draining:
                refused.append(1)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not refused and drain_locks.acquire(1)
