"""What an engine's process may see of this process's environment."""

from __future__ import annotations

import os

from deployments.engines.probe.portable_cpu import library_env
from gpus import visible

# 135 of llama-server's flags can also be set by LLAMA_ARG_* variables: only what a process needs is
# handed on.
KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VK_ICD_FILENAMES",
    visible.NAME,
)


# Cards are counted in bus order, as NVML counts them. One that aborts must not wait for a
# debugger's backtrace first, which takes ten seconds where gdb is installed.
GIVEN = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "GGML_NO_BACKTRACE": "1"}


def process_environment() -> dict[str, str]:
    """What any process that is no part of the panel itself may have: no password, token, key or
    database address."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def engine_environment(binary: str) -> dict[str, str]:
    return process_environment() | GIVEN | library_env(binary)
