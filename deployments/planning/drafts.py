"""Which draft model to take for a target, and what it may gain.

The gain follows Leviathan, Kalman, Matias, Fast Inference from Transformers via Speculative
Decoding (ICML 2023): with acceptance α, γ drafted tokens and a draft that takes c of the target's
time per token, a verification gives E = (1 - α^(γ+1)) / (1 - α) tokens and the speed-up is E / (γc
+ v). The paper has v = 1: reading the weights once verifies all tokens. A mixture of experts reads
more experts for more tokens, which v accounts for.

N-grams are another matter: they draft only where the text repeats itself, then long drafts at no
cost, of which much or nothing is accepted. What counts is how much of the answer comes out of
drafts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.formats.kinds import DEPLOYABLE, DRAFTING, Kind
from deployments.formats.model_facts import ModelFacts
from deployments.planning.known_drafts import DEDICATED, family, spec_type_of
from deployments.planning.vocabulary import (
    Compatibility,
    VocabFacts,
    differing_token,
    draft_compatibility,
    vocab_facts,
)

__all__ = [
    "Compatibility",
    "DraftChoice",
    "DraftModel",
    "VocabFacts",
    "acceptance_prior",
    "break_even",
    "compatibility",
    "differing_token",
    "draft_compatibility",
    "expected_tokens",
    "moved_bytes",
    "rank_drafts",
    "speedup",
    "vocab_facts",
]

MAX_DRAFTED = 16
# Below this the two do about the same work; above it a draft has little left to say.
MIN_SIZE_RATIO = 4.0
MAX_SIZE_RATIO = 2000.0
# A gain of less than this is within the prior's error.
WORTHWHILE = 1.1
# Acceptance by size, fitted to the paper's table 3: LaMDA 137B with drafts of 8B, 2B and 100M,
# argmax sampling: 0.75, 0.71, 0.61. T5 lies 0.05 to 0.1 higher, sampling at temperature 1 up to 0.2
# lower.
_AT_ONE = 0.84
_PER_DECADE = 0.073
# Of another family with the same vocabulary less is accepted; how much less is an assumption.
_STRANGER = 0.15
_LOWEST = 0.3
_HIGHEST = 0.85


# By n-grams, in a text that repeats itself much (code that is changed, tables): the share of the
# answer that comes out of drafts, and of each draft that is accepted. The engine with SmolLM2 told
# of 46 to 90 % and of 69 to 96 % (ngram-simple and ngram-mod, code to be repeated and a story).
_REPEATED = 0.7
NGRAM_ACCEPTED = 0.7


@dataclass(frozen=True)
class DraftModel:
    """A model that is the target or a candidate.

    `bandwidth_gbps` is of the memory its weights would lie in; `token_seconds` is the time of one
    decoded token, where a speed model or a run knows it of both models.
    """

    name: str
    facts: ModelFacts
    vocab: VocabFacts
    bandwidth_gbps: float | None = None
    token_seconds: float | None = None


@dataclass(frozen=True)
class DraftChoice:
    """A candidate and what it promises.

    `acceptance` is a prior by size and family, not a measurement.

    `expected_tokens` come out of one verification, `cost_ratio` is the draft's time per token over
    the target's, `verify_ratio` a verification's over a decoded token's, `break_even` the
    acceptance from which on drafting is no slower (None: at none). `advice` is good, little, slower
    or incompatible.
    """

    name: str
    compatibility: Compatibility
    spec_type: str
    advice: str
    text: str
    size_ratio: float = 0.0
    n_draft: int = 0
    acceptance: float = 0.0
    expected_tokens: float = 1.0
    cost_ratio: float = 0.0
    verify_ratio: float = 1.0
    speedup: float = 1.0
    break_even: float | None = None


# --- the formulas ---------------------------------------------------------------------------------
def expected_tokens(acceptance: float, n_draft: int) -> float:
    """Tokens that one verification of n_draft drafted tokens gives, the target's own included: 1 to
    n_draft + 1."""
    if acceptance >= 1:
        return float(n_draft + 1)
    return (1 - acceptance ** (n_draft + 1)) / (1 - acceptance)


def speedup(
    acceptance: float, n_draft: int, cost_ratio: float, verify_ratio: float = 1.0
) -> float:
    """Times as fast as decoding without a draft; below 1 it is slower."""
    return expected_tokens(acceptance, n_draft) / (n_draft * cost_ratio + verify_ratio)


def break_even(
    n_draft: int, cost_ratio: float, verify_ratio: float = 1.0
) -> float | None:
    """The acceptance at which drafting takes as long as not drafting; None: it is slower at any."""
    if speedup(1, n_draft, cost_ratio, verify_ratio) < 1:
        return None
    low = 0.0
    high = 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (low, middle)
            if speedup(middle, n_draft, cost_ratio, verify_ratio) >= 1
            else (middle, high)
        )
    return high


def ngram_speedup(n_draft: int, verify_ratio: float) -> float:
    """Times as fast in a text that repeats itself much.

    Of each token R of the answer comes out of drafts, which takes R ÷ (accepted · γ) checks; the
    others are decoded as ever.
    """
    checks = _REPEATED / (NGRAM_ACCEPTED * n_draft)
    return 1 / (1 - _REPEATED - checks + checks * verify_ratio)


def ngram_slowdown(lookup: int, verify_ratio: float) -> float:
    """Times as fast where each draft is refused: before the next one `lookup` tokens have to repeat
    themselves, the token of the check among them."""
    return lookup / (lookup - 1 + verify_ratio)


def ngram_break_even(n_draft: int, verify_ratio: float) -> float | None:
    """The share of each draft that has to be accepted; None: not even all of it pays."""
    share = (verify_ratio - 1) / n_draft
    return share if share <= 1 else None


def acceptance_prior(target: ModelFacts, draft: ModelFacts) -> float:
    """The chance that the target accepts a drafted token, expected before anything was measured.

    0.84 − 0.073 × log₁₀(size ratio), 0.15 less for another family, within 0.3 and 0.85.
    """
    ratio = max(size_ratio(target, draft), 1.0)
    wanted = (
        _AT_ONE
        - _PER_DECADE * math.log10(ratio)
        - (0 if _is_family(target, draft) else _STRANGER)
    )
    return min(max(wanted, _LOWEST), _HIGHEST)


def size_ratio(target: ModelFacts, draft: ModelFacts) -> float:
    if draft.n_params:
        return target.n_params / draft.n_params
    return 0.0


def _is_family(target: ModelFacts, draft: ModelFacts) -> bool:
    """By their names; made for that very target counts too."""
    own = family(target)
    return draft.arch in DEDICATED or bool(own) and own == family(draft)


def moved_bytes(facts: ModelFacts, n_tokens: int = 1) -> float:
    """Bytes of weights that one pass over n_tokens reads.

    A router that picks k of n experts evenly leaves (1 - k/n)^tokens of them unread. The embedding
    table counts in full, of which a pass reads only some rows: a few per cent too much for a
    target, nothing for tied drafts.
    """
    whole = sum(facts.quant_bytes.values()) or facts.size_bytes
    if (
        not facts.n_expert
        or not 0 < facts.n_expert_used < facts.n_expert
        or not facts.n_params
    ):
        return float(whole)
    used = facts.n_expert_used / facts.n_expert
    expert_share = (
        (facts.n_params - facts.n_params_active) / facts.n_params / (1 - used)
    )
    unread = (1 - used) ** n_tokens
    return whole * (1 - expert_share * unread)


def _cost_ratio(target: DraftModel, draft: DraftModel) -> float:
    """By known times, which count only where both are; else by bytes read, from one memory where it
    is unknown."""
    if target.token_seconds and draft.token_seconds:
        return draft.token_seconds / target.token_seconds
    ratio = moved_bytes(draft.facts) / max(moved_bytes(target.facts), 1.0)
    if target.bandwidth_gbps and draft.bandwidth_gbps:
        return ratio * target.bandwidth_gbps / draft.bandwidth_gbps
    return ratio


def verify_ratio(target: ModelFacts, n_draft: int) -> float:
    """A verification's time over a decoded token's, by bytes read: 1 for dense models."""
    return moved_bytes(target, n_draft + 1) / max(moved_bytes(target), 1.0)


# --- the choice -----------------------------------------------------------------------------------
def compatibility(target: DraftModel, draft: DraftModel) -> Compatibility:
    """By vocabulary.

    A draft made for one target (EAGLE-3, DFlash) carries its target's, and reads its states: the
    engine does not check their width, so a wrong pair would draft nonsense.
    """
    if not (
        target.facts.kind in DEPLOYABLE
        and draft.facts.kind in {*DEPLOYABLE, Kind.DRAFT}
    ):
        return Compatibility(False, "not_a_model", "One of the files is not a model.")
    if target.facts.kind != Kind.TEXT or draft.facts.kind not in DRAFTING:
        return Compatibility(
            False,
            "not_a_generator",
            "One of the models does not generate text by itself.",
        )
    width = draft.facts.hparams.get("target_hidden_size")
    if draft.facts.arch in DEDICATED and width and width != target.facts.n_embd:
        text = f"The draft reads states of width {width}; the target's have {target.facts.n_embd}."
        return Compatibility(False, "target_width", text)
    return draft_compatibility(target.vocab, draft.vocab)


def rank_drafts(
    target: DraftModel,
    candidates: Sequence[DraftModel],
    *,
    n_draft: int | None = None,
    acceptance: float | None = None,
    context: int = 0,
) -> list[DraftChoice]:
    """Every candidate: the compatible ones by predicted gain, then the others with the reason.

    `n_draft` None takes the best of 1 to 16 for each; `acceptance` replaces the prior with what was
    measured; `context` is what one request may have, in tokens: a draft that was trained for less
    says so.
    """
    choices = [
        _choice(target, draft, n_draft, acceptance, context) for draft in candidates
    ]
    return sorted(
        choices,
        key=lambda choice: (not choice.compatibility.ok, -choice.speedup, choice.name),
    )


def _choice(
    target: DraftModel,
    draft: DraftModel,
    n_draft: int | None,
    measured: float | None,
    context: int,
) -> DraftChoice:
    fits = compatibility(target, draft)
    kind = spec_type_of(draft.facts)
    if not fits.ok:
        return DraftChoice(
            draft.name, fits, kind, "incompatible", fits.text, speedup=0.0
        )
    if measured is None:
        accepted = acceptance_prior(target.facts, draft.facts)
    else:
        accepted = measured
    cost = _cost_ratio(target, draft)

    def gain(count: int) -> float:
        return speedup(accepted, count, cost, verify_ratio(target.facts, count))

    count = n_draft or max(range(1, MAX_DRAFTED + 1), key=gain)
    verify = verify_ratio(target.facts, count)
    ratio = size_ratio(target.facts, draft.facts)
    faster = gain(count)
    threshold = break_even(count, cost, verify)
    return DraftChoice(
        name=draft.name,
        compatibility=fits,
        spec_type=kind,
        advice="slower" if faster < 1 else "little" if faster < WORTHWHILE else "good",
        text=_text(faster, ratio, cost, threshold) + _short(draft.facts, context),
        size_ratio=ratio,
        n_draft=count,
        acceptance=accepted,
        expected_tokens=expected_tokens(accepted, count),
        cost_ratio=cost,
        verify_ratio=verify,
        speedup=faster,
        break_even=threshold,
    )


def _text(faster: float, ratio: float, cost: float, threshold: float | None) -> str:
    if threshold is None:
        return (
            f"Each drafted token costs {cost:.0%} of a decoded one: this draft cannot gain"
            " anything."
        )
    text = (
        f"About {faster:.1f} times as fast, if as much is accepted as usual; a gain from"
        f" {threshold:.0%} on."
    )
    if ratio < MIN_SIZE_RATIO:
        return f"{text} The target is only {ratio:.1f} times as large: a smaller draft is better."
    if ratio > MAX_SIZE_RATIO:
        return (
            f"{text} The target is {ratio:.0f} times as large: little may be accepted."
        )
    return text


def _short(draft: ModelFacts, context: int) -> str:
    """The engine gives the draft as much context as the target, whatever it was trained for."""
    if not draft.n_ctx_train or context <= draft.n_ctx_train:
        return ""
    return f" Beyond {draft.n_ctx_train} tokens it was not trained: little will be accepted there."
