"""What is true of an engine now: does its process live, does it answer, why did it end."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

from deployments.supervision.instances import argument
from deployments.supervision.log_reading import Cause, cause_of_exit
from deployments.supervision.logs import since_start
from deployments.supervision.ports import LOOPBACK
from deployments.supervision.process import Record
from deployments.supervision.reconcile import Health, Observed
from deployments.supervision.runner import boot_id

TIMEOUT_S = 1.0
RPC = "rpc"


def http_health(port: int) -> Health:
    """llama-server: refused until it listens, 503 while the model loads, 200 afterwards."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return Health.READY if connection.getresponse().status == 200 else Health.LOADING
    except ConnectionRefusedError:
        return Health.REFUSED
    except (OSError, http.client.HTTPException):
        return Health.SILENT
    finally:
        connection.close()


def rpc_health(port: int, address: str = LOOPBACK) -> Health:
    """ggml-rpc-server has no health call and serves one client at a time: a connection made to look would wait
    in its queue and fill it. So the kernel is asked whether anything listens (proc(5), net/tcp, state 0A)."""
    wanted = f"{bytes(reversed(socket.inet_aton(address))).hex().upper()}:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        if local == wanted and state == "0A":
            return Health.READY
    return Health.REFUSED


def observe(record: Record | None, role: str, log_path: Path) -> Observed:
    """Of one instance, from its runner's record; no record: it was never started or has been forgotten."""
    if record is None:
        return Observed()
    if record.is_alive or (record.exit_code is None and record.runner_is_alive):
        port = record.port or 0
        health = rpc_health(port, argument(record.argv, "-H") or LOOPBACK) if role == RPC else http_health(port)
        return Observed(health, record.generation)
    return Observed(Health.NONE, record.generation, _cause(record, log_path))


def _cause(record: Record, log_path: Path) -> Cause | None:
    if record.exit_code is None and record.boot_id != boot_id():
        return None  # the host was started anew: nothing failed
    # Without an exit code the runner was killed, and the kernel killed the engine with it.
    return cause_of_exit(since_start(log_path), -9 if record.exit_code is None else record.exit_code)
