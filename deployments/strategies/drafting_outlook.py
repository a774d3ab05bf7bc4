"""What drafting gains or costs, by how much of a draft is accepted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from deployments.planning.drafts import (
    NGRAM_ACCEPTED,
    acceptance_prior,
    break_even,
    expected_tokens,
    ngram_break_even,
    ngram_slowdown,
    ngram_speedup,
    speedup,
)
from deployments.planning.known_drafts import MTP, lookup_tokens
from deployments.planning.plan import (
    Figure,
    Predicted,
    Reason,
)
from deployments.planning.speed import TYPICAL_DEPTH
from deployments.strategies.base import (
    caution,
    error,
    info,
)
from deployments.strategies.placed_model import (
    PlacedModel,
)

# Share of drafted tokens that is accepted, (low, likely, high), of the model's own extra layers,
# which know its state.
MTP_ACCEPTANCE = (0.6, 0.75, 0.9)
# Where nothing repeats itself n-grams draft nothing.
NGRAM_ACCEPTANCE = (0.0, 0.0, NGRAM_ACCEPTED)
# How far off a prior for a draft model may be.
PRIOR_SPREAD = 0.2
# A break-even acceptance below this is none.
FREE = 0.01


@dataclass(frozen=True)
class Outlook:
    """What drafting is expected to give; `drafted` is the most tokens of one draft."""

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
        low, high = self._gains
        span = (
            plain.decode_range[0] * min(low, 1.0),
            plain.decode_range[1] * max(high, 1.0),
        )
        return replace(
            plain,
            decode_tps=plain.decode_tps * self.likely_gain,
            decode_range=span,
            computed_decode_tps=self._computed(plain.computed_decode_tps),
        )

    @property
    def _gains(self) -> tuple[float, float]:
        """(low, high), times as fast as without drafting."""
        assert self.ratios
        if self.is_by_ngrams:
            check = self.ratios[1]
            return (
                ngram_slowdown(lookup_tokens(self.kind), check),
                ngram_speedup(self.drafted, check),
            )
        low, _, high = self.acceptance
        return self.gain(low), self.gain(high)

    @property
    def break_even(self) -> float | None:
        """The share of drafted tokens that has to be accepted; None: not even all of them pay."""
        assert self.ratios
        if self.is_by_ngrams:
            return ngram_break_even(self.drafted, self.ratios[1])
        return break_even(self.drafted, *self.ratios)

    @property
    def likely_gain(self) -> float:
        if self.is_by_ngrams:
            # Where nothing repeats nothing is drafted, and nothing is lost.
            return 1.0
        return self.gain(self.acceptance[1])

    def _computed(self, plain_tps: float | None) -> float | None:
        """As if nothing had been measured: what drafting gains depends on how fast devices are."""
        computed = replace(
            self,
            large=_uncorrected(self.large),
            small=_uncorrected(self.small) if self.small else None,
        )
        if plain_tps is None or computed.ratios is None:
            return None
        return plain_tps * computed.likely_gain

    def reasons(self) -> list[Reason]:
        if self.ratios is None:
            return [
                info(
                    "speed_unknown",
                    "Whether drafting pays cannot be said: a device's bandwidth is not known.",
                )
            ]
        if self.is_by_ngrams:
            return [self._ngram_reason(self.break_even)]
        limit = self.break_even
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
        return "a draft of this size and family"

    def _ngram_reason(self, limit: float | None) -> Reason:
        """They draft only where the text repeats itself, so they stand in nobody's way; their long
        drafts are dear to check where a step takes as long as its arithmetic."""
        most = f"a draft of up to {self.drafted} tokens"
        if limit is None:
            text = f"Checking {most} takes longer than decoding them: nothing is gained"
        elif limit < FREE:
            text = "Checking drafts costs next to nothing here: every accepted token is gained"
        else:
            text = (
                "It gains where the text repeats itself and more than"
                f" {limit:.0%} of {most} is accepted"
            )
        text += "; where nothing repeats itself nothing is drafted."
        if limit is not None and limit < self.acceptance[2]:
            return info("drafting_by_ngrams", text)
        return caution(
            "drafting_may_not_pay", text, "Use a draft model, or no drafting."
        )

    def figures(self) -> tuple[Figure, ...]:
        if self.ratios is None:
            return (Figure("drafting", "Drafting", self.kind),)
        limit = self.break_even
        if self.is_by_ngrams:
            shown, most = NGRAM_ACCEPTED, "up to "
            per_step = 1 + shown * self.drafted
        else:
            shown, most = self.acceptance[1], ""
            per_step = expected_tokens(shown, self.drafted)
        return (
            Figure(
                "drafting",
                "Drafting",
                f"{self.kind}, {most}{self.drafted} tokens at once",
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


def _uncorrected(placed_: PlacedModel) -> PlacedModel:
    return replace(placed_, speed=placed_.speed.uncorrected)
