"""What a projector adds to the plan of its model: bytes on a device, tokens of the context, and
what has to be said of the two together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deployments.engines.base import ProjectorSpec
from deployments.formats.partners import Belonging, PartnerFile, belonging, is_possible
from deployments.formats.projectors import projector_of
from deployments.planning.memory.projector import ProjectorUse, projector_use
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.memory.use import MemoryUse
from deployments.planning.plan import (
    DeviceFacts,
    DeviceUse,
    Figure,
    Member,
    PlanRequest,
    Reason,
)
from deployments.planning.roles import PROJECTOR
from deployments.strategies.base import caution, error
from omni.units import bytes_text

# Beside an image: a question, and the beginning of an answer.
TOKENS_BESIDE = 256
# Their images are read at once, each token with all others, so a micro-batch has to hold them
# (tools/mtmd, mtmd_decode_use_non_causal).
READ_AT_ONCE = frozenset({"gemma3", "gemma4v"})


@dataclass(frozen=True)
class Projection:
    """A projector at its place: the first card of its model, else the host."""

    member: Member
    device: DeviceFacts
    host: DeviceFacts
    use: ProjectorUse

    @property
    def is_on_host(self) -> bool:
        return self.device.kind == "cpu"

    @property
    def reserved(self) -> dict[str, int]:
        """Bytes by device, for its model to leave alone."""
        beside = {} if self.is_on_host else {self.host.name: self.use.host_bytes}
        return beside | {self.device.name: self.use.total_bytes}

    @property
    def spec(self) -> ProjectorSpec:
        device = None if self.is_on_host else self.device
        return ProjectorSpec(self.member.path, device)

    def added_to(self, use: MemoryUse) -> MemoryUse:
        return replace(use, devices=tuple(map(self._with_own, use.devices)))

    def _with_own(self, use: DeviceUse) -> DeviceUse:
        return replace(use, projector_bytes=self.reserved.get(use.name, 0))

    def figures(self) -> tuple[Figure, ...]:
        sizes = (
            f"{bytes_text(self.use.weights_bytes)} and"
            f" {bytes_text(self.use.compute_bytes)} to work with, on {self.device.name}"
        )
        found = [Figure("projector", f"Projector {self.member.name}", sizes)]
        if self.use.tokens:
            text = f"up to {self.use.tokens:,} tokens"
            found.append(Figure("image_tokens", "An image takes", text))
        return tuple(found)


def projection(
    request: PlanRequest,
    cards: tuple[DeviceFacts, ...],
    host: DeviceFacts,
    settings: MemorySettings,
) -> Projection | None:
    """None where the request has no projector."""
    member = request.members.get(PROJECTOR)
    if member is None:
        return None
    device = cards[0] if cards and settings.offload_projector else host
    use = projector_use(
        member.facts,
        device.kind,
        flash=settings.flash,
        image_tokens=settings.image_tokens,
    )
    return Projection(member, device, host, use)


def pair_reasons(request: PlanRequest, serving_role: str) -> list[Reason]:
    """Whether the projector of a request and its model belong together."""
    projector = request.members.get(PROJECTOR)
    model = request.members.get(serving_role)
    if projector is None or model is None or not projector.facts.is_projector:
        return []
    files = [
        PartnerFile.of(each.name, each.path, each.facts.as_dict())
        for each in (model, projector)
    ]
    fix = "Choose the projector that was published with the model."
    if not is_possible(*files):
        text = (
            f"{projector.name} was made for models of"
            f" {_makes(projector)}; {model.name} is {model.facts.arch} with vectors of"
            f" {model.facts.n_embd or 'unknown'}. The engine does not start with both."
        )
        return [error("projector_mismatch", text, fix)]
    if belonging(*files) == Belonging.NO:
        text = (
            f"{projector.name} names another model than {model.name} as its own: images may be"
            " misread."
        )
        return [caution("projector_of_another", text, fix)]
    return []


def _makes(projector: Member) -> str:
    kind = projector.facts.projector_type
    width = projector.facts.projection_dim or "unknown"
    return f"{kind or 'an unknown kind'} with vectors of {width}"


def room_reasons(found: Projection | None, settings: MemorySettings) -> list[Reason]:
    """Whether an image has room in the context, and in a micro-batch."""
    tokens = found.use.tokens if found else None
    if found is None or not tokens:
        return []
    reasons = []
    slots = 1 if settings.kv_unified else max(settings.parallel, 1)
    needed = (tokens + TOKENS_BESIDE) * slots
    if settings.context < needed:
        text = (
            f"One image takes up to {tokens:,} tokens; the context of a request has"
            f" {settings.context // slots:,}."
        )
        fix = f"Give it {needed:,} tokens or more."
        reasons.append(caution("image_beyond_context", text, fix, context=needed))
    kind = projector_of(found.member.facts.as_dict())
    if kind and kind.vision.type in READ_AT_ONCE and settings.ubatch < tokens:
        text = (
            f"An image of {tokens:,} tokens is read at once, and a micro-batch has"
            f" {settings.ubatch:,}."
        )
        fix = f"Make micro-batches of {tokens:,} tokens."
        reasons.append(caution("image_beyond_batch", text, fix, ubatch=tokens))
    return reasons
