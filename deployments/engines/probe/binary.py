"""Asks an engine's binary what it is: build, flags, devices. Nothing here keeps running."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.utils import timezone

from deployments.engines import get_flavour, recognised
from deployments.engines.base import EngineFlavour, ListedDevice
from deployments.engines.mtp import ASKED, mtp_flags
from deployments.engines.probe.environment import engine_environment
from deployments.engines.probe.programs import MOST_OUTPUT_BYTES, run_to_end
from deployments.models import Engine
from omni.errors import OmniError

log = logging.getLogger(__name__)

# --list-devices wakes the cards, which takes seconds on a cold driver; a binary that hangs is
# broken.
TIMEOUT_S = {"--version": 10.0, "--help": 10.0, "--list-devices": 30.0}
USUAL_TIMEOUT_S = 10.0
# ik_llama.cpp lists its flags and ends with 1.
HELP_EXIT_CODES = (0, 1)


class EngineSilent(OmniError):
    """The binary was asked and gave no answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__("engine_broken", text, "Run it in a terminal to see why.")


class EngineEnded(OmniError):
    """The binary ended with an exit code that means no answer; `printed` is all that it said."""

    def __init__(self, asked: str, exit_code: int, printed: str) -> None:
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        last = lines[-1] if lines else "no output"
        text = f"{asked} ended with exit code {exit_code}: {last}"
        super().__init__(
            "engine_broken", text[:500], "Run it in a terminal to see why."
        )
        self.printed = printed


def ask(path: str, flag: str, *, exit_codes: Sequence[int] = (0,)) -> str:
    """What `path flag` prints on both outputs. Raises OmniError (engine_missing, engine_broken)."""
    return _ask((path,), (flag,), exit_codes)


def _ask(
    program: Sequence[str],
    args: Sequence[str],
    exit_codes: Sequence[int] = (0,),
    slow_start_s: float = 0,
) -> str:
    path = program[-1]
    flag = " ".join(args)
    timeout_s = TIMEOUT_S.get(flag, USUAL_TIMEOUT_S) + slow_start_s
    try:
        done = run_to_end([*program, *args], engine_environment(path), timeout_s)
    except FileNotFoundError:
        path = program[0]
        fix = "Install it again, or choose another engine."
        raise OmniError("engine_missing", f"There is no file {path}.", fix) from None
    except TimeoutError:
        raise EngineSilent(
            f"{path} {flag} gave no answer within {timeout_s:.0f} s."
        ) from None
    except OSError as error:
        text = f"{path} cannot be run: {error.strerror}."
        raise OmniError(
            "engine_broken",
            text,
            "Give it execute permission; check that it fits this CPU.",
        ) from None
    if done is None:
        text = f"{path} {flag} prints more than {MOST_OUTPUT_BYTES >> 20} MiB."
        raise OmniError("engine_broken", text, "Run it in a terminal to see why.")
    if done.exit_code not in exit_codes:
        raise EngineEnded(f"{path} {flag}", done.exit_code, done.text)
    return done.text


def remote_device(engine: Engine, endpoint: str) -> ListedDevice:
    """The device behind an RPC server, as this engine sees it: they must be of one version to
    understand each other.

    Only for a server that nobody uses: it serves one engine at a time and lets the next one wait.
    Raises OmniError (device_unreachable, device_version, device_silent, device_not_understood,
    device_count; engine_missing and engine_broken when it is the engine that cannot be asked).
    """
    printed = _devices_behind(engine, endpoint)
    if "(none)" in printed and not _tells_why(printed):
        # An engine that ends at once loses the last lines of its log now and then.
        printed = _devices_behind(engine, endpoint)
    found = [
        device
        for device in get_flavour(engine.flavour).parse_devices(printed)
        if device.description == endpoint
    ]
    if not found:
        raise _no_device(endpoint, printed)
    if len(found) > 1:
        said = (
            f"The server at {endpoint} has {len(found)} devices, and Omni takes one"
            " from a server."
        )
        raise OmniError(
            "device_count", said, "Start one server for each device, with -d DEVICE."
        )
    return found[0]


def _devices_behind(engine: Engine, endpoint: str) -> str:
    """What the engine prints of its devices with this server among them."""
    try:
        return _ask((engine.path,), ("--rpc", endpoint, "--list-devices"))
    except EngineSilent:
        text = f"The server at {endpoint} gave no answer."
        fix = (
            "It serves another engine now, a firewall is between, or it is no"
            " ggml-rpc-server."
        )
        raise OmniError("device_silent", text, fix, retry=True) from None
    except EngineEnded as ended:
        raise _no_device(endpoint, ended.printed) from None


