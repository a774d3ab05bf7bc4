"""The tensors that hold a layer's experts, by their names in a GGUF file without `.weight`."""

from __future__ import annotations

EXPERT_TENSORS = (
    "ffn_up_exps",
    "ffn_down_exps",
    "ffn_gate_exps",
    "ffn_gate_up_exps",
    "ffn_up_chexps",
    "ffn_down_chexps",
    "ffn_gate_chexps",
)
