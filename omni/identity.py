"""Who and where this Omni is, by the environment alone: the launcher reads it without Django."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from omni.env import envpath, envprefix, envstr
from omni.home import Home


def _host_name() -> str:
    """The name that this host has in the database and in the names of its queues."""
    given = envstr("OMNI_HOST_NAME", socket.gethostname()).lower()
    plain = re.sub(r"[^a-z0-9-]+", "-", given).strip("-")
    return plain[:60] or "host"


DEFAULT_HOME = Path.home() / ".local" / "share" / "omni"
OMNI_HOME = Home(envpath("OMNI_HOME", DEFAULT_HOME))
OMNI_HOST_NAME = _host_name()
# Empty: the launcher starts a broker of its own.
OMNI_BROKER_URL = envstr("OMNI_BROKER_URL")
# Below which path a proxy offers the panel, such as /omni; empty: at the root of its address.
OMNI_PATH_PREFIX = envprefix("OMNI_PATH_PREFIX")
