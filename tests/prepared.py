"""The database that `manage.py prepare` makes: made once for all tests, copied for each panel.

All migrations and the administrator's hash take as long as the rest of a panel's start. What a
panel makes in an empty OMNI_HOME, secrets included, each still makes for itself; tests of the very
first start begin without a database (`fresh_panel` in conftest.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from omni.home import Home
from omni.launcher import valkey_child

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a-password-for-tests"


def put_database(home: Home) -> None:
    """Gives a home that has no database yet the one that is prepared."""
    home.create()
    if not home.database.exists():
        shutil.copyfile(_prepared(), home.database)


def _prepared() -> Path:
    """Its file; made by the first of this run's processes that asks."""
    shared = Path(os.environ["OMNI_TEST_SHARED"])
    made = shared / "prepared.sqlite3"
    with (shared / "prepared.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _prepare(Home(shared / "home"), made)
    return made


def _prepare(home: Home, made: Path) -> None:
    home.create()
    broker = valkey_child(home.valkey_socket, home.run, home.logs)
    broker.start()
    try:
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("OMNI_")},
            "OMNI_HOME": str(home.root),
            "OMNI_HOST_NAME": "testhost",
            "OMNI_ADMIN_PASSWORD": PASSWORD,
        }
        argv = [sys.executable, str(ROOT / "manage.py"), "prepare"]
        done = subprocess.run(
            argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        broker.stop(timeout_s=5)

    # Whoever closed it last has put all of it into the one file.
    wal = home.database.with_name(f"{home.database.name}-wal")
    assert not wal.exists()
    home.database.replace(made)
