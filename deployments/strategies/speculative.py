"""A small draft proposes tokens, the large target checks several of them in one pass."""

from __future__ import annotations

from dataclasses import replace

from deployments.engines import get_flavour
from deployments.engines.base import DraftSpec
from deployments.engines.mtp import has_mtp
from deployments.planning.drafts import (
    DraftModel,
    compatibility,
)
from deployments.planning.known_drafts import MTP, has_mtp_tensors, most_drafted
from deployments.planning.memory.use import combined
from deployments.planning.plan import (
    DeviceUse,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
    Reason,
    Severity,
)
from deployments.planning.settings import ALL, AUTO, SHARES, with_defaults
from deployments.states import StrategyName
from deployments.strategies.asked_settings import asked_settings, own_settings
from deployments.strategies.base import (
    Strategy,
    caution,
    error,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.drafting_outlook import Outlook
from deployments.strategies.figures import device_uses
from deployments.strategies.independent import common_figures
from deployments.strategies.placed_model import (
    PlacedModel,
    instance,
    needs,
    place_model,
)
from omni.errors import OmniError

MODEL_TYPES = ("draft-simple", "draft-eagle3")


class Speculative(Strategy):
    name = StrategyName.SPECULATIVE
    title = "Speculative decoding"
    summary = (
        "A small draft model proposes tokens, the large one checks several in one pass. Same"
        " answers, faster."
    )
    roles = ("target", "draft")
    optional_roles = ("draft",)
    serving_role = "target"
    own_settings = frozenset({"draft_type", "draft_max", "draft_min"})

    def plan(self, request: PlanRequest) -> Plan:
        target, draft = self.members(request)
        assert target
        values = with_defaults(own_settings(request, self))
        kind = draft_type(str(values["draft_type"]), target, draft, request.engine)
        if kind in MODEL_TYPES and draft is None:
            text = f"Drafting by {kind} needs a draft model."
            raise OmniError(
                "draft_missing",
                text,
                "Choose one, or draft by n-grams (draft_type ngram-simple).",
            )
        if kind not in MODEL_TYPES:
            draft = None
        context = asked_settings(request, target, self).context
        small = (
            place_model(_plain(request, context), draft, self, open_keys=())
            if draft
            else None
        )
        drafted = most_drafted(kind, int(values["draft_max"]))
        large = place_model(
            request,
            target,
            self,
            open_keys=("gpu_layers", SHARES),
            reserved=needs(small) if small else None,
            own_drafting=kind == MTP,
            draft_max=drafted,
        )
        drafting = Outlook(kind, drafted, large, small)
        possible = (
            *_own_reasons(kind, target, request.engine),
            *_pair_reasons(kind, large, small),
        )
        can_draft = all(reason.severity != Severity.ERROR for reason in possible)
        reasons = (
            *possible,
            *(drafting.reasons() if can_draft else ()),
            *large.reasons,
            *(small.reasons if small else ()),
        )
        spec = DraftSpec(
            kind, draft.path if draft else "", draft.devices if draft else ()
        )
        process = instance(
            request,
            large,
            "target",
            split_mode="layer" if len(large.cards) > 1 else "",
            draft=spec,
            file_bytes=target.facts.size_bytes
            + (draft.facts.size_bytes if draft else 0),
            more_devices=draft.devices if draft else (),
        )
        return Plan(
            self.name,
            verdict_of(reasons),
            reasons,
            _uses(large, small),
            processes([process], reasons),
            outlook(drafting.predicted(), reasons),
            (*common_figures(large), *(drafting.figures() if can_draft else ())),
            {**large.chosen, "draft_type": kind},
        )


def draft_type(
    wanted: str, target: Member, draft: Member | None, engine: EngineFacts
) -> str:
    """What `auto` means for these models: never what this build of the engine may end over."""
    if wanted != AUTO:
        return wanted
    if draft is not None:
        if draft.facts.arch == "eagle3":
            return "draft-eagle3"
        return "draft-simple"
    if _carries_layers(target) and drafts_itself(engine, target):
        return MTP
    return "ngram-simple"


def drafts_itself(engine: EngineFacts, target: Member) -> bool | None:
    """Whether the engine drafts with this model's own layers; None where it does not tell."""
    if get_flavour(engine.flavour).reads_gguf:
        return has_mtp(engine.flags, target.facts.arch)
    return True


def _carries_layers(target: Member) -> bool:
    """Many conversions leave the layers out that the header speaks of."""
    return bool(target.facts.n_nextn_layers) and (
        target.shape.is_folder or has_mtp_tensors(target.shape)
    )


def _own_reasons(kind: str, target: Member, engine: EngineFacts) -> list[Reason]:
    """Whether the model can draft for itself, where that is asked for."""
    if kind != MTP:
        return []
    fix = "Use a draft model or n-grams."
    if not _carries_layers(target):
        text = f"{target.name} has no layers of its own for drafting (MTP)."
        return [error("no_mtp_layers", text, fix, draft_type="ngram-simple")]
    able = drafts_itself(engine, target)
    if able is None:
        text = (
            f"{engine.name} does not tell for which models it drafts with their own layers (MTP);"
            " it ends at the "
        )
        text += f"first answer if {target.facts.arch} is not among them."
        return [
            caution("mtp_unknown", text, "Try it, or use a draft model or n-grams.")
        ]
    if not able:
        text = (
            f"This build of {engine.name} has no graph for drafting with the layers of"
            f" {target.facts.arch} (MTP): "
        )
        text += "it would end at the first answer, or draft with the whole model."
        return [
            error(
                "mtp_not_in_build",
                text,
                f"{fix} A newer build may have it.",
                draft_type="ngram-simple",
            )
        ]
    return []


def _plain(request: PlanRequest, context: int) -> PlanRequest:
    """The draft's cache is f16 and its layers are all on its device (-ngld); the context is the
    target's."""
    own = ("parallel", "kv_unified", "batch", "ubatch", "flash_attention")
    kept = {key: value for key, value in request.settings.items() if key in own}
    return replace(request, settings={**kept, "context": context, "gpu_layers": ALL})


def _uses(large: PlacedModel, small: PlacedModel | None) -> tuple[DeviceUse, ...]:
    both = combined(large.use, small.use) if small else large.use.devices
    held = {
        use.name: use.held_bytes
        for found in (large, small)
        if found
        for use in device_uses(found)
    }
    return tuple(
        replace(use, held_bytes=held.get(use.name, 0))
        for use in both
        if use.needed_bytes
    )


def _pair_reasons(
    kind: str, large: PlacedModel, small: PlacedModel | None
) -> list[Reason]:
    reasons: list[Reason] = []
    if small is None:
        return reasons
    pair = compatibility(
        *(DraftModel(m.name, m.facts, m.vocab) for m in (large.member, small.member))
    )
    if not pair.ok:
        text = (
            f"{small.member.name} cannot draft for {large.member.name}: {pair.text} The engine"
            " starts without drafting."
        )
        fix = (
            "Choose a draft of the target's own family, or draft by n-grams (draft_type"
            " ngram-simple)."
        )
        if pair.code == "vocab_unknown":
            reasons.append(
                caution(
                    pair.code,
                    pair.text,
                    "Scan, or look whether drafting is on after the start.",
                )
            )
        else:
            reasons.append(error(pair.code, text, fix))
    ratio = large.member.facts.n_params / max(small.member.facts.n_params, 1)
    if ratio < 4:
        text = (
            f"The draft is only {ratio:.1f} times smaller than the target; a draft should be 10"
            " times smaller."
        )
        reasons.append(
            caution("draft_too_large", text, "Choose a smaller one of the same family.")
        )
    return reasons
