"""What a projector takes beside its model, in bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

from deployments.formats.model_facts import ModelFacts
from deployments.formats.projectors import Encoder, Projector, projector_of
from deployments.planning.memory.encoder import EncoderShape, encoder_bytes

# Types whose encoder has a vector for the whole picture beside those of the patches.
WITH_CLASS = frozenset({"mlp", "mlp_norm", "ldp", "ldpv2", "internvl", "llama4"})
# Encoders that listen look at 30 seconds at a time: 3000 frames, joined in twos (whisper).
FRAMES_AT_ONCE = 1500
# More patches than any encoder looks at at once: a header that says so is not computed with.
MOST_PATCHES = 1 << 18


@dataclass(frozen=True)
class ProjectorUse:
    """Bytes of the projector on its device, and beside it on the host; `tokens` is the most that
    one image takes of the context, None where that is not known."""

    weights_bytes: int
    compute_bytes: int
    host_bytes: int
    tokens: int | None

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.compute_bytes


def projector_use(
    facts: ModelFacts, kind: str, *, flash: bool, image_tokens: int = 0
) -> ProjectorUse:
    """On a device of this kind; `image_tokens` limits images that keep their own size.

    Each encoder has a working memory of its own.
    """
    weights = sum(facts.quant_bytes.values()) or facts.size_bytes
    found = projector_of(facts.as_dict())
    if found is None:
        return ProjectorUse(weights, 0, 0, None)
    if found.keeps_size and image_tokens:
        patches = image_tokens * found.merge * found.merge
        found = replace(found, tokens=image_tokens, patches=patches)
    sizes = [
        encoder_bytes(shape, kind, flash=flash)
        for shape in (_looking(found), _listening(found))
        if shape
    ]
    device = sum(size[0] for size in sizes)
    host = sum(size[1] for size in sizes)
    if kind == "cpu":
        return ProjectorUse(weights, host, 0, found.tokens)
    return ProjectorUse(weights, device, host, found.tokens)


def _looking(found: Projector) -> EncoderShape | None:
    """For the largest picture that is encoded at once; None where the header does not tell."""
    patches = min(found.patches or 0, MOST_PATCHES)
    side = isqrt(patches)
    if not found.sees or not side or not _is_known(found.vision):
        return None
    is_whole = found.tokens is not None and found.tokens >= patches
    tokens = patches if is_whole else min(found.tokens or patches, patches)
    return _shape(
        found.vision, side, found.patch_size, found.vision.type in WITH_CLASS, tokens
    )


def _listening(found: Projector) -> EncoderShape | None:
    if not found.hears or not _is_known(found.audio):
        return None
    side = isqrt(FRAMES_AT_ONCE - 1) + 1
    return _shape(found.audio, side, 1, False, side * side // 2)


def _shape(
    encoder: Encoder, side: int, patch_size: int, has_class: bool, tokens: int
) -> EncoderShape:
    return EncoderShape(
        encoder.n_embd,
        encoder.n_ff or 4 * encoder.n_embd,
        encoder.n_head,
        encoder.n_layer,
        side,
        patch_size,
        has_class,
        tokens,
        encoder.width or encoder.n_embd,
    )


def _is_known(encoder: Encoder) -> bool:
    return bool(encoder.n_embd and encoder.n_layer)
