"""What is true of an engine now: does its process live, does it answer, why did it end."""

from __future__ import annotations

import errno
import os
from http import HTTPStatus
from pathlib import Path

import httpx

from deployments.instances.address import EngineAddress
from deployments.instances.engine_client import ask_within, engine_request, system_error
from deployments.instances.logs import since_start
from deployments.instances.ports import LOOPBACK
from deployments.supervision.decision import Health, Observed
from deployments.supervision.log_reading import Cause, cause_of_exit
from deployments.supervision.process import Record, read_record
from deployments.supervision.runner import boot_id
from omni.listeners import NO_MORE_FILES, listening_inodes

TIMEOUT_S = 1.0
RPC = "rpc"
MOST_BYTES = 64 << 10


def http_health(address: EngineAddress) -> Health:
    """llama-server: refused until it listens, 503 while the model loads, 200 afterwards.

    Raises OSError when this process may open no more files to ask with.
    """
    request = engine_request(address, "/health", None, TIMEOUT_S, key="")
    try:
        status, _ = ask_within(TIMEOUT_S, request, MOST_BYTES)
    except httpx.ConnectError as error:
        return _why_not_connected(error)
    except httpx.HTTPError:
        return Health.SILENT
    if status == HTTPStatus.OK:
        return Health.READY
    return Health.LOADING


def _why_not_connected(error: httpx.ConnectError) -> Health:
    """By what the system said; where it said nothing, another process listens there."""
    said = system_error(error)
    if said in NO_MORE_FILES:
        raise OSError(said, os.strerror(said)) from error
    is_refused = said in (None, errno.ECONNREFUSED, errno.ENOENT)
    if is_refused:
        return Health.REFUSED
    return Health.SILENT


def rpc_health(port: int, address: str = LOOPBACK, pid: int | None = None) -> Health:
    """ggml-rpc-server has no health call and serves one client at a time: a connection made to look
    would wait in its queue and fill it. So the kernel is asked whether anything listens, in the
    network namespace of the process."""
    try:
        listeners = listening_inodes(port, pid or os.getpid(), address)
    except OSError as error:
        if error.errno in NO_MORE_FILES:
            raise
        return Health.REFUSED  # the process has gone
    return Health.READY if listeners else Health.REFUSED


def observe(record: Record | None, role: str, log_path: Path, run: Path) -> Observed:
    """Of one instance, from its runner's record; no record: it was never started or has been
    forgotten."""
    if record is None:
        return Observed()
    if record.is_alive or (record.exit_code is None and record.runner_is_alive):
        return Observed(_health(record, role), record.generation)
    return Observed(
        Health.NONE, record.generation, _cause(_final(record, run), log_path)
    )


def _final(record: Record, run: Path) -> Record:
    """The record as it is now that the runner writes no more: the exit code may be younger than
    what was read."""
    if record.exit_code is None:
        now = read_record(run, record.instance)
    else:
        now = None
    if now and now.generation == record.generation:
        return now
    return record


def _health(record: Record, role: str) -> Health:
    if role != RPC:
        address = record.address
        if address:
            return http_health(address)
        return Health.REFUSED
    # Its port stays open when it is halted, and it is never asked: only its process tells.
    if record.is_halted:
        return Health.SILENT
    return rpc_health(
        record.port or 0, record.launch.bind_address or LOOPBACK, record.pid
    )


def _cause(record: Record, log_path: Path) -> Cause | None:
    if record.exit_code is None and record.boot_id != boot_id():
        return None  # the host was started again: nothing failed
    # Without an exit code the runner was killed, and the kernel killed the engine with it.
    exit_code = -9 if record.exit_code is None else record.exit_code
    return cause_of_exit(since_start(log_path), exit_code, record.launch.rpc_endpoints)
