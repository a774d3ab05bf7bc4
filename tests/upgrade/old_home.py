"""An OMNI_HOME as the version before left it: its database, and what this version does with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from omni.home import Home
from tests.panel import ROOT

KEPT = Path(__file__).with_name("before_the_house.sql")


def old_home(folder: Path, *changes: str) -> Home:
    """With the kept database, changed by SQL before any code of this version sees it."""
    home = Home(folder)
    home.create()
    with sqlite3.connect(home.database) as connection:
        connection.executescript(KEPT.read_text())
        for change in changes:
            connection.execute(change)
    return home


def manage(home: Home, *words: str) -> str:
    """What a command of this version prints."""
    own = {"OMNI_HOME": str(home.root), "OMNI_HOST_NAME": "rig"}
    others = {
        name: text for name, text in os.environ.items() if name != "OMNI_DATABASE_URL"
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={**others, **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