def _tells_why(printed: str) -> bool:
    return "version mismatch" in printed or "Failed to connect" in printed


def _no_device(endpoint: str, printed: str) -> OmniError:
    """Why, from what the engine printed: ggml-rpc has no other way to say it."""
    mismatches = [
        line.strip() for line in printed.splitlines() if "version mismatch" in line
    ]
    if mismatches:
        line = mismatches[0]
        text = (
            f"The server at {endpoint} speaks another version of the protocol: {line}"
        )
        return OmniError(
            "device_version", text, "Install the same build of llama.cpp on both hosts."
        )
    if "Failed to connect" in printed or "(none)" in printed:
        text = f"No server can be reached at {endpoint}."
        fix = "Is it started, on that address, and is no firewall between?"
        return OmniError("device_unreachable", text, fix, retry=True)
    text = f"What answers at {endpoint} is not understood; the engine ended over it."
    return OmniError(
        "device_not_understood",
        text,
        "Is it a ggml-rpc-server of the same build of llama.cpp?",
    )


def examine_binary(engine: Engine) -> Engine:
    """The row with what its binary said; one that does not answer is marked with the cause.

    Not saved.
    """
    try:
        build, flags, devices = _answers(engine, get_flavour(engine.flavour))
    except OmniError as error:
        missing = error.code == "engine_missing"
        engine.state = Engine.State.MISSING if missing else Engine.State.BROKEN
        engine.error = str(error)
        log.warning("engine %s: %s", engine.name, error)
    else:
        engine.state = Engine.State.OK
        engine.error = ""
        engine.build = build[:200]
        engine.flags = sorted(flags | _drafting(engine))
        engine.archs = {}
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


def _drafting(engine: Engine) -> frozenset[str]:
    """What stands in the binary about drafting with a model's own layers; it has no option that
    lists them."""
    flavour = get_flavour(engine.flavour)
    if flavour.tells_own_drafting:
        return mtp_flags(Path(flavour.program(engine.path)[0]))
    return frozenset()


def _answers(
    engine: Engine, flavour: EngineFlavour
) -> tuple[str, frozenset[str], tuple[ListedDevice, ...]]:
    """Build, flags and devices. Raises OmniError (engine_missing, engine_broken)."""
    program = flavour.program(engine.path)
    slow_s = flavour.slow_start_s
    version = ""
    devices = ""
    if flavour.version_args:
        version = _ask(program, flavour.version_args, slow_start_s=slow_s)
    text = _ask(program, flavour.help_args, HELP_EXIT_CODES, slow_s)
    if (other := recognised(text)) and other != flavour.flavour:
        said = (
            f"{engine.path} is an engine of the flavour {other}, not {flavour.flavour}."
        )
        raise OmniError("engine_broken", said, f"Give it the flavour {other}.")
    flags = flavour.parse_flags(text)
    if not flags:
        said = f"{engine.path} {' '.join(flavour.help_args)} lists no flags."
        raise OmniError("engine_broken", said, "Is it an inference server?")
    if flavour.devices_args:
        devices = _ask(program, flavour.devices_args, slow_start_s=slow_s)
    return flavour.parse_version(version), flags, flavour.parse_devices(devices)


# --- which engine it is ---------------------------------------------------------------------------
def found_flavour(path: str) -> str:
    """Which of the flavours that are called alike a binary is; empty when it does not tell."""
    try:
        return recognised(ask(path, "--help", exit_codes=HELP_EXIT_CODES))
    except OmniError:
        return ""


def needs_probe(engine: Engine) -> bool:
    """Whether the file is not the one that was asked, or was not well then.

    A file's change time cannot be set back, so whatever takes its place is newer than the probe,
    even when its modification time is old; of a link both the link and its target count.
    """
    if (
        engine.is_external
        or engine.probed_at is None
        or engine.state != Engine.State.OK
    ):
        return True
    if get_flavour(engine.flavour).tells_own_drafting and ASKED not in engine.flags:
        return True
    path = Path(engine.path)
    try:
        stamps = (path.stat(), path.lstat())
    except OSError:
        return True
    newest = max(max(stamp.st_ctime, stamp.st_mtime) for stamp in stamps)
    return datetime.fromtimestamp(newest, UTC) >= engine.probed_at
