"""Starts, finds again and ends engine processes.

A process is (boot, pid, start ticks), never a pid alone.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.engines.probe.environment import (
    engine_environment,
    process_environment,
)
from deployments.instances.address import EngineAddress, Process
from deployments.instances.connecting import engine_address
from deployments.planning.launch_facts import LaunchFacts, read_launch_facts
from deployments.supervision import records_before
from deployments.supervision.instance_lock import (
    acquire,
    instances_folder,
    lock_path,
    write_private,
)
from deployments.supervision.orphans import MARK, end_orphans, mark
from deployments.supervision.refusals import refusals
from deployments.supervision.runner import NO_RECORD_EXIT_CODE, boot_id
from deployments.supervision.signals import signal_exactly
from omni.errors import OmniError

RUNNER = Path(__file__).with_name("runner.py")
RECORD_TIMEOUT_S = 5.0
LOG_BYTES = 8 << 20
LOG_FILES = 4
_runners: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Record:
    """What a runner wrote of its engine.

    `exit_code` is None while it runs; negative: ended by that signal.
    """

    instance: int
    generation: int
    port: int | None
    runner_pid: int
    runner_ticks: int
    boot_id: str
    argv: tuple[str, ...]
    pid: int | None = None
    ticks: int | None = None
    exit_code: int | None = None
    socket: str = ""
    # In a network namespace of its own, with what else is in it.
    is_apart: bool = False
    # Started by a version from before sockets and keys of each start.
    is_outdated: bool = True
    launch: LaunchFacts = LaunchFacts()

    @property
    def address(self) -> EngineAddress | None:
        """Where its engine listens; None before it has a process."""
        if self.pid and self.ticks:
            process = Process(self.pid, self.ticks)
        else:
            process = None
        return engine_address(self.instance, self.socket, self.port, process)

    @property
    def is_alive(self) -> bool:
        return bool(
            self.pid and self.boot_id == boot_id() and _is(self.pid, self.ticks)
        )

    @property
    def is_halted(self) -> bool:
        """Stopped by a signal (SIGSTOP) or by a debugger; it lives and does nothing."""
        return bool(self.pid and self.is_alive and _state(self.pid) in (b"T", b"t"))

    @property
    def runner_is_alive(self) -> bool:
        return self.boot_id == boot_id() and _is(self.runner_pid, self.runner_ticks)


@dataclass(frozen=True)
class Endpoint:
    """Where an engine is told to listen: the one or the other."""

    port: int | None = None
    socket: str = ""


def _is(pid: int, ticks: int | None) -> bool:
    """The process with this pid is the one that started then, and is no zombie.

    Raises OSError when it cannot be told: an agent without a free file descriptor must not take
    engines for dead.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state[0] not in (b"Z", b"X") and int(state[19]) == ticks


