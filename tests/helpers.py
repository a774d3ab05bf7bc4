"""Small helpers of all tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import TypeVar

import psutil

from deployments.engines.probe.environment import engine_environment

T = TypeVar("T")

# No wait gives up before this: a busy machine does everything later, and that is no failure. How
# fast something is stands in `benchmarks/`.
PATIENCE_S = 45.0
# Whoever waits leaves the machine to what it waits for: after a look it rests as long as that took,
# a command in another process for example, and several times as long as it computed itself.
RESTS, LONGEST_REST_S = 8.0, 0.25


def wait_until(
    predicate: Callable[[], T],
    timeout_s: float,
    message: str | Callable[[], str] = "",
    interval_s: float = 0.02,
) -> T:
    """The first true value of predicate; fails with the message when the time is over.

    `timeout_s` is how long it may take at all; what is less than PATIENCE_S counts as that.
    """
    timeout_s = max(timeout_s, PATIENCE_S)
    deadline = time.monotonic() + timeout_s
    while True:
        began_s, computed_s = time.monotonic(), time.thread_time()
        if value := predicate():
            return value
        if time.monotonic() > deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"not within {timeout_s:g} s: {text or predicate}")
        computed_s, took_s = time.thread_time() - computed_s, time.monotonic() - began_s
        rest_s = min(max(took_s, RESTS * computed_s), LONGEST_REST_S)
        time.sleep(max(interval_s, rest_s))


def squeezed(markup: str) -> str:
    """A page without the white space that its layout in lines needs: none beside a tag, one space
    elsewhere; what stands in <pre> and <textarea> is left as it is."""
    parts = re.split(r"(<(pre|textarea)\b.*?</\2>)", markup, flags=re.S)
    loose, kept = parts[::3], parts[1::3]
    tight = [re.sub(r"(?<=>) | (?=<)", "", re.sub(r"\s+", " ", part)) for part in loose]
    text = "".join(chain.from_iterable(zip_longest(tight, kept, fillvalue="")))
    return re.sub(r"(</\w+)\s+>", r"\1>", text)


def lives(process: psutil.Process) -> bool:
    """Whether it still runs: a zombie does not, nor one that ends while it is asked."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def last_words(argv: Sequence[str], expected: str, socket: Path | None = None) -> str:
    """What an engine says that ends by itself.

    It writes its log beside the work: now and then it ends before all is written. So it is run
    again while what is expected is not in it, a few times, without the socket it left.
    """
    said = ""
    for _ in range(5):
        if socket:
            socket.unlink(missing_ok=True)
        ended = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=engine_environment(str(argv[0])),
        )
        said = ended.stdout + ended.stderr
        if expected in said:
            break
    return said


# Below the ports that Linux gives to outgoing connections (32768 and up), which come and go at any
# moment; each of the processes that share the tests has a range of its own.
FIRST_PORT, PROCESSES, EACH, BLOCK = 10_000, 4, 5_500, 50
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_first = FIRST_PORT + _worker % PROCESSES * EACH
# Another run of the tests beside this one begins somewhere else.
_singles, _blocks, _panel_blocks = (
    count(os.getpid()),
    count(os.getpid()),
    count(os.getpid()),
)


def free_port() -> int:
    return next(
        port for port in (_first + n % 1000 for n in _singles) if _is_free(port)
    )


def free_ports() -> tuple[int, int]:
    """First and last of the ports for the engines of one test."""
    return _free_block(_blocks, _first + 1000, 50)


def panel_ports() -> tuple[int, int]:
    """The same for a panel, which may live as long as the tests do."""
    return _free_block(_panel_blocks, _first + 3500, 40)


def _free_block(numbers: Iterator[int], begin: int, blocks: int) -> tuple[int, int]:
    for first in (begin + n % blocks * BLOCK for n in numbers):
        if all(_is_free(port) for port in range(first, first + BLOCK)):
            return first, first + BLOCK - 1
    raise AssertionError("no ports are left")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class HandClock:
    """Time that passes only by hand, or by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def of_itself(warnings: Sequence[str]) -> list[str]:
    """A benchmark's warnings without the load of other tests, which run on this machine at the same
    time."""
    return [text for text in warnings if not text.startswith("Other work than Omni's")]


def cases(usual: int, all_of_them: int) -> int:
    """How many random cases to look at; OMNI_TEST_ALL_CASES=1 asks for all, which takes minutes."""
    return all_of_them if os.environ.get("OMNI_TEST_ALL_CASES") == "1" else usual
