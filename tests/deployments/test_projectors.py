"""What is read of a projector's header, whoever wrote it."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from deployments.formats.gguf import GgufError, read_header
from deployments.formats.model_facts import facts
from deployments.formats.projectors import Medium, projector_of
from deployments.planning.memory.projector import projector_use
from tests.deployments.gguf_corpus import write_stub
from tests.vision_models import Eye, write_projector

IMAGE = frozenset({Medium.IMAGE})
AUDIO = frozenset({Medium.AUDIO})


def keys(**changes: Any) -> dict[str, Any]:
    """Of a header, without `clip.`; __ stands for a dot."""
    base = {
        "has_vision_encoder": True,
        "vision.image_size": 336,
        "vision.patch_size": 14,
        "vision.embedding_length": 1024,
        "vision.block_count": 24,
        "vision.attention.head_count": 16,
    }
    return base | {key.replace("__", "."): value for key, value in changes.items()}


def read(hparams: dict[str, Any]) -> Any:
    return projector_of({"kind": "projector", "hparams": hparams})


@pytest.mark.parametrize(
    ("said", "media"),
    [
        ({"has_vision_encoder": True}, IMAGE),
        ({"has_audio_encoder": True}, AUDIO),
        ({"has_audio_encoder": True, "has_vision_encoder": True}, IMAGE | AUDIO),
        ({"has_audio_encoder": True, "has_vision_encoder": False}, AUDIO),
        # From before there were such keys.
        ({"vision.embedding_length": 64}, IMAGE),
        ({"audio.embedding_length": 64}, AUDIO),
        ({}, frozenset()),
        ({"has_vision_encoder": "yes"}, frozenset()),
    ],
)
def test_what_sees_and_what_hears_are_told_apart(
    said: dict[str, Any], media: frozenset[Medium]
) -> None:
    found = read(said)
    assert (found.media, found.sees, found.hears) == (
        media,
        Medium.IMAGE in media,
        Medium.AUDIO in media,
    )


# llama.cpp, clip_n_output_tokens: what one image becomes at most.
@pytest.mark.parametrize(
    ("hparams", "tokens", "patches"),
    [
        (keys(projector_type="mlp"), 576, 576),
        # LLaVA 1.6: the whole, and as many pieces as its largest grid has.
        (
            keys(
                projector_type="mlp",
                vision__image_grid_pinpoints=[336, 672, 672, 672, 1008, 336],
            ),
            576 * 5,
            576,
        ),
        # Gemma 3: 896 / 14 = 64 patches of a side, four of which become one token.
        (keys(projector_type="gemma3", vision__image_size=896), 256, 4096),
        # SmolVLM-256M: 64 tokens of each piece of 512, up to 4 × 4 pieces and the whole.
        (
            keys(
                projector_type="idefics3",
                vision__image_size=512,
                vision__patch_size=16,
                vision__projector__scale_factor=4,
                vision__preproc_image_size=2048,
            ),
            64 * 17,
            1024,
        ),
        # InternVL: 256 tokens of each of up to 12 pieces and the whole.
        (
            keys(
                projector_type="internvl",
                vision__image_size=448,
                vision__projector__scale_factor=2,
            ),
            256 * 13,
            1024,
        ),
        # These keep an image's own size up to a limit.
        (keys(projector_type="qwen2.5vl_merger"), 4096, 4096 * 4),
        (keys(projector_type="pixtral", vision__spatial_merge_size=2), 1024, 4096),
        (keys(projector_type="gemma4v"), 280, 280 * 9),
        (
            keys(
                projector_type="phi4",
                vision__patch_size=16,
                vision__image_max_pixels=16 * 16 * 3600,
            ),
            3600,
            3600,
        ),
        (keys(projector_type="resampler", minicpmv_version=3), 64, 576),
        (keys(projector_type="resampler", minicpmv_version=2), 96, 576),
        (keys(projector_type="gemma3nv"), 256, 576),
        (keys(projector_type="ldpv2"), 144, 576),
        # Nothing can be said without sizes, or with such as no encoder has.
        (keys(vision__patch_size=0), None, None),
        (keys(vision__patch_size=1 << 40), None, None),
        (keys(vision__image_size=-5), None, None),
        (keys(vision__image_size="336"), None, None),
        (keys(vision__image_size=True), None, None),
    ],
)
def test_how_many_tokens_an_image_becomes(
    hparams: dict[str, Any], tokens: int | None, patches: int | None
) -> None:
    found = read(hparams)
    assert (found.tokens, found.patches) == (tokens, patches)


def test_what_is_no_projector_has_no_reading() -> None:
    assert projector_of({"kind": "text", "hparams": keys()}) is None
    assert projector_of({}) is None


def test_a_real_file_is_read_whole(tmp_path: Path) -> None:
    eye = Eye("idefics3", n_embd=32, image_size=64, patch_size=16, merge=2)
    found = facts(read_header(write_projector(tmp_path / "mmproj.gguf", eye)))
    seen = projector_of(found.as_dict())
    assert seen
    assert (seen.media, seen.vision.type, seen.tokens) == (IMAGE, "idefics3", 4)
    assert (seen.vision.n_embd, seen.vision.n_ff, seen.vision.n_layer) == (32, 128, 2)
    assert (found.projection_dim, found.basename) == (576, "smollm2")


NASTY: list[Any] = [
    0,
    -1,
    1,
    2**31,
    2**32 - 1,
    2**63,
    1.5,
    float("inf"),
    float("nan"),
    True,
    "",
    "x" * 70_000,
    [],
    [0],
    [2**31 - 1] * 4,
    ["a", "b"],
    [float("nan")],
]


def test_no_header_makes_it_crash_or_compute_for_long(tmp_path: Path) -> None:
    """Any key with any value, and any of them left out: facts are read, or the file is refused."""
    chance = random.Random(14)
    whole = {"general.architecture": "clip", "general.type": "mmproj"}
    whole |= {
        f"clip.{key}": value
        for key, value in keys(
            projector_type="mlp",
            has_audio_encoder=True,
            audio__embedding_length=1280,
            audio__block_count=32,
            vision__image_grid_pinpoints=[336, 672],
            vision__preproc_image_size=2048,
            vision__projector__scale_factor=4,
            vision__image_max_pixels=1 << 20,
            minicpmv_version=3,
        ).items()
    }
    for number in range(300):
        mixed = dict(whole)
        for key in chance.sample(sorted(whole)[1:], chance.randint(1, 5)):
            value = chance.choice([None, *NASTY])
            mixed.pop(key)
            if value is not None:
                mixed[key] = value
        path = tmp_path / f"{number}.gguf"
        try:
            write_stub(path, mixed, [("v.patch_embd.weight", (32, 32), 0)])
        except (struct.error, OverflowError, LookupError):
            continue  # no GGUF can hold it
        try:
            found = facts(read_header(path))
        except GgufError:
            continue
        read_ = projector_of(found.as_dict())
        for kind in ("cpu", "cuda"):
            use = projector_use(found, kind, flash=chance.random() < 0.5)
            assert min(use.weights_bytes, use.compute_bytes, use.host_bytes) >= 0
        assert read_ is None or read_.tokens is None or read_.tokens > 0
