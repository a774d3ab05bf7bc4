"""A model of more than 40 GB with its whole vocabulary, whose weights are a hole in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.formats.gguf import TensorInfo, read_header
from tests.deployments.gguf_corpus import write_stub
from tests.planning.stand_ins import llama_70b

N_VOCAB = 150_000


def vocabulary(n_vocab: int = N_VOCAB) -> dict[str, Any]:
    """As long as those of real models: tokens of 3 to 11 bytes, their types, and as many merges."""
    tokens = [f"Ġ{number:x}{'ing' * (number % 3)}" for number in range(n_vocab)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * n_vocab,
        "tokenizer.ggml.merges": [f"Ġ{number:x} ing" for number in range(n_vocab)],
        "tokenizer.chat_template": "{{ messages }}" * 400,
    }


def big_model(path: Path) -> Path:
    keys, tensors = _of_70b(path)
    return write_stub(path, keys | vocabulary(), tensors)


def big_shards(folder: Path, count: int = 3) -> list[Path]:
    """The same in several files, as llama-gguf-split cuts it: the first has the keys, each its own
    tensors."""
    keys, tensors = _of_70b(folder / "whole.gguf")
    size = -(-len(tensors) // count)
    paths = []
    for number in range(count):
        own = tensors[number * size : (number + 1) * size]
        split = {"split.no": number, "split.count": count}
        said = {**keys, **vocabulary()} if number == 0 else {}
        if number == 0:
            split["split.tensors.count"] = len(tensors)
        path = folder / f"big-Q4_K_M-{number + 1:05d}-of-{count:05d}.gguf"
        paths.append(write_stub(path, said | split, own))
    return paths


def _of_70b(
    path: Path,
) -> tuple[Mapping[str, Any], Sequence[tuple[str, tuple[int, ...], int]]]:
    header = read_header(llama_70b(path))
    return dict(header.metadata), [_stub(tensor) for tensor in header.tensors]


def _stub(tensor: TensorInfo) -> tuple[str, tuple[int, ...], int]:
    return tensor.name, tensor.shape, tensor.ggml_type.id
