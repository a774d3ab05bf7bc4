"""Asks an engine's binary what it is: build, flags, devices. Nothing here keeps running."""

from __future__ import annotations

import logging
import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from django.utils import timezone

from deployments.engines import external_probe, get_flavour, recognised
from deployments.engines.base import EngineFlavour, ListedDevice
from deployments.engines.environment import engine_environment
from deployments.engines.external import Standing
from deployments.engines.mtp import ASKED, mtp_flags
from deployments.external_keys import key_of
from deployments.models import Engine
from omni.errors import OmniError

log = logging.getLogger(__name__)

# --list-devices wakes the cards, which takes seconds on a cold driver; a binary that hangs is broken.
TIMEOUT_S = {"--version": 10.0, "--help": 10.0, "--list-devices": 30.0}
USUAL_TIMEOUT_S = 10.0
# ik_llama.cpp lists its flags and ends with 1.
HELP_EXIT_CODES = (0, 1)
MOST_OUTPUT_BYTES = 2 << 20
# What a program that has ended still had to say is there by then.
LAST_WORDS_S = 2.0


def ask(path: str, flag: str, *, exit_codes: Sequence[int] = (0,)) -> str:
    """What `path flag` prints on both outputs. Raises OmniError (engine_missing, engine_broken)."""
    return _ask((path,), (flag,), exit_codes)


def _ask(program: Sequence[str], args: Sequence[str], exit_codes: Sequence[int] = (0,), slow_start_s: float = 0) -> str:
    path, flag = program[-1], " ".join(args)
    timeout_s = TIMEOUT_S.get(flag, USUAL_TIMEOUT_S) + slow_start_s
    try:
        done = _run([*program, *args], engine_environment(path), timeout_s)
    except FileNotFoundError:
        path = program[0]
        fix = "Install it again, or choose another engine."
        raise OmniError("engine_missing", f"There is no file {path}.", fix) from None
    except subprocess.TimeoutExpired:
        text = f"{path} {flag} gave no answer within {timeout_s:.0f} s."
        raise OmniError("engine_broken", text, "Run it in a terminal to see why.") from None
    except OSError as error:
        text = f"{path} cannot be run: {error.strerror}."
        raise OmniError("engine_broken", text, "Give it execute permission; check that it fits this CPU.") from None
    if done is None:
        text = f"{path} {flag} prints more than {MOST_OUTPUT_BYTES >> 20} MiB."
        raise OmniError("engine_broken", text, "Run it in a terminal to see why.")
    text = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
    if done.returncode not in exit_codes:
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
        said = f"{path} {flag} ended with exit code {done.returncode}: {last}"
        raise OmniError("engine_broken", said[:500], "Run it in a terminal to see why.")
    return text


