"""Which projector belongs to which model, by what both files say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import PurePath
from typing import Any

from deployments.formats.kinds import Kind
from deployments.formats.projectors import projector_of

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
    sees: bool = False

    @classmethod
    def of(cls, name: str, path: str, facts: Mapping[str, Any]) -> PartnerFile:
        is_projector = facts.get("kind") == Kind.PROJECTOR
        width = facts.get("projection_dim" if is_projector else "n_embd")
        told = {
            "arch": "arch",
            "projector_type": "projector_type",
            "basename": "basename",
            "base_model": "base_model",
            "title": "name",
        }
        return cls(
            name,
            path,
            is_projector,
            width,
            sees=is_projector and _sees(facts),
            **{field: str(facts.get(key) or "") for field, key in told.items()},
        )


def _sees(facts: Mapping[str, Any]) -> bool:
    found = projector_of(facts)
    return found is not None and found.sees


class Belonging(StrEnum):
    """What two files say about whether they go together."""

    YES = "yes"
    # Nothing speaks against it, and nothing says so: a person has to choose.
    PERHAPS = "perhaps"
    NO = "no"


def is_possible(model: PartnerFile, projector: PartnerFile) -> bool:
    """Whether an engine can use the two together: of one width, and of a kind that was made for
    it."""
    if model.is_projector or not projector.is_projector:
        return False
    if model.width is None or model.width != projector.width:
        return False
    made_for = PROJECTS_FOR.get(projector.projector_type)
    return made_for is None or model.arch in made_for


def belonging(model: PartnerFile, projector: PartnerFile) -> Belonging:
    """Whether the projector lets this model see or hear, by what both say of themselves.

    Where they lie says nothing, and a width alone many families share: it only rules out.
    """
    if not is_possible(model, projector):
        return Belonging.NO
    return _by_names(model, projector)


def _by_names(model: PartnerFile, projector: PartnerFile) -> Belonging:
    """By the first that both files tell: the name of their family, the model both are made from,
    their own names."""
    for one, other in (
        (model.basename, projector.basename),
        (model.base_model, projector.base_model),
    ):
        names = _plain(one), _plain(other)
        if all(names):
            return Belonging.YES if names[0] == names[1] else Belonging.NO
    titles = _plain(model.title), _plain(projector.title)
    if all(titles) and titles[0] == titles[1]:
        return Belonging.YES
    return Belonging.PERHAPS


def _plain(name: str) -> str:
    """A name without its owner, its punctuation and the words that say nothing of the family."""
    # A dot stays where it is part of a version.
    words = re.sub(r"[^a-z0-9._]+|\.(?!\d)", " ", name.rsplit("/", 1)[-1].lower())
    return " ".join(_FILLERS.sub(" ", words).replace("_", " ").split())


def partners(
    part: PartnerFile,
    others: Iterable[PartnerFile],
    wanted: Belonging = Belonging.YES,
) -> list[PartnerFile]:
    """Of a model its projectors, of a projector its models; the nearest first, then by name."""
    found = [
        other
        for other in others
        if wanted
        == (belonging(other, part) if part.is_projector else belonging(part, other))
    ]
    return sorted(found, key=lambda other: (_steps(part, other), other.name))


def _steps(one: PartnerFile, other: PartnerFile) -> int:
    """From one's folder to the other's."""
    here = PurePath(one.path).parent.parts
    there = PurePath(other.path).parent.parts
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(here, there, strict=False))
    shared = sum(1 for _ in pairs)
    return len(here) + len(there) - 2 * shared
