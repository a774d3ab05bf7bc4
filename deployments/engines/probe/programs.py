"""Runs an engine's binary to its end, for an answer: within a time, and with no more output than
anybody would read."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MOST_OUTPUT_BYTES = 2 << 20
# What a program that has ended still had to say is there by then.
LAST_WORDS_S = 2.0


@dataclass(frozen=True)
class Ended:
    """`text` is what was printed, first on the output and then on the error output."""

    exit_code: int
    text: str


def run_to_end(
    argv: Sequence[str], env: Mapping[str, str], timeout_s: float
) -> Ended | None:
    """Runs a program to its end; None for one that prints more than anybody would read, and is
    ended over it.

    Raises TimeoutError, and OSError when it cannot be started.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=dict(env),
        start_new_session=True,
    )
    output = bytearray()
    errors = bytearray()
    readers = [
        threading.Thread(target=_read, args=(process, stream, kept), daemon=True)
        for stream, kept in ((process.stdout, output), (process.stderr, errors))
    ]
    for reader in readers:
        reader.start()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for reader in readers:
            reader.join(LAST_WORDS_S)
    if max(len(output), len(errors)) > MOST_OUTPUT_BYTES:
        return None
    return Ended(process.returncode, (output + b"\n" + errors).decode(errors="replace"))


def _read(process: subprocess.Popen[bytes], stream: Any, kept: bytearray) -> None:
    """Up to the end of the output, or so far that it is too much."""
    with stream:
        while part := stream.read1(1 << 16):
            kept += part
            if len(kept) > MOST_OUTPUT_BYTES:
                return process.kill()
