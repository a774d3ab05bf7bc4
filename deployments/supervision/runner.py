"""The parent of one engine: starts it, writes its log in rotated files, keeps its exit code.

Runs as `python -I -S runner.py SPEC` in a session of its own, so that neither the agent's end nor
a closed terminal reaches the engine. When this process is killed the kernel kills the engine too:
no engine is ever without its record. Standard library only; it imports nothing of Omni.

SPEC is a JSON file: argv, env, log_path, log_bytes, log_files, record_path, lock_path, folder, hidden, facts.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
LOCKED_EXIT_CODE, CANNOT_START_EXIT_CODE = 75, 127
POLL_S, DRAIN_S = 0.5, 0.3
CHUNK_BYTES = 65536


class RotatingLog:
    """Appends to a file and turns it over at a size; a full disk loses lines, never blocks the engine."""

    def __init__(self, path: str, limit_bytes: int, files: int) -> None:
        self.path, self.limit_bytes, self.files = path, limit_bytes, files
        self.descriptor = -1
        self.size = 0
        self.lost_bytes = 0
        # Some engines print the key they ask for; whoever reads logs need not know it.
        self.hidden: list[bytes] = []

    def write(self, data: bytes) -> None:
        for secret in self.hidden:
            data = data.replace(secret, b"[key]")
        try:
            if self.descriptor < 0:
                self._open()
            if self.size and self.size + len(data) > self.limit_bytes:
                self._turn()
            if self.lost_bytes:
                os.write(self.descriptor, b"[%d bytes of log lost: disk full]\n" % self.lost_bytes)
                self.lost_bytes = 0
            self.size += os.write(self.descriptor, data)
        except OSError:
            self.lost_bytes += len(data)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags, 0o600)
        self.size = os.fstat(self.descriptor).st_size

    def _turn(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1
        for number in range(self.files - 1, 0, -1):
            older = f"{self.path}.{number - 1}" if number > 1 else self.path
            if os.path.exists(older):  # noqa: PTH110  (pathlib costs 15 ms of start-up)
                os.replace(older, f"{self.path}.{number}")  # noqa: PTH105
        self._open()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5), field 22 of stat)."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        return int(file.read().rpartition(b")")[2].split()[19])


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def write_record(path: str, record: dict[str, Any]) -> None:
    """Whole or not at all, for whoever reads at the same time."""
    draft = f"{path}.new"
    with open(draft, "w") as file:  # noqa: PTH123
        json.dump(record, file)
    os.replace(draft, path)  # noqa: PTH105


def into_child() -> None:
    """In the new process, before the engine's program: dies with its parent, hears signals again."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def follow(process: subprocess.Popen[bytes], log: RotatingLog) -> int:
    """Copies output until the engine is gone; a grandchild that keeps the pipe open is not waited for."""
    assert process.stdout
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    deadline = None
    while True:
        code = process.poll()
        if code is not None and deadline is None:
            deadline = time.monotonic() + DRAIN_S
        readable, _, _ = select.select([descriptor], [], [], POLL_S if code is None else 0.05)
        data = os.read(descriptor, CHUNK_BYTES) if readable else None
        if data:
            log.write(data)
        elif data == b"" and code is None:
            code = process.wait()
        if code is not None and (not data or (deadline and time.monotonic() > deadline)):
            return code


def main(spec_path: str) -> int:
    with open(spec_path) as file:  # noqa: PTH123
        spec = json.load(file)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    lock = os.open(spec["lock_path"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return LOCKED_EXIT_CODE
    log = RotatingLog(spec["log_path"], spec["log_bytes"], spec["log_files"])
    log.hidden = [secret.encode() for secret in spec.get("hidden", ())]
    log.write(f"\n# {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} start\n".encode())
    record = {
        **spec["facts"],
        "runner_pid": os.getpid(),
        "runner_ticks": start_ticks(os.getpid()),
        "boot_id": boot_id(),
        "argv": spec["argv"],
    }
    try:
        process = subprocess.Popen(
            spec["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=spec["env"],
            cwd=spec.get("folder", "/"),
            preexec_fn=into_child,
        )
    except OSError as error:
        log.write(f"E cannot start {spec['argv'][0]}: {error.strerror}\n".encode())
        write_record(spec["record_path"], {**record, "exit_code": CANNOT_START_EXIT_CODE})
        return CANNOT_START_EXIT_CODE
    record |= {"pid": process.pid, "ticks": start_ticks(process.pid)}
    write_record(spec["record_path"], record)
    code = follow(process, log)
    log.write(f"# {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} end, code {code}\n".encode())
    write_record(spec["record_path"], {**record, "exit_code": code})
    # What the engine left behind in its group ends with it; this process is in the group as well.
    os.killpg(0, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
