"""Which projector belongs to which model, by what both files say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from deployments.formats.kinds import Kind

# clip.projector_type → the only architectures of text models that it was made for (llama.cpp,
# tools/mtmd/clip-impl.h). Types that many families share (mlp, resampler, pixtral, idefics3 …) are
# not here.
PROJECTS_FOR: Mapping[str, frozenset[str]] = {
    "cogvlm": frozenset({"cogvlm"}),
    "gemma3": frozenset({"gemma3"}),
    "gemma3na": frozenset({"gemma3n"}),
    "gemma3nv": frozenset({"gemma3n"}),
    "gemma4a": frozenset({"gemma4"}),
    "gemma4v": frozenset({"gemma4"}),
    "kimivl": frozenset({"deepseek2"}),
    "lfm2": frozenset({"lfm2", "lfm2moe"}),
    "llama4": frozenset({"llama4"}),
    "qwen2.5vl_merger": frozenset({"qwen2vl"}),
    "qwen2vl_merger": frozenset({"qwen2vl"}),
    "qwen3vl_merger": frozenset({"qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"}),
}
# Words of a name that tell a training step or a format, not which model it is.
_FILLERS = re.compile(
    r"\b(mmproj|projector|vision|audio|clip|model|it|pt|base|chat|hf|gguf|instruct"
    r"|bf16|f16|fp16|f32|fp32|"
    r"i?q\d\w*|ud|mxfp4|nvfp4)\b"
)


@dataclass(frozen=True)
class PartnerFile:
    """A file of the library, as far as it matters which belong together."""

    name: str
    path: str
    is_projector: bool
    width: int | None  # of a model its embedding, of a projector what it projects to
    arch: str = ""
    projector_type: str = ""
    basename: str = ""
    base_model: str = ""
    title: str = ""

    @classmethod
    def of(cls, name: str, path: str, facts: Mapping[str, Any]) -> PartnerFile:
        is_projector = facts.get("kind") == Kind.PROJECTOR
        width = facts.get("projection_dim" if is_projector else "n_embd")
        told = ("arch", "projector_type", "basename", "base_model", "name")
        return cls(
            name,
            path,
            is_projector,
            width,
            *(str(facts.get(key) or "") for key in told),
        )


def belong_together(model: PartnerFile, projector: PartnerFile) -> bool:
    """Whether the projector lets this model see or hear: it lies beside it, ends in its width, and
    is of its family.

    Shards often have a folder of their own below the one that the projector is in.
    """
    if model.is_projector or not projector.is_projector:
        return False
    if model.width is None or model.width != projector.width:
        return False
    here = PurePath(model.path).parent
    there = PurePath(projector.path).parent
    return there in (here, here.parent) and _is_family(model, projector)


def _is_family(model: PartnerFile, projector: PartnerFile) -> bool:
    """By the first of these that both files tell: the type of projector, the name, the model both
    are made from."""
    made_for = PROJECTS_FOR.get(projector.projector_type)
    if made_for is not None and model.arch not in made_for:
        return False
    if model.basename and projector.basename:
        return _plain(model.basename) == _plain(projector.basename)
    if model.base_model and projector.base_model:
        return _plain(model.base_model) == _plain(projector.base_model)
    return made_for is not None or _plain(model.title) == _plain(projector.title)


def _plain(name: str) -> str:
    """A name without its owner, its punctuation and the words that say nothing of the family."""
    # A dot stays where it is part of a version.
    words = re.sub(r"[^a-z0-9._]+|\.(?!\d)", " ", name.rsplit("/", 1)[-1].lower())
    return " ".join(_FILLERS.sub(" ", words).replace("_", " ").split())


def partners(part: PartnerFile, others: Iterable[PartnerFile]) -> list[PartnerFile]:
    """Of a model its projectors, of a projector its models; of two folders the nearer one first,
    then by name."""
    if part.is_projector:
        found = [other for other in others if belong_together(other, part)]
    else:
        found = [other for other in others if belong_together(part, other)]
    here = PurePath(part.path).parent
    return sorted(
        found, key=lambda other: (PurePath(other.path).parent != here, other.name)
    )
