"""Full and read-only disks, and a machine without processes or file descriptors to give."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL, SIGSEGV
from unittest.mock import patch

import pytest
from django.conf import settings

from deployments.supervision import process
from deployments.supervision.instance_lock import is_held
from deployments.supervision.observe import http_health
from tests.faults.answers import Answer
from tests.faults.rig import Rig
from tests.faults.table import UNTOUCHED, Ends, Row

TINY_BYTES = 128 << 10


def mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of 128 KiB; yields the file that fills it."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted("-t", "tmpfs", "-o", f"size={TINY_BYTES}", "tmpfs", str(folder))
    try:
        yield folder / "filler"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(filler: Path, leave_bytes: int = 0) -> None:
    """Until nothing more goes in."""
    room = os.statvfs(filler.parent)
    with filler.open("wb", buffering=0) as file:
        left = room.f_bavail * room.f_frsize - leave_bytes
        while left > 0:
            left -= file.write(bytes(min(left, 4096)))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mounted over itself: a file system with files open for writing cannot become read-only."""
    mounted("--bind", str(folder), str(folder))
    mounted("-o", "remount,ro,bind", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def log_disk_is_full(rig: Rig) -> None:
    """The engine starts and answers all the same; what was lost is said as soon as there is
    room."""
    filler = rig.at_last.enter_context(tiny_disk(settings.OMNI_HOME.logs / "instances"))
    fill(filler, leave_bytes=8192)
    rig.start()
    rig.until(lambda: rig.state == "ready", 30)
    log = Path(rig.instance.log_path)
    assert "bytes of log lost" not in log.read_text(errors="replace")
    filler.unlink()
    rig.ask()
    rig.until(
        lambda: "bytes of log lost: disk full" in log.read_text(errors="replace"), 10
    )


def disk_is_full_at_a_start(rig: Rig) -> None:
    filler = rig.undo.enter_context(tiny_disk(rig.run / "instances"))
    fill(filler)
    rig.undo.callback(filler.unlink)
    rig.start()


def disk_is_full_at_a_start_and_has_room_again(rig: Rig) -> None:
    filler = rig.at_last.enter_context(tiny_disk(rig.run / "instances"))
    fill(filler)
    rig.start()
    rig.until(lambda: "no_room" in rig.pages, 10)
    filler.unlink()


def disk_gets_full_while_it_runs(rig: Rig) -> None:
    filler = rig.at_last.enter_context(tiny_disk(rig.run / "instances"))
    rig.start()
    rig.until(lambda: rig.state == "ready", 30)
    first = rig.instance.pid
    fill(filler)
    rig.signal(SIGSEGV)  # what it ended with is written down all the same
    rig.until(
        lambda: rig.state == "ready" and rig.instance.pid not in (None, first), 30
    )
    filler.unlink()


def home_is_read_only_for_a_while(rig: Rig) -> None:
    folder = rig.run / "instances"
    rig.start()
    rig.until(lambda: rig.state == "ready", 30)
    with read_only(folder):
        for _ in range(5):
            rig.tick()
        assert rig.instance.restarts == 0 and rig.state == "ready"
        rig.signal(SIGKILL)
        rig.until(lambda: "no_room" in rig.pages, 20)


def slots_disk_is_full(rig: Rig) -> None:
    """A prompt that cannot be handed over is read by the instance that answers."""
    filler = rig.at_last.enter_context(tiny_disk(settings.OMNI_HOME.slots))
    rig.start()
    rig.until(lambda: rig.state == "ready", 40)
    fill(filler)
    answered(rig)
    filler.unlink()


def slots_folder_is_deleted(rig: Rig) -> None:
    shutil.rmtree(settings.OMNI_HOME.slots / rig.deployment.name)
    answered(rig)


def answered(rig: Rig) -> None:
    """In full, though the prompt is one that is handed over."""
    answer = Answer(rig.deployment.name, "harbour " * 120, max_tokens=4)
    rig.until(lambda: answer.has_ended, 30)
    assert answer.errors == [] and answer.events > 0


def no_process_can_be_made(rig: Rig) -> None:
    refused = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    with patch.object(process.subprocess, "Popen", side_effect=refused):
        rig.start()
        rig.until(lambda: "no_process" in rig.pages, 10)


def agent_has_no_file_descriptor_left(rig: Rig) -> None:
    """What it cannot look at it does not touch, and it does not take it for dead."""
    instance = rig.instance.pk
    record = process.read_record(rig.run, instance)
    assert record
    looks: tuple[Callable[[], object], ...] = (
        rig.ticker.agent.tick,
        lambda: process.read_record(rig.run, instance),
        lambda: record.is_alive,
        lambda: is_held(rig.run, instance),
        lambda: record.address and http_health(record.address),
    )
    for look in looks:
        with no_file_descriptors(), pytest.raises(OSError, match="Too many open files"):
            look()


@contextmanager
def no_file_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


NO_ROOM = Ends("failed", code="no_room", says=("No space left on device", "Make room"))
ROWS = (
    Row("disk", "of the logs is full", "stopped", log_disk_is_full, Ends(restarts=0)),
    Row("disk", "of OMNI_HOME is full", "stopped", disk_is_full_at_a_start, NO_ROOM, ("serve",), mend=lambda rig: None),
    Row("disk", "of OMNI_HOME is full for a while", "stopped", disk_is_full_at_a_start_and_has_room_again,
        Ends(code="no_room"), ("serve",)),
    Row("disk", "gets full, then SIGSEGV of the engine", "stopped", disk_gets_full_while_it_runs,
        Ends(restarts=1, code="crashed", says=("SIGSEGV",)), ("serve",)),
    Row("disk", "read-only for a while, and SIGKILL of the engine", "stopped", home_is_read_only_for_a_while,
        Ends(code="no_room", says=("Read-only",)), ("serve",)),
    Row("disk", "of hand-overs is full", "stopped", slots_disk_is_full, Ends(restarts=0), on="pair", within_s=40),
    Row("disk", "folder of hand-overs is deleted", "ready", slots_folder_is_deleted, UNTOUCHED, on="pair", within_s=40),
    Row("processes", "no more can be made for a while", "stopped", no_process_can_be_made,
        Ends(code="no_process", says=("could not make a process",)), ("serve",)),
    Row("file descriptors", "the agent has none left", "ready", agent_has_no_file_descriptor_left, UNTOUCHED, ("serve",)),
)  # fmt: skip
