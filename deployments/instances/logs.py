"""Reads the log of an instance: its end, what was written since a start, what is written from now
on."""

from __future__ import annotations

import os
from pathlib import Path

TAIL_BYTES = 256 << 10
START_MARK = b" start\n"


def tail(path: Path, lines: int = 200) -> list[str]:
    """The last lines; empty when there is no log yet."""
    return _end(path).decode("utf-8", "replace").splitlines()[-lines:]


def since_start(path: Path) -> list[str]:
    """What the engine has written since it was last started."""
    data = _end(path)
    mark = data.rfind(START_MARK)
    return (
        data[mark + len(START_MARK) if mark >= 0 else 0 :]
        .decode("utf-8", "replace")
        .splitlines()
    )


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read()
    except OSError:
        return b""


class Follower:
    """Reads on where the last read ended, across rotation. `read` never waits."""

    def __init__(self, path: Path, *, lines: int = 200) -> None:
        self.path = path
        self.first = "\n".join(tail(path, lines))
        self.inode, self.position = self._identity()

    def _identity(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_size

    def read(self) -> str:
        """What was written since the last call, at most TAIL_BYTES of it."""
        inode, size = self._identity()
        rest = b""
        if inode != self.inode:
            rest = self._read_from(
                self.path.with_name(f"{self.path.name}.1"), self.position, self.inode
            )
            self.inode = inode
            self.position = 0
        elif size < self.position:
            self.position = 0
        new = self._read_from(self.path, self.position, inode)
        self.position += len(new)
        return (rest + new)[-TAIL_BYTES:].decode("utf-8", "replace")

    @staticmethod
    def _read_from(path: Path, position: int, inode: int) -> bytes:
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    return b""
                file.seek(position)
                return file.read()
        except OSError:
            return b""
