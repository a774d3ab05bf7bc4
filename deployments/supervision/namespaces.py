"""Network namespaces: where stand-ins run with their engines, so that no other user of the machine
reaches them."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from deployments.supervision.runner import CHECK

RUNNER = Path(__file__).with_name("runner.py")
TIMEOUT_S = 10.0


@cache
def are_available() -> bool:
    """Whether this user can make one on this machine; tried once, by making one."""
    argv = [sys.executable, "-I", "-S", str(RUNNER), CHECK]
    try:
        return (
            subprocess.run(
                argv, capture_output=True, timeout=TIMEOUT_S, check=False
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
