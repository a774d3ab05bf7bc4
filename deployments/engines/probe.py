"""Asks an engine's binary what it is: build, flags, devices. Nothing here keeps running."""

from __future__ import annotations

import logging
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from django.utils import timezone

from deployments.engines import get_flavour
from deployments.engines.environment import engine_environment
from deployments.models import Engine
from omni.errors import OmniError

log = logging.getLogger(__name__)

# --list-devices wakes the cards, which takes seconds on a cold driver; a binary that hangs is broken.
TIMEOUT_S = {"--version": 10.0, "--help": 10.0, "--list-devices": 30.0}
MAX_OUTPUT_CHARACTERS = 1 << 20


def ask(path: str, flag: str) -> str:
    """What `path flag` prints on both outputs. Raises OmniError (engine_missing, engine_broken)."""
    try:
        done = subprocess.run(
            [path, flag],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S[flag],
            env=engine_environment(path),
            start_new_session=True,
        )
    except FileNotFoundError:
        fix = "Install it again, or choose another engine."
        raise OmniError("engine_missing", f"There is no file {path}.", fix) from None
    except subprocess.TimeoutExpired:
        text = f"{path} {flag} gave no answer within {TIMEOUT_S[flag]:.0f} s."
        raise OmniError("engine_broken", text, "Run it in a terminal to see why.") from None
    except OSError as error:
        text = f"{path} cannot be run: {error.strerror}."
        raise OmniError("engine_broken", text, "Give it execute permission; check that it fits this CPU.") from None
    text = (done.stdout + b"\n" + done.stderr).decode(errors="replace")[:MAX_OUTPUT_CHARACTERS]
    if done.returncode:
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
        said = f"{path} {flag} ended with exit code {done.returncode}: {last}"
        raise OmniError("engine_broken", said[:500], "Run it in a terminal to see why.")
    return text


def probe(engine: Engine) -> Engine:
    """Asks the binary and keeps the answers; one that does not answer is marked with the cause."""
    examine(engine).save()
    return engine


def examine(engine: Engine) -> Engine:
    """probe() without saving: the row may not exist yet."""
    flavour = get_flavour(engine.flavour)
    try:
        build = flavour.parse_version(ask(engine.path, "--version"))
        flags = flavour.parse_flags(ask(engine.path, "--help"))
        if not flags:
            raise OmniError("engine_broken", f"{engine.path} --help lists no flags.", "Is it an inference server?")
        devices = flavour.parse_devices(ask(engine.path, "--list-devices"))
    except OmniError as error:
        missing = error.code == "engine_missing"
        engine.state = Engine.State.MISSING if missing else Engine.State.BROKEN
        engine.error = str(error)
        log.warning("engine %s: %s", engine.name, error)
    else:
        engine.state, engine.error, engine.build = Engine.State.OK, "", build[:200]
        engine.flags = sorted(flags)
        engine.devices = [
            {
                "name": d.name,
                "description": d.description,
                "total_bytes": d.total_bytes,
                "free_bytes": d.free_bytes,
            }
            for d in devices
        ]
    engine.probed_at = timezone.now()
    return engine


def needs_probe(engine: Engine) -> bool:
    """Whether the file is not the one that was asked, or was not well then.

    A file's change time cannot be set back, so whatever takes its place is newer than the probe, even
    when its modification time is old; of a link both the link and its target count.
    """
    if engine.probed_at is None or engine.state != Engine.State.OK:
        return True
    path = Path(engine.path)
    try:
        stamps = (path.stat(), path.lstat())
    except OSError:
        return True
    newest = max(max(stamp.st_ctime, stamp.st_mtime) for stamp in stamps)
    return datetime.fromtimestamp(newest, UTC) >= engine.probed_at
