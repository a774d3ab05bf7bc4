"""Which deployment answers, decided rule by rule; the record of the rules is the decision.

Certain rules leave deployments out: no other rule brings one back. Of those that stay, each
preference keeps the ones that it likes best, until one is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deployments.advice.purposes import EMBEDDING, VISION
from deployments.formats.kinds import Kind
from deployments.gateway.auto.classifier import (
    CHAT,
    Classification,
    Score,
    classify,
)
from deployments.gateway.auto.prompt import Prompt

LONGEST_HEADER = 300


@dataclass(frozen=True)
class Candidate:
    """A deployment that could be asked. 0 context tokens or slots are unknown; `is_guessed` says
    that nobody wrote its purposes down."""

    name: str
    purposes: tuple[str, ...] = ()
    is_ready: bool = True
    context_tokens: int = 0
    slots: int = 0
    kind: str = Kind.TEXT
    is_guessed: bool = False
    # None is not known: then what it is for tells.
    takes_images: bool | None = None


@dataclass(frozen=True)
class Surroundings:
    """What a decision depends on besides the prompt: requests at work by deployment, and who
    answered this conversation, or others that begin like it, before, and which could not be
    reached just now."""

    at_work: Mapping[str, int] = field(default_factory=dict)
    conversation: str = ""
    prefix: str = ""
    unreachable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Step:
    """One rule: whether it had something to say, why, and which deployments it kept."""

    rule: str
    applies: bool
    reason: str
    kept: tuple[str, ...]
    is_certain: bool = False
    # Somebody wrote it down for a route.
    is_written: bool = False


@dataclass(frozen=True)
class Decision:
    """What was decided and everything that it was decided by.

    `chain` begins with the chosen one; the others are asked in that order if it cannot be reached.
    """

    chain: tuple[str, ...]
    steps: tuple[Step, ...]
    classification: Classification
    prompt: Prompt

    @property
    def chosen(self) -> str:
        return self.steps[-1].kept[0]

    @property
    def scores(self) -> tuple[Score, ...]:
        return self.classification.scores

    @property
    def decided_by(self) -> Step:
        """The rule after which no other could be chosen any more."""
        alone = (step for step in self.steps if step.kept == (self.chosen,))
        return next((step for step in alone if step.applies), self.steps[-1])

    @property
    def header(self) -> str:
        """In one line of ASCII, without anything of the prompt, and without what the conditions of
        a route's rules are: clients see it."""
        scores = " ".join(f"{each.purpose}={each.points:.1f}" for each in self.scores)
        step = self.decided_by
        reason = "" if step.is_written else f"; {step.reason}"
        text = f"{self.chosen}; rule={step.rule}; {scores}{reason}"
        return text.encode("ascii", "replace").decode()[:LONGEST_HEADER]


@dataclass(frozen=True)
class View:
    """What rules look at."""

    prompt: Prompt
    classification: Classification
    around: Surroundings

    @property
    def purposes(self) -> tuple[str, ...]:
        """The likeliest first."""
        return tuple(score.purpose for score in self.classification.scores)


# --- certain rules --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Certain:
    """Where it holds, only deployments that fit stay; if none fits, all stay and it is said."""

    name: str
    holds: Callable[[Prompt], bool]
    fits: Callable[[Prompt, Candidate], bool]
    yes: Callable[[Prompt], str]
    no: str


def _holds_context(prompt: Prompt, candidate: Candidate) -> bool:
    known = candidate.context_tokens
    return not known or prompt.context_tokens <= known


def _takes_images(prompt: Prompt, candidate: Candidate) -> bool:
    if candidate.takes_images is None:
        return VISION in candidate.purposes
    return candidate.takes_images


def _gives_embeddings(prompt: Prompt, candidate: Candidate) -> bool:
    return candidate.kind == Kind.EMBEDDING or EMBEDDING in candidate.purposes


CERTAIN = (
    Certain(
        "embeddings",
        lambda prompt: prompt.is_embedding,
        _gives_embeddings,
        lambda prompt: "embeddings are asked for",
        "no embeddings are asked for",
    ),
    Certain(
        "images",
        lambda prompt: prompt.images > 0,
        _takes_images,
        lambda prompt: f"it has {prompt.images} image{'s' if prompt.images > 1 else ''}",
        "it has no image",
    ),
    Certain(
        "context",
        lambda prompt: prompt.context_tokens > 0,
        _holds_context,
        lambda prompt: f"it needs about {prompt.context_tokens} tokens",
        "its length is not known",
    ),
)  # fmt: skip


def _certain(
    rule: Certain, prompt: Prompt, candidates: Sequence[Candidate]
) -> tuple[Step, list[Candidate]]:
    names = tuple(each.name for each in candidates)
    if not rule.holds(prompt):
        return Step(rule.name, False, rule.no, names, True), list(candidates)
    fitting = [each for each in candidates if rule.fits(prompt, each)]
    reason = rule.yes(prompt)
    if not fitting:
        none = f"{reason}, and no deployment is known to be able to"
        return Step(rule.name, False, none, names, True), list(candidates)
    if len(fitting) == len(candidates):
        return Step(rule.name, False, f"{reason}: every one can", names, True), fitting
    kept = tuple(each.name for each in fitting)
    return Step(rule.name, True, reason, kept, True), fitting