def _run(argv: Sequence[str], env: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[bytes] | None:
    """Runs a program to its end; None for one that prints more than anybody would read, and is ended over it.

    Raises subprocess.TimeoutExpired, and OSError when it cannot be started.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=dict(env), start_new_session=True
    )
    output, errors = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_read, args=(process, stream, kept), daemon=True)
        for stream, kept in ((process.stdout, output), (process.stderr, errors))
    ]
    for reader in readers:
        reader.start()
    try:
        process.wait(timeout_s)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for reader in readers:
            reader.join(LAST_WORDS_S)
    if max(len(output), len(errors)) > MOST_OUTPUT_BYTES:
        return None
    return subprocess.CompletedProcess(argv, process.returncode, bytes(output), bytes(errors))


def _read(process: subprocess.Popen[bytes], stream: Any, kept: bytearray) -> None:
    """Up to the end of the output, or so far that it is too much."""
    with stream:
        while part := stream.read1(1 << 16):
            kept += part
            if len(kept) > MOST_OUTPUT_BYTES:
                return process.kill()


def remote_device(engine: Engine, endpoint: str) -> ListedDevice:
    """The device behind an RPC server, as this engine sees it: they must be of one version to understand each other.

    Only for a server that nobody uses: it serves one engine at a time and lets the next one wait.
    Raises OmniError (device_unreachable, device_version, device_silent, device_not_understood, device_count).
    """
    try:
        text = _ask((engine.path,), ("--rpc", endpoint, "--list-devices"))
    except OmniError as error:
        raise _no_device(endpoint, error.text) from None
    found = [device for device in get_flavour(engine.flavour).parse_devices(text) if device.description == endpoint]
    if not found:
        raise _no_device(endpoint, text)
    if len(found) > 1:
        said = f"The server at {endpoint} has {len(found)} devices, and Omni takes one from a server."
        raise OmniError("device_count", said, "Start one server for each device, with -d DEVICE.")
    return found[0]


def _no_device(endpoint: str, said: str) -> OmniError:
    """Why, from what the engine printed or from how it ended."""
    if "version mismatch" in said:
        line = next(line.strip() for line in said.splitlines() if "version mismatch" in line)
        text = f"The server at {endpoint} speaks another version of the protocol: {line}"
        return OmniError("device_version", text, "Install the same build of llama.cpp on both hosts.")
    if "Failed to connect" in said or "(none)" in said:
        text = f"No server can be reached at {endpoint}."
        fix = "Is it started, on that address, and is no firewall between?"
        return OmniError("device_unreachable", text, fix, retry=True)
    if "no answer within" in said:
        text = f"The server at {endpoint} gave no answer."
        fix = "It serves another engine now, a firewall is between, or it is no ggml-rpc-server."
        return OmniError("device_silent", text, fix, retry=True)
    text = f"What answers at {endpoint} is not understood; the engine ended over it."
    return OmniError("device_not_understood", text, "Is it a ggml-rpc-server of the same build of llama.cpp?")


def probe(engine: Engine) -> Engine:
    """Asks the binary and keeps the answers; one that does not answer is marked with the cause."""
    examine(engine).save()
    return engine


def examine(engine: Engine) -> Engine:
    """probe() without saving: the row may not exist yet."""
    if engine.is_external:
        return with_standing(engine, external_probe.ask(engine.path, key_of(engine)))
    try:
        build, flags, devices = _answers(engine, get_flavour(engine.flavour))
    except OmniError as error:
        missing = error.code == "engine_missing"
        engine.state = Engine.State.MISSING if missing else Engine.State.BROKEN
        engine.error = str(error)
        log.warning("engine %s: %s", engine.name, error)
    else:
        engine.state, engine.error, engine.build = Engine.State.OK, "", build[:200]
        engine.flags, engine.archs = sorted(flags | _drafting(engine)), {}
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
    """What stands in the binary about drafting with a model's own layers; it has no option that lists them."""
    flavour = get_flavour(engine.flavour)
    return mtp_flags(Path(flavour.program(engine.path)[0])) if flavour.tells_own_drafting else frozenset()


def with_standing(engine: Engine, standing: Standing) -> Engine:
    """The row with what the server said; what it offered before it went away is kept. Not saved."""
    if standing.trouble:
        engine.state, engine.error = Engine.State.BROKEN, str(standing.trouble)
    else:
        engine.state, engine.error = Engine.State.OK, ""
        engine.offers, engine.build = list(standing.models), standing.owner
    engine.probed_at = timezone.now()
    return engine


def keep_standing(engine: Engine, standing: Standing) -> bool:
    """Saves what is news of it, and says whether anything was."""
    names = ("state", "error", "offers", "build")
    before = [getattr(engine, name) for name in names]
    with_standing(engine, standing)
    if before == [getattr(engine, name) for name in names]:
        return False
    # Its address may have been changed meanwhile: then this is about another server.
    return bool(
        Engine.objects.filter(pk=engine.pk, path=engine.path).update(
            **{name: getattr(engine, name) for name in (*names, "probed_at")}
        )
    )


def _answers(engine: Engine, flavour: EngineFlavour) -> tuple[str, frozenset[str], tuple[ListedDevice, ...]]:
    """Build, flags and devices. Raises OmniError (engine_missing, engine_broken)."""
    program, slow_s = flavour.program(engine.path), flavour.slow_start_s
    version, devices = "", ""
    if flavour.version_args:
        version = _ask(program, flavour.version_args, slow_start_s=slow_s)
    text = _ask(program, flavour.help_args, HELP_EXIT_CODES, slow_s)
    if (other := recognised(text)) and other != flavour.flavour:
        said = f"{engine.path} is an engine of the flavour {other}, not {flavour.flavour}."
        raise OmniError("engine_broken", said, f"Give it the flavour {other}.")
    flags = flavour.parse_flags(text)
    if not flags:
        said = f"{engine.path} {' '.join(flavour.help_args)} lists no flags."
        raise OmniError("engine_broken", said, "Is it an inference server?")
    if flavour.devices_args:
        devices = _ask(program, flavour.devices_args, slow_start_s=slow_s)
    return flavour.parse_version(version), flags, flavour.parse_devices(devices)


# --- architectures ------------------------------------------------------------------------------------
_ARCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
ARCH_TIMEOUT_S = 15.0


def knows_arch(engine: Engine, arch: str) -> bool:
    """Whether the build has this architecture, asked of the binary once and kept with the engine.

    It is given a file that says its architecture and nothing else: one that knows it misses the next key. What
    cannot be found out counts as known.
    """
    if not get_flavour(engine.flavour).reads_gguf or not _ARCH.fullmatch(arch):
        return True
    if arch not in engine.archs:
        answer = _has_arch(engine.path, _stamp(engine.path), arch)
        if answer is None:
            return True
        engine.archs = {**engine.archs, arch: answer}
        if engine.pk:
            Engine.objects.filter(pk=engine.pk).update(archs=engine.archs)
    return bool(engine.archs[arch])


def _stamp(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


_answers_of_archs: dict[tuple[str, int, str], bool] = {}
# The log is written beside the work: now and then a program ends before it has written anything.
ARCH_TRIES = 5


def _has_arch(path: str, stamp: int, arch: str) -> bool | None:
    """None where the binary does not say."""
    key = (path, stamp, arch)
    with NamedTemporaryFile(suffix=".gguf") as file:
        file.write(_only_arch(arch))
        file.flush()
        for _ in range(ARCH_TRIES if key not in _answers_of_archs else 0):
            said = _loading(path, file.name)
            if "unknown model architecture" in said or "key not found in model" in said:
                _answers_of_archs[key] = "unknown model architecture" not in said
                break
    return _answers_of_archs.get(key)


def _loading(path: str, model: str) -> str:
    """What the engine says while it fails to load this file."""
    args = (path, "-m", model, "--host", "127.0.0.1", "--port", "0", "-ngl", "0")
    try:
        done = _run(args, engine_environment(path), ARCH_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode(errors="replace") if done else ""


def _only_arch(arch: str) -> bytes:
    """A GGUF of version 3 with one key and no tensors."""
    key, value = b"general.architecture", arch.encode()
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair + bytes(64)


# --- which engine it is -----------------------------------------------------------------------------
def found_flavour(path: str) -> str:
    """Which of the flavours that are called alike a binary is; empty when it does not tell."""
    try:
        return recognised(ask(path, "--help", exit_codes=HELP_EXIT_CODES))
    except OmniError:
        return ""


def needs_probe(engine: Engine) -> bool:
    """Whether the file is not the one that was asked, or was not well then.

    A file's change time cannot be set back, so whatever takes its place is newer than the probe, even
    when its modification time is old; of a link both the link and its target count.
    """
    if engine.is_external or engine.probed_at is None or engine.state != Engine.State.OK:
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
