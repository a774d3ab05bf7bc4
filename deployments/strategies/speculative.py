"""A small draft proposes tokens, the large target checks several of them in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from deployments.engines import get_flavour
from deployments.engines.base import DraftSpec
from deployments.engines.mtp import has_mtp
from deployments.planning.drafts import (
    DraftModel,
    acceptance_prior,
    break_even,
    compatibility,
    expected_tokens,
    speedup,
)
from deployments.planning.known_drafts import MTP, has_mtp_tensors
from deployments.planning.memory.use import combined
from deployments.planning.plan import (
    DeviceUse,
    EngineFacts,
    Figure,
    Member,
    Plan,
    PlanRequest,
    Predicted,
    Reason,
    Severity,
)
from deployments.planning.settings import AUTO, SHARES, with_defaults
from deployments.planning.speed import TYPICAL_DEPTH
from deployments.states import StrategyName
from deployments.strategies.base import (
    Strategy,
    caution,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.independent import common_figures
from deployments.strategies.placed_model import (
    PlacedModel,
    asked_settings,
    device_uses,
    instance,
    needs,
    own_settings,
    place_model,
)
from omni.errors import OmniError

# Share of drafted tokens that is accepted, (low, likely, high): of the model's own extra layers,
# which know its state, and of n-grams, which hit only where a text repeats itself (code that is
# changed, tables).
MTP_ACCEPTANCE = (0.6, 0.75, 0.9)
NGRAM_ACCEPTANCE = (0.0, 0.0, 0.7)
# How far off a prior for a draft model may be.
PRIOR_SPREAD = 0.2
MODEL_TYPES = ("draft-simple", "draft-eagle3")
# A break-even acceptance below this is none.
FREE = 0.01


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
        small = place_model(_plain(request, context), draft, self) if draft else None
        large = place_model(
            request,
            target,
            self,
            open_keys=("gpu_layers", SHARES),
            reserved=needs(small) if small else None,
            own_drafting=int(values["draft_max"]) if kind == MTP else 0,
        )
        drafting = Outlook(kind, int(values["draft_max"]), large, small)
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
    """The draft's cache is f16 and its layers are all on its device; the context is the
    target's."""
    own = ("parallel", "kv_unified", "batch", "ubatch", "flash_attention")
    kept = {key: value for key, value in request.settings.items() if key in own}
    return replace(request, settings={**kept, "context": context})


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


@dataclass(frozen=True)
class Outlook:
    """What drafting is expected to give."""

    kind: str
    drafted: int
    large: PlacedModel
    small: PlacedModel | None

    @property
    def acceptance(self) -> tuple[float, float, float]:
        """(low, likely, high) share of drafted tokens that the target accepts: a prior, not a
        measurement."""
        if self.kind == MTP:
            return MTP_ACCEPTANCE
        if self.small is None:
            return NGRAM_ACCEPTANCE
        likely = acceptance_prior(self.large.member.facts, self.small.member.facts)
        return max(likely - PRIOR_SPREAD, 0.0), likely, min(likely + PRIOR_SPREAD, 0.95)

    @cached_property
    def ratios(self) -> tuple[float, float] | None:
        """A draft token's and a check's time over the target's plain step; None where a speed is
        not known."""
        target = self.large.speed
        plain_s = target.step_s(1, TYPICAL_DEPTH)
        check_s = target.step_s(self.drafted + 1, TYPICAL_DEPTH)
        if self.small:
            draft_s = self.small.speed.step_s(1, TYPICAL_DEPTH)
        else:
            draft_s = 0.0
        if plain_s is None or check_s is None or draft_s is None:
            return None
        if self.kind == MTP:
            draft_s = plain_s / max(target.model.n_layer, 1)
        return draft_s / plain_s, check_s / plain_s

    @property
    def is_by_ngrams(self) -> bool:
        return self.kind.startswith("ngram-")

    def gain(self, acceptance: float) -> float:
        assert self.ratios
        return speedup(acceptance, self.drafted, *self.ratios)

    def predicted(self) -> Predicted:
        plain = self.large.speed.predicted()
        if (
            plain.decode_tps is None
            or plain.decode_range is None
            or self.ratios is None
        ):
            return plain
        low, likely, high = map(self.gain, self.acceptance)
        if self.is_by_ngrams:
            # Where nothing repeats nothing is drafted, and nothing is lost.
            likely = 1.0
        span = (
            plain.decode_range[0] * min(low, 1.0),
            plain.decode_range[1] * max(high, 1.0),
        )
        return replace(plain, decode_tps=plain.decode_tps * likely, decode_range=span)

    def reasons(self) -> list[Reason]:
        if self.ratios is None:
            return [
                info(
                    "speed_unknown",
                    "Whether drafting pays cannot be said: a device's bandwidth is not known.",
                )
            ]
        limit = break_even(self.drafted, *self.ratios)
        if limit is None:
            text = (
                "Even if every draft were accepted it would not pay: drafting and checking take too"
                " long."
            )
            return [
                error(
                    "drafting_never_pays",
                    text,
                    "Use a smaller draft, fewer tokens per draft, or none.",
                )
            ]
        if limit < FREE:
            text = "Checking drafts costs next to nothing here: every accepted token is gained."
            return [info("drafting_pays", text)]
        if self.is_by_ngrams and limit < self.acceptance[2]:
            text = (
                f"It gains where the text repeats itself and more than {limit:.0%} of the drafted"
                " tokens are accepted"
            )
            return [
                info("drafting_by_ngrams", f"{text}; elsewhere nothing is drafted.")
            ]
        text = f"It pays when more than {limit:.0%} of the drafted tokens are accepted"
        low, likely, high = self.acceptance
        if limit > likely:
            text += f"; {likely:.0%} is usual for {self._source()}."
            return [
                caution(
                    "drafting_may_not_pay",
                    text,
                    "Try fewer tokens per draft or a smaller draft.",
                )
            ]
        return [
            info(
                "drafting_pays",
                f"{text}; {low:.0%} to {high:.0%} is usual for {self._source()}.",
            )
        ]

    def _source(self) -> str:
        if self.kind == MTP:
            return "a model's own layers"
        if self.small:
            return "a draft of this size and family"
        return "n-grams, more where a text repeats itself"

    def figures(self) -> tuple[Figure, ...]:
        if self.ratios is None:
            return (Figure("drafting", "Drafting", self.kind),)
        limit = break_even(self.drafted, *self.ratios)
        shown = self.acceptance[2 if self.is_by_ngrams else 1]
        per_step = expected_tokens(shown, self.drafted)
        return (
            Figure(
                "drafting", "Drafting", f"{self.kind}, {self.drafted} tokens at once"
            ),
            Figure(
                "break_even",
                "Break-even acceptance",
                f"{limit:.0%}" if limit is not None else "never",
            ),
            Figure(
                "per_step",
                "Tokens per check",
                f"{per_step:.1f} at {shown:.0%} acceptance",
            ),
        )