def reachable(
    around: Surroundings, candidates: Sequence[Candidate]
) -> tuple[Step, list[Candidate]]:
    """Without those that could not be reached just now, which are named."""
    left = [each for each in candidates if each.name not in around.unreachable]
    names = tuple(each.name for each in left)
    lost = [each.name for each in candidates if each.name in around.unreachable]
    said = f"{', '.join(lost)} could not be reached" if lost else "all can be reached"
    return Step("reachable", bool(lost), said, names, True), left


# --- preferences ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Preference:
    """Keeps the deployments of the lowest rank."""

    name: str
    rank: Callable[[View, Candidate], float]
    says: Callable[[View, Candidate], str]


def _conversation_rank(view: View, candidate: Candidate) -> float:
    return float(candidate.name != view.around.conversation)


def _purpose_rank(view: View, candidate: Candidate) -> float:
    """One without purposes takes what it is given, as those for chat do, after them."""
    order = view.purposes
    if not candidate.purposes:
        return order.index(CHAT) + 0.5
    ranks = [order.index(each) for each in candidate.purposes if each in order]
    return min(ranks, default=len(order))


def _prefix_rank(view: View, candidate: Candidate) -> float:
    """Its KV cache begins alike already, unless all its slots work on something else."""
    is_free = view.around.at_work.get(candidate.name, 0) < max(candidate.slots, 1)
    return float(not (candidate.name == view.around.prefix and is_free))


def _load_rank(view: View, candidate: Candidate) -> float:
    return view.around.at_work.get(candidate.name, 0) / max(candidate.slots, 1)


def _says_purpose(view: View, candidate: Candidate) -> str:
    first = view.classification.scores[0]
    close = ", by a little" if view.classification.is_close else ""
    said = f"the prompt is {first.purpose} ({first.points:.1f} points{close})"
    if first.purpose in candidate.purposes:
        guessed = ", by its name" if candidate.is_guessed else ""
        return f"{said}, which {candidate.name} is for{guessed}"
    return f"{said}; none is for that, {candidate.name} comes nearest"


PREFERENCES = (
    Preference(
        "conversation",
        _conversation_rank,
        lambda view, candidate: f"{candidate.name} has answered this conversation before",
    ),
    Preference("purpose", _purpose_rank, _says_purpose),
    Preference(
        "ready",
        lambda view, candidate: float(not candidate.is_ready),
        lambda view, candidate: f"{candidate.name} is ready, others have to be loaded",
    ),
    Preference(
        "prefix",
        _prefix_rank,
        lambda view, candidate: f"{candidate.name} has read the same system prompt before",
    ),
    Preference(
        "load",
        _load_rank,
        lambda view, candidate: f"{candidate.name} has the least to do for its slots",
    ),
)  # fmt: skip


def preferred(
    rule: Preference, view: View, candidates: Sequence[Candidate]
) -> tuple[Step, list[Candidate]]:
    """Those of the lowest rank, and the step that says so."""
    names = tuple(each.name for each in candidates)
    if len(candidates) == 1:
        return Step(rule.name, False, "one is left already", names), list(candidates)
    ranks = [rule.rank(view, each) for each in candidates]
    best = [
        each for each, rank in zip(candidates, ranks, strict=True) if rank == min(ranks)
    ]
    if len(best) == len(candidates):
        return Step(rule.name, False, "all are equal in this", names), best
    kept = tuple(each.name for each in best)
    return Step(rule.name, True, rule.says(view, best[0]), kept), best


# --- deciding -------------------------------------------------------------------------------------
def decide(
    prompt: Prompt, candidates: Sequence[Candidate], around: Surroundings | None = None
) -> Decision:
    """Picks one of the candidates; at least one of them has to be reachable."""
    view = View(prompt, classify(prompt), around or Surroundings())
    left = sorted(candidates, key=lambda each: each.name)
    step, left = reachable(view.around, left)
    steps = [step]
    for certain in CERTAIN:
        step, left = _certain(certain, prompt, left)
        steps.append(step)
    able = left
    for preference in PREFERENCES:
        step, left = preferred(preference, view, left)
        steps.append(step)
    first = "the first by name" if len(candidates) > 1 else "nothing else can answer"
    steps.append(Step("name", len(left) > 1, first, (left[0].name,)))
    return Decision(_chain(view, able), tuple(steps), view.classification, prompt)


def _chain(view: View, able: Sequence[Candidate]) -> tuple[str, ...]:
    """All that the certain rules left, in the order in which the preferences like them."""
    ordered = sorted(
        able,
        key=lambda each: (*(rule.rank(view, each) for rule in PREFERENCES), each.name),
    )
    return tuple(each.name for each in ordered)
