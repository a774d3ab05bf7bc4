"""Vocabularies that differ in one thing, as headers and as models that the engine loads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.deployments.gguf_corpus import (
    array,
    header,
    metadata_pair,
    pair,
    tensor,
    write_stub,
)

INT32 = 5
WIDTH, INNER = 32, 64
SIZE = 600
N_SPECIAL = 3 + 256


@dataclass(frozen=True)
class Vocab:
    """What a file says of its vocabulary; None is not written."""

    model: str = "llama"
    pre: str | None = None
    tokens: tuple[str | bytes, ...] = ()
    bos: int | None = 1
    eos: int | None = 2
    add_bos: bool | None = None
    add_eos: bool | None = None

    def metadata(self) -> dict[str, Any]:
        said = {
            "model": self.model,
            "pre": self.pre,
            "tokens": list(self.tokens) or None,
            "bos_token_id": self.bos,
            "eos_token_id": self.eos,
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
        }
        said |= {"merges": ["w 1", "w 2"]} if self.model == "gpt2" else {}
        return {
            f"tokenizer.ggml.{key}": value
            for key, value in said.items()
            if value is not None
        }

    def with_token(self, number: int, text: str | bytes) -> Vocab:
        return replace(
            self, tokens=(*self.tokens[:number], text, *self.tokens[number + 1 :])
        )


def sentencepiece(size: int = SIZE, **said: Any) -> Vocab:
    special = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    return Vocab(
        tokens=special + tuple(f"▁w{number}" for number in range(size - len(special))),
        **said,
    )


def byte_level(size: int = SIZE, pre: str = "gpt-2", **said: Any) -> Vocab:
    plain = [
        byte
        for byte in range(256)
        if 33 <= byte < 127 or 161 <= byte < 173 or byte > 173
    ]
    shifted = [256 + number for number in range(256 - len(plain))]
    special = ("<unk>", "<s>", "</s>", *map(chr, sorted(plain + shifted)))
    words = tuple(f"w{number}" for number in range(size - len(special)))
    return Vocab("gpt2", pre, special + words, **said)


BASE, BYTES = sentencepiece(), byte_level()
# name: target, draft, what draft_compatibility calls it.
PAIRS: Mapping[str, tuple[Vocab, Vocab, str]] = {
    "same": (BASE, BASE, "compatible"),
    "token 7 differs": (BASE, BASE.with_token(7, "other"), "vocab_texts"),
    "token 5 differs": (BASE, BASE.with_token(5, "other"), "vocab_texts"),
    "token 4 differs": (BASE, BASE.with_token(4, "other"), "compatible"),
    "last common token differs": (
        sentencepiece(SIZE + 100),
        BASE.with_token(SIZE - 1, "other"),
        "vocab_texts",
    ),
    "draft has 128 fewer": (sentencepiece(SIZE + 128), BASE, "compatible"),
    "draft has 128 more": (BASE, sentencepiece(SIZE + 128), "compatible"),
    "draft has 129 fewer": (sentencepiece(SIZE + 129), BASE, "vocab_size"),
    "draft has 129 more": (BASE, sentencepiece(SIZE + 129), "vocab_size"),
    "another BOS": (BASE, sentencepiece(bos=3), "vocab_bos"),
    "another BOS that nobody adds": (
        sentencepiece(add_bos=False),
        sentencepiece(add_bos=False, bos=3),
        "compatible",
    ),
    "draft adds no BOS": (BASE, sentencepiece(add_bos=False), "vocab_bos"),
    "BOS is added by default": (sentencepiece(add_bos=True), BASE, "compatible"),
    "another EOS": (BASE, sentencepiece(eos=3), "compatible"),
    "another EOS that both add": (
        sentencepiece(add_eos=True),
        sentencepiece(add_eos=True, eos=3),
        "vocab_eos",
    ),
    "draft adds EOS": (BASE, sentencepiece(add_eos=True), "vocab_eos"),
    "BOS outside the vocabulary": (BASE, sentencepiece(bos=SIZE), "compatible"),
    "an empty token has a name": (
        BASE.with_token(300, ""),
        BASE.with_token(300, "[EMPTY_300]"),
        "compatible",
    ),
    "what follows a NUL": (
        BASE.with_token(300, "a\0b"),
        BASE.with_token(300, "a"),
        "compatible",
    ),
    "bytes that are no text": (
        BASE.with_token(9, b"\xff\xfe"),
        BASE.with_token(9, b"\xff\xfd"),
        "vocab_texts",
    ),
    "another kind of tokenizer": (BASE, BYTES, "vocab_type"),
    "another pre-tokenizer": (BYTES, byte_level(pre="qwen2"), "compatible"),
    "a pre-tokenizer that adds BOS": (BYTES, byte_level(pre="llama-bpe"), "vocab_bos"),
    "its BOS switched off": (
        BYTES,
        byte_level(pre="llama-bpe", add_bos=False),
        "compatible",
    ),
}


def write_header(path: Path, vocab: Vocab) -> Path:
    return write_stub(path, {"general.architecture": "llama"} | vocab.metadata(), [])


def _tensors(n_vocab: int) -> dict[str, tuple[int, ...]]:
    names = {
        "token_embd": (WIDTH, n_vocab),
        "output_norm": (WIDTH,),
        "output": (WIDTH, n_vocab),
    }
    names |= {f"blk.0.{norm}_norm": (WIDTH,) for norm in ("attn", "ffn")}
    names |= {
        f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")
    }
    names |= {f"blk.0.ffn_{part}": (WIDTH, INNER) for part in ("gate", "up")}
    return {
        f"{name}.weight": shape
        for name, shape in (names | {"blk.0.ffn_down": (INNER, WIDTH)}).items()
    }


def write_model(path: Path, vocab: Vocab) -> Path:
    """One layer of random numbers; equal vocabularies give equal models, so every draft is
    accepted."""
    chance, infos, data, offset = np.random.default_rng(1), [], [], 0
    for name, shape in _tensors(len(vocab.tokens)).items():
        values = (
            np.ones(shape[::-1])
            if "norm" in name
            else chance.normal(0, 0.3, shape[::-1])
        )
        if name == "output.weight":
            values[:N_SPECIAL] = 0  # answers are words, as bytes at random are no UTF-8
        infos.append(tensor(name, shape, 0, offset))
        data.append(values.astype(np.float32).tobytes())
        offset += len(data[-1])
    said = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 512,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH,
    }
    kinds = _token_types(vocab)
    pairs = [
        metadata_pair(key, value) for key, value in (said | vocab.metadata()).items()
    ]
    pairs.append(
        pair(
            "tokenizer.ggml.token_type",
            9,
            array(INT32, len(kinds), struct.pack(f"<{len(kinds)}i", *kinds)),
        )
    )
    scores = [-float(number) for number in range(len(vocab.tokens))]
    pairs.append(metadata_pair("tokenizer.ggml.scores", scores))
    head = header(pairs, infos)
    path.write_bytes(head + bytes(-len(head) % 32) + b"".join(data))
    return path


def _token_types(vocab: Vocab) -> list[int]:
    """normal 1, unknown 2, control 3, byte 6 (llama.h, llama_token_type)."""
    special = {0: 2, 1: 3, 2: 3}
    return [
        special.get(i, 6 if str(text).startswith("<0x") else 1)
        for i, text in enumerate(vocab.tokens)
    ]
