"""The ways to an engine that are compared, each with the processes that it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import psutil

from deployments.engines.probe.environment import engine_environment
from tests.gateway.served import Served
from tests.helpers import free_port, wait_until
from tests.panel import ROOT

START_S = 120.0


@dataclass(frozen=True)
class Arm:
    """One way: where it is asked, under which name of the model, and its processes."""

    name: str
    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    # A router that starts its engines itself has them among its processes.
    without: str = ""
    # Takes minutes for what the others do in seconds.
    is_slow: bool = False

    def _processes(self) -> Iterator[psutil.Process]:
        for pid in self.pids:
            parent = psutil.Process(pid)
            yield parent
            for child in parent.children(recursive=True):
                if not self.without or self.without not in child.cmdline():
                    yield child

    def cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(one.user + one.system for one in times)

    def memory_bytes(self) -> int:
        """What nobody else has: its private pages."""
        return sum(process.memory_full_info().uss for process in self._processes())


def asked(
    arm: Arm, streams: int, fields: dict[str, Any], spread_s: float = 0
) -> subprocess.Popen[str]:
    """A client in a process of its own that opens so many streams; its answer is on stdout."""
    message = {"role": "user", "content": "Tell me a long story about a river."}
    body = {"model": arm.model, "stream": True, "messages": [message], **fields}
    question = {
        "url": arm.url,
        "path": "/v1/chat/completions",
        "headers": arm.headers,
        "body": body,
        "streams": streams,
        "spread_s": spread_s,
    }
    asking = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relays.asking"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert asking.stdin
    asking.stdin.write(json.dumps(question))
    asking.stdin.close()
    return asking


def answers(asking: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What the client measured, when it has ended."""
    assert asking.stdout
    with asking:
        found: list[dict[str, Any]] = json.load(asking.stdout)
    return found


# --- the processes --------------------------------------------------------------------------------
@contextmanager
def running(
    argv: Sequence[str], url: str, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at this address when it is ready; ended with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: _answers(url, process), START_S, lambda: log.read_text()[-3000:]
        )
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "it ended while starting"
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


@contextmanager
def synthetic(folder: Path) -> Iterator[Arm]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "benchmarks.relays.upstream", str(port)]
    with running(argv, f"{url}/health", folder / "upstream.log") as process:
        yield Arm("direct", url, "synthetic", pids=(process.pid,))


@contextmanager
def omni(served: Served, model: str) -> Iterator[list[Arm]]:
    """The gateway's own process, and the panel's web server, beside each other on one database."""
    with ExitStack() as stack:
        served.start()
        stack.callback(served.stop)
        assert served.process
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "manage.py", "gateway", "--port", str(port)]
        log = served.home.root / "gateway.log"
        gateway = stack.enter_context(
            running(argv, f"{url}/healthz", log, dict(served.env))
        )
        key = served.headers
        yield [
            Arm("Omni", url, model, key, (gateway.pid,)),
            Arm("Omni, panel's port", served.url, model, key, (served.process.pid,)),
        ]


NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u;
  scgi_temp_path {folder}/nginx-s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass {url}; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, direct: Arm) -> Iterator[Arm]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, url=direct.url))
    url = f"http://127.0.0.1:{port}"
    argv = ["nginx", "-e", str(folder / "nginx-error.log"), "-c", str(config)]
    with running(argv, f"{url}/v1/models", folder / "nginx.log") as process:
        yield Arm("nginx", url, direct.model, direct.headers, (process.pid,))


LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: {url}/v1, api_key: {key}}}
general_settings: {{master_key: {own}}}
litellm_settings: {{telemetry: false, drop_params: false, num_retries: 0}}
"""


@contextmanager
def litellm(folder: Path, python: Path, direct: Arm) -> Iterator[Arm]:
    port = free_port()
    config = folder / "litellm.yaml"
    bearer = direct.headers.get("authorization", "Bearer none").partition(" ")[2]
    own = f"sk-{token_hex(16)}"
    config.write_text(
        LITELLM.format(model=direct.model, url=direct.url, key=bearer, own=own)
    )
    url = f"http://127.0.0.1:{port}"
    # Started through Python: where a command's own first line points may have been moved.
    start = "import sys; from litellm import run_server; sys.exit(run_server())"
    argv = [str(python), "-c", start, "--config", str(config)]
    argv += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    with running(
        argv, f"{url}/health/liveliness", folder / "litellm.log", env
    ) as process:
        headers = {"authorization": f"Bearer {own}"}
        pids = (process.pid,)
        yield Arm("LiteLLM", url, direct.model, headers, pids, is_slow=True)


@contextmanager
def router(
    folder: Path, binary: Path, model: str, flags: Sequence[str]
) -> Iterator[Arm]:
    """llama.cpp's own router, which starts the engine that it asks."""
    port = free_port()
    preset = folder / "router.ini"
    preset.write_text(f"[smol]\nmodel = {model}\n")
    url = f"http://127.0.0.1:{port}"
    argv = [str(binary), "--models-preset", str(preset), "--port", str(port), *flags]
    env = engine_environment(argv[0])
    log = folder / "router.log"
    with running(argv, f"{url}/health", log, env) as process:
        yield Arm("llama.cpp router", url, "smol", pids=(process.pid,), without="-m")
