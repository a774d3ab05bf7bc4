"""Starts the sampler's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# It knows the tables of one app.
SAMPLER = ("sampler", "--settings", "gpus.sampler_settings")


def start_sampler() -> subprocess.Popen[bytes]:
    """The telemetry sampler as a child of the agent, with which it ends."""
    manage = Path(__file__).resolve().parents[2] / "manage.py"
    return subprocess.Popen(
        [sys.executable, str(manage), *SAMPLER, "--parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
    )
