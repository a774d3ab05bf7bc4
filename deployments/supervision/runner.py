"""The parent of one engine: starts it, writes its log in rotated files, keeps its exit code.

Runs as `python -I -S runner.py SPEC LOCK` in a session of its own, so that neither the agent's end
nor a closed terminal reaches the engine. When this process is killed the kernel kills the engine
too, and a record that somebody damages is written again: no engine is ever without its record.
Standard library only; it imports nothing of Omni.

SPEC is a JSON file: argv, env, log_path, log_bytes, log_files, record_path, folder, hidden,
namespace, facts. LOCK is an open file descriptor of the instance's lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
# Of netdevice(7): asks for and sets the flags of an interface.
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
NO_RECORD_EXIT_CODE = 74
CANNOT_START_EXIT_CODE = 127
POLL_S = 0.5
DRAIN_S = 0.3
CHUNK_BYTES = 65536
CHECK = "--can-make-namespaces"

_libc = ctypes.CDLL(None, use_errno=True)


class RotatingLog:
    """Appends to a file and turns it over at a size; a full disk loses lines, never blocks the
    engine."""

    def __init__(self, path: str, limit_bytes: int, files: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.files = files
        self.descriptor = -1
        self.size = 0
        self.lost_bytes = 0
        # Some engines print the key they ask for; whoever reads logs need not know it.
        self.hidden: list[bytes] = []

    def write(self, data: bytes) -> None:
        for secret in self.hidden:
            data = data.replace(secret, b"[key]")
        try:
            if self.descriptor < 0 or not self._is_there():
                self._open()
            if self.size and self.size + len(data) > self.limit_bytes:
                self._turn()
            if self.lost_bytes:
                os.write(
                    self.descriptor,
                    b"\n[%d bytes of log lost: disk full]\n" % self.lost_bytes,
                )
                self.lost_bytes = 0
            written = os.write(self.descriptor, data)
            self.size += written
            # The last block of a disk takes a part of it.
            self.lost_bytes = len(data) - written
        except OSError:
            self.lost_bytes += len(data)

    def _is_there(self) -> bool:
        """The file that is written is the one that is read: nobody deleted it."""
        try:
            return os.stat(self.path).st_ino == os.fstat(self.descriptor).st_ino  # noqa: PTH116
        except OSError:
            return False

    def _open(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags, 0o600)
        self.size = os.fstat(self.descriptor).st_size

    def _turn(self) -> None:
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


class RecordFile:
    """What is known of the engine, for whoever looks after it: the file says it as long as this
    process lives."""

    def __init__(self, path: str, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts = facts
        self.written: tuple[int, int, int] | None = None
        self.next_look_s = 0.0

    def write(self, **more: Any) -> None:
        """Whole or not at all, for whoever reads at the same time. Raises OSError."""
        self.facts |= more
        draft = f"{self.path}.new"
        try:
            with open(draft, "w") as file:  # noqa: PTH123
                json.dump(self.facts, file)
            os.replace(draft, self.path)  # noqa: PTH105
        except OSError:
            self._write_in_place()
        self.written = self._identity()

    def _write_in_place(self) -> None:
        """On a full disk the blocks that the file has already can still be written."""
        with open(self.path, "r+") as file:  # noqa: PTH123
            file.write(json.dumps(self.facts))
            file.truncate()

    def keep(self) -> None:
        """Writes it again when it was removed or changed by somebody else."""
        if time.monotonic() < self.next_look_s:
            return
        self.next_look_s = time.monotonic() + POLL_S
        with contextlib.suppress(OSError):
            if self._identity() != self.written:
                self.write()

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


# --- network namespaces ---------------------------------------------------------------------------
def new_namespace() -> None:
    """Puts this process into a network namespace of its own, whose loopback is up. Raises OSError.

    Root needs no user namespace for it, and would lose its rights over others' files in one.
    """
    user = os.geteuid()
    group = os.getegid()
    if _libc.unshare(CLONE_NEWNET):
        _call(_libc.unshare, CLONE_NEWUSER | CLONE_NEWNET)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    with socket.socket() as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack(
            "16sH22x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
        )[1]
        fcntl.ioctl(
            any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP)
        )


def join_namespace(pid: int) -> None:
    """Puts this process into the network namespace of another one of this user. Raises OSError."""
    for kind in ("user", "net"):
        ours = f"/proc/self/ns/{kind}"
        theirs = f"/proc/{pid}/ns/{kind}"
        if os.stat(ours).st_ino == os.stat(theirs).st_ino:  # noqa: PTH116
            continue
        handle = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_libc.setns, handle, 0)
        finally:
            os.close(handle)


def _call(function: Any, *arguments: int) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(text)


def into_child(runner_pid: int, namespace: str | int | None) -> None:
    """In the new process, before the engine's program: dies with its parent, hears signals again.

    `namespace` is the pid of a process whose network namespace it joins, or "new", or None.
    """
    if namespace == "new":
        new_namespace()
    elif namespace is not None:
        join_namespace(int(namespace))
    # Asked for after the namespaces: whoever enters one may lose it.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != runner_pid:
        # The parent died before the kernel had been asked.
        os._exit(CANNOT_START_EXIT_CODE)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def follow(
    process: subprocess.Popen[bytes], log: RotatingLog, record: RecordFile
) -> int:
    """Copies output until the engine is gone; a grandchild that keeps the pipe open is not waited
    for."""
    assert process.stdout
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    deadline = None
    while True:
        code = process.poll()
        record.keep()
        if code is not None and deadline is None:
            deadline = time.monotonic() + DRAIN_S
        readable, _, _ = select.select(
            [descriptor], [], [], POLL_S if code is None else 0.05
        )
        data = os.read(descriptor, CHUNK_BYTES) if readable else None
        if data:
            log.write(data)
        elif data == b"" and code is None:
            code = process.wait()
        if code is not None and (
            not data or (deadline and time.monotonic() > deadline)
        ):
            return code


def main(spec_path: str, lock: int) -> int:
    with open(spec_path) as file:  # noqa: PTH123
        spec = json.load(file)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    # The lock of the instance, which the agent took: held until this process ends, and by no child.
    os.set_inheritable(lock, False)
    log = RotatingLog(spec["log_path"], spec["log_bytes"], spec["log_files"])
    log.hidden = [secret.encode() for secret in spec.get("hidden", ())]
    log.write(
        f"\n# {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} start\n".encode()
    )
    me = os.getpid()
    own = {
        "runner_pid": me,
        "runner_ticks": start_ticks(me),
        "boot_id": boot_id(),
        "argv": spec["argv"],
    }
    record = RecordFile(spec["record_path"], {**spec["facts"], **own})
    try:
        process = subprocess.Popen(
            spec["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=spec["env"],
            cwd=spec.get("folder", "/"),
            preexec_fn=lambda: into_child(me, spec.get("namespace")),
        )
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, OSError):
            why = error.strerror
        else:
            why = "no network namespace could be entered"
        log.write(f"E cannot start {spec['argv'][0]}: {why}\n".encode())
        record.write(exit_code=CANNOT_START_EXIT_CODE)
        return CANNOT_START_EXIT_CODE
    try:
        record.write(pid=process.pid, ticks=start_ticks(process.pid))
    except OSError:
        return NO_RECORD_EXIT_CODE  # the engine ends with this process
    code = follow(process, log, record)
    log.write(
        f"# {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} end, code {code}\n".encode()
    )
    with contextlib.suppress(OSError):
        record.write(exit_code=code)
    # What the engine left behind in its group ends with it; this process is in the group as well.
    os.killpg(0, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == [CHECK]:
        new_namespace()
        sys.exit()
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
