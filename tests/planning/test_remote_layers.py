"""State-space layers over several RPC devices: what the planner says, and what the engine does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.memory.rig import Rig, rig, start_server
from deployments.formats.gguf import read_header
from deployments.planning.from_header import model_shape
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.memory.use import place
from deployments.planning.plan import DeviceFacts
from deployments.strategies.remote_layers import remote_layers_reasons
from tests.planning.owners_rig import codes, member, plan
from tests.planning.tiny_models import write_tiny

GIB = 1 << 30
RPC = tuple(
    DeviceFacts(f"RPC{n}", "rpc", 24 * GIB, 24 * GIB, endpoint=f"127.0.0.1:{50052 + n}")
    for n in range(3)
)
CUDA = DeviceFacts("CUDA0", "cuda", 24 * GIB, 24 * GIB)
HOST = DeviceFacts("CPU", "cpu", 64 * GIB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.gguf"
    return path if path.exists() else write_tiny(path, name)


# jamba has attention in layers 3 and 7 of 8, mamba in none.
@pytest.mark.parametrize(
    ("model", "cards", "cut", "fix"),
    [
        ("jamba", RPC[:2], (1, 8), "Give the devices before it 3 of the layers"),
        ("jamba", RPC[:2], (6, 3), "Give the devices before it 7 of the layers"),
        ("jamba", RPC[:2], (3, 6), None),
        ("jamba", RPC[:2], (7, 2), None),
        # Only the output.
        ("jamba", RPC[:2], (8, 1), None),
        ("jamba", RPC, (3, 1, 5), "Give the devices before it 3 of the layers"),
        ("jamba", (CUDA, RPC[0]), (1, 8), None),
        ("jamba", (RPC[0], CUDA), (1, 8), None),
        ("mamba", RPC[:2], (4, 5), "Use one device for all of the layers."),
        ("qwen35", RPC[:2], (2, 7), None),
        ("llama", RPC[:2], (2, 7), None),
    ],
)
def test_a_device_that_begins_with_a_state_space_layer_after_another_is_told_of(
    folder: Path,
    model: str,
    cards: tuple[DeviceFacts, ...],
    cut: tuple[float, ...],
    fix: str | None,
) -> None:
    shape = model_shape(read_header(written(folder, model)))
    settings = MemorySettings(tensor_split=tuple(map(float, cut)))
    found = remote_layers_reasons(shape, cards, place(shape, cards, settings))
    if fix is None:
        assert not found
    else:
        (reason,) = found
        assert reason.severity == "caution" and reason.fix.startswith(fix)


def test_layers_that_follow_those_of_the_host_are_no_matter(folder: Path) -> None:
    shape = model_shape(read_header(written(folder, "jamba")))
    settings = MemorySettings(gpu_layers=5)
    assert not remote_layers_reasons(shape, RPC[:1], place(shape, RPC[:1], settings))


def test_a_layer_split_says_so(folder: Path, real_flags: frozenset[str]) -> None:
    model = member(written(folder, "jamba"), *RPC[:2])
    cut, whole = (
        plan(
            "layer_split",
            {"model": model},
            real_flags,
            (*RPC[:2], HOST),
            context=2048,
            tensor_split=shares,
        )
        for shares in ("1,8", "3,6")
    )
    assert "state_space_over_rpc" in codes(cut) and cut.verdict == "caution"
    assert "state_space_over_rpc" not in codes(whole)


# --- the engine -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def engines() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.mark.parametrize(
    ("model", "cut", "runs"),
    [("jamba", "1,8", False), ("jamba", "3,6", True), ("mamba", "4,5", False)],
)
def test_the_engine_ends_where_the_planner_says_so(
    engines: Rig, tmp_path: Path, model: str, cut: str, runs: bool
) -> None:
    """Without a warm-up. Once an engine runs here the caution can go."""
    engines.restart_servers()
    servers = ",".join(engines.endpoints)
    arguments = f"-m {engines.path(model)} -c 512 --rpc {servers} -sm layer -ts {cut}"
    devices = ["--device", ",".join(engines.endpoints.values())]
    log = tmp_path / "engine.log"
    with start_server([*arguments.split(), *devices], log) as (process, _url):
        assert (process.poll() is None) == runs
    assert ("Remote RPC server crashed" in log.read_text(errors="replace")) != runs