def _state(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return b"X"


def read_record(run: Path, instance: int) -> Record | None:
    """None where there is none, or none that can be understood; its runner, if it lives, writes it
    again.

    Raises OSError when it is there and cannot be read.
    """
    try:
        return _parse(
            json.loads((instances_folder(run) / f"{instance}.json").read_text())
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def ended_s(run: Path, instance: int) -> float:
    """When its runner wrote last, which it does when its engine ends; 0 where there is no
    record."""
    try:
        return (instances_folder(run) / f"{instance}.json").stat().st_mtime
    except OSError:
        return 0.0


def _parse(data: dict[str, Any]) -> Record:
    known = {key: data[key] for key in data if key in Record.__dataclass_fields__}
    argv = tuple(data["argv"])
    is_of_before = "launch" not in data
    if is_of_before:
        launch = records_before.facts_of(argv)
    else:
        launch = read_launch_facts(data["launch"])
    return Record(**{**known, "argv": argv, "launch": launch})


def records(run: Path) -> Iterator[Record]:
    """Of every engine this OMNI_HOME ever started and has not forgotten."""
    for path in sorted(instances_folder(run).glob("[0-9]*.json")):
        if path.stem.isdigit() and (record := read_record(run, int(path.stem))):
            yield record


def forget(run: Path, instance: int, record: Record | None) -> None:
    """Removes the files of an instance, unless there is another record by now or a start goes on.

    `record` is what was read of it. What cannot be removed now is overwritten by the next start, or
    swept later.
    """
    with suppress(OSError):
        lock = acquire(run, instance)
        if lock is None:
            # Its own runner, which ends or hangs, or another agent that starts it again.
            if record and record.runner_is_alive:
                _remove_files(run, instance)
            return
        try:
            if _is_same(read_record(run, instance), record):
                _remove_files(run, instance)
                lock_path(run, instance).unlink(missing_ok=True)
        finally:
            os.close(lock)


def _is_same(one: Record | None, other: Record | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.runner_pid, one.runner_ticks) == (other.runner_pid, other.runner_ticks)


def _remove_files(run: Path, instance: int) -> None:
    for path in instances_folder(run).glob(f"{instance}.*"):
        if path.suffix == ".files":
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".lock":
            with suppress(OSError):
                path.unlink(missing_ok=True)


def sweep(run: Path) -> None:
    """Removes what belongs to no record and to no runner."""
    for path in instances_folder(run).glob("[0-9]*.*"):
        number = path.name.partition(".")[0]
        is_kept = path.suffix == ".json" or path.with_name(f"{number}.json").exists()
        if number.isdigit() and not is_kept:
            forget(run, int(number), None)


def files_folder(run: Path, instance: int) -> Path:
    """Of the files that an engine is configured by; they may hold its key."""
    folder = instances_folder(run) / f"{instance}.files"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def spawn(
    run: Path,
    *,
    instance: int,
    lock: int,
    generation: int,
    at: Endpoint,
    argv: Sequence[str],
    env: Mapping[str, str],
    log_path: Path,
    launch: LaunchFacts,
    folder: Path | None = None,
    hidden: Sequence[str] = (),
    is_apart: bool = False,
) -> Record:
    """Starts the engine below a runner, in `folder` if one is given, and returns its record.

    `lock` is the lock of the instance, which the runner holds from now on. What is `hidden` is not
    written to its log. What `is_apart` is in a network namespace with what
    else is.

    Raises OmniError: runner_failed when no record appears, no_process or no_room
    when the machine has no process or no disk left.
    """
    end_orphans(run, own=instance)
    with refusals():
        return _spawned(
            run,
            instance,
            lock,
            generation,
            at,
            argv,
            env,
            log_path,
            launch,
            folder,
            hidden,
            is_apart,
        )


def _spawned(
    run: Path,
    instance: int,
    lock: int,
    generation: int,
    at: Endpoint,
    argv: Sequence[str],
    env: Mapping[str, str],
    log_path: Path,
    launch: LaunchFacts,
    folder: Path | None,
    hidden: Sequence[str],
    is_apart: bool,
) -> Record:
    records_folder = instances_folder(run)
    record_path = records_folder / f"{instance}.json"
    before = record_path.stat().st_mtime_ns if record_path.exists() else 0
    spec = {
        "argv": list(argv),
        "env": {**engine_environment(argv[0]), **env, MARK: mark(run, instance)},
        "log_path": str(log_path),
        "log_bytes": LOG_BYTES,
        "log_files": LOG_FILES,
        "record_path": str(record_path),
        "folder": str(folder or "/"),
        "hidden": list(hidden),
        "namespace": _namespace(run) if is_apart else None,
        "facts": {
            "instance": instance,
            "generation": generation,
            "port": at.port,
            "socket": at.socket,
            "is_apart": is_apart,
            "is_outdated": False,
            "launch": launch.document(),
        },
    }
    spec_path = records_folder / f"{instance}.spec"
    write_private(spec_path, json.dumps(spec))
    runner = subprocess.Popen(
        [sys.executable, "-I", "-S", str(RUNNER), str(spec_path), str(lock)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
        cwd="/",
        env={**process_environment(), MARK: mark(run, instance)},
    )
    _runners.append(runner)
    deadline = time.monotonic() + RECORD_TIMEOUT_S
    while True:
        # Asked before the record is looked for: one that has ended has written what it could.
        code = runner.poll()
        if record_path.exists() and record_path.stat().st_mtime_ns != before:
            record = read_record(run, instance)
            if record and record.runner_pid == runner.pid:
                return record
        if code is not None or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    if code == NO_RECORD_EXIT_CODE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(record_path))
    text = f"No record of instance {instance} appeared."
    raise OmniError("runner_failed", text, "Look at the agent's log.", retry=True)


def _namespace(run: Path) -> int | str:
    """A process in the network namespace of those that are apart, which lasts as long as one of
    them; else "new"."""
    inside = (record for record in records(run) if record.is_apart and record.is_alive)
    return next((record.pid for record in inside if record.pid), "new")


def reap() -> None:
    """Collects runners that have ended, so that they do not stay as zombies."""
    _runners[:] = [runner for runner in _runners if runner.poll() is None]


def send_signal(record: Record, number: signal.Signals) -> bool:
    """Signals the engine itself; False when it is gone.

    Another process with its pid is never touched.
    """
    if not record.pid or record.boot_id != boot_id():
        return False
    return signal_exactly(record.pid, record.ticks, number)


def kill_group(record: Record) -> None:
    """Ends the engine, its runner and all their children at once."""
    send_signal(record, signal.SIGKILL)
    if record.runner_is_alive:
        try:
            os.killpg(record.runner_pid, signal.SIGKILL)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def has_ended(record: Record) -> bool:
    return not record.is_alive and not record.runner_is_alive


def wait_ended(record: Record, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not has_ended(record):
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    with suppress(OSError):
        reap()
    return True
