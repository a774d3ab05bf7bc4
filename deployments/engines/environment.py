"""What an engine's process may see of this process's environment."""

from __future__ import annotations

import os

from deployments.engines.portable_cpu import library_env

# 135 of llama-server's flags can also be set by LLAMA_ARG_* variables: only what a process needs is handed on.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VK_ICD_FILENAMES")


def engine_environment(binary: str) -> dict[str, str]:
    """Cards are counted in bus order, as NVML counts them."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | library_env(binary)
