"""What lies where inside OMNI_HOME; folders are private to the user that runs Omni."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# sun_path holds 108 bytes including the terminating zero (unix(7)).
UNIX_SOCKET_PATH_LIMIT = 107
LONGEST_SOCKET_NAME = "0123456789ab.sock"


class HomeError(OSError):
    """A folder that cannot be Omni's own; nothing in it or of it was changed."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be used: {self.strerror}. Set OMNI_HOME to a folder of your"
            " own."
        )


def _make_private(folder: Path) -> None:
    """Nobody else may look inside. One that others work in is left as it is."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise HomeError(errno.EPERM, "it belongs to somebody else", str(folder))
    if found.st_mode & (stat.S_ISVTX | stat.S_IWOTH):
        raise HomeError(
            errno.EPERM, "everybody may write to it, so others may use it", str(folder)
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


@dataclass(frozen=True)
class Home:
    root: Path

    @property
    def digest(self) -> str:
        """Tells this folder from every other on the machine."""
        return sha256(os.fsencode(self.root)).hexdigest()[:16]

    @property
    def database(self) -> Path:
        return self.root / "omni.sqlite3"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Locks, engine records and other files that describe processes."""
        return self.root / "run"

    @property
    def drain_locks(self) -> Path:
        """One file for each deployment, locked by whoever passes requests on to it."""
        return self.run / "drain"

    @property
    def demand(self) -> Path:
        """Files that tell which deployments requests wait for, and how many."""
        return self.run / "demand"

    @property
    def slots(self) -> Path:
        """Where KV caches wait between two engines: in memory where there is a shared memory file
        system."""
        shared = Path("/dev/shm")
        if not os.access(shared, os.W_OK):
            return self.run / "slots"
        return shared / f"omni-{os.getuid()}-{self.digest}"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def hub_headers(self) -> Path:
        """What headers of models at a hub said; may be deleted at any time."""
        return self.root / "hub-headers"

    @property
    def valkey_socket(self) -> Path:
        inside = self.run / "valkey.sock"
        if _fits(inside):
            return inside
        return self.sockets / "valkey.sock"

    def engine_socket(self, name: str) -> Path:
        """Where the engine of this name listens; a name that is too long for a socket's path is cut
        to its digest."""
        plain = self.sockets / f"{name}.sock"
        if _fits(plain):
            return plain
        return self.sockets / f"{sha256(name.encode()).hexdigest()[:12]}.sock"

    @property
    def sockets(self) -> Path:
        """A folder that nobody else may enter, with a path short enough for sockets: below
        OMNI_HOME where that is not too deep, else a temporary folder, made on first use, whose
        name is kept in OMNI_HOME."""
        inside = self.run / "s"
        if _fits(inside / LONGEST_SOCKET_NAME):
            return inside
        note = self.run / "sockets"
        if (known := _noted(note)) is None:
            self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.run / "sockets.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (known := _noted(note)) is None:
                    known = _short_folder()
                    draft = self.run / f"sockets.{os.getpid()}"
                    draft.write_text(str(known))
                    draft.replace(note)
        return known

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        _make_private(self.root)
        for folder in (self.logs, self.run, self.models, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.run, self.logs, self.sockets):
            _make_private(folder)

    @contextmanager
    def one_at_a_time(self, name: str) -> Iterator[None]:
        """Waits until no other process or thread of this OMNI_HOME is inside the block of this
        name."""
        self.create()
        with (self.run / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def preparing(self) -> AbstractContextManager[None]:
        """While the database is made or updated: parts that start meanwhile wait before they use
        it."""
        return self.one_at_a_time("prepare")

    def wait_until_prepared(self) -> None:
        with self.preparing():
            pass

    def secret(self, name: str) -> str:
        """The secret kept under this name, made on first use; the file is readable by its owner
        only."""
        path = self.secret_file(name)
        if not path.exists():
            self.create()
            with tempfile.NamedTemporaryFile(
                "w", dir=self.run
            ) as draft:  # made with mode 0600
                draft.write(secrets.token_urlsafe(48))
                draft.flush()
                # link() fails when somebody else was first, so that all end up reading the same
                # secret.
                with suppress(FileExistsError):
                    os.link(draft.name, path)
        return path.read_text().strip()

    def secret_path(self, name: str) -> Path:
        self.secret(name)
        return self.secret_file(name)

    def secret_file(self, name: str) -> Path:
        """Where it lies or will lie; nothing is made."""
        return self.run / f"{name}.key"

    # --- secrets of others: given to Omni, not made by it -----------------------------------------
    def keep_secret(self, name: str, text: str) -> None:
        """Keeps a secret under this name in a file that its owner alone can read; the one before is
        replaced."""
        self.create()
        draft = self.run / f"{name}.key.{os.getpid()}.{secrets.token_hex(4)}"
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(text)
        draft.replace(self.run / f"{name}.key")

    def kept_secret(self, name: str) -> str:
        """What is kept under this name; empty when nothing is."""
        try:
            return (self.run / f"{name}.key").read_text()
        except FileNotFoundError:
            return ""

    def forget_secret(self, name: str) -> None:
        (self.run / f"{name}.key").unlink(missing_ok=True)


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= UNIX_SOCKET_PATH_LIMIT


def _noted(note: Path) -> Path | None:
    """The folder that is noted there, if nobody else can have made it or can enter it."""
    try:
        folder = Path(note.read_text())
        status = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if is_own and not status.st_mode & 0o077:
        return folder
    return None


def _short_folder() -> Path:
    """A new folder of an unforeseeable name, for this user alone."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= UNIX_SOCKET_PATH_LIMIT - 40:
        place = usual
    else:
        place = "/tmp"
    return Path(tempfile.mkdtemp(prefix="omni-", dir=place))
