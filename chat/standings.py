"""The standings: what blind votes say about deployments, and where they say too little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chat.contestants import digest_of
from chat.models import Ballot, Contestant
from chat.ratings import (
    FEWEST_CONVERSATIONS,
    FEWEST_VOTES,
    Rating,
    Vote,
    connected_to,
    group_of_rated,
    rate,
)
from deployments.models import Deployment

Verdict = Ballot.Verdict
SCORES = {Verdict.LEFT: 1.0, Verdict.TIE: 0.5, Verdict.RIGHT: 0.0}


@dataclass(frozen=True)
class Scale:
    """What the bars of all intervals have in common."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Bar:
    """An interval and the rating in it, in per cent of the scale."""

    low: float
    value: float
    width: float


@dataclass(frozen=True)
class Standing:
    """One contestant: how its votes went, and its rating or why it has none."""

    contestant: Contestant
    won: int
    lost: int
    tied: int
    both_bad: int
    # Whether the deployment of its name is still made as it was.
    became: str
    rating: Rating | None = None
    lacks: str = ""
    bar: Bar | None = None

    @property
    def votes(self) -> int:
        """What its rating rests on."""
        return self.won + self.lost + self.tied


@dataclass(frozen=True)
class Standings:
    rows: list[Standing]
    votes: int
    conversations: int
    both_bad: int
    open_votes: int
    decided: int
    left_preferred: int
    middle: float | None = None

    @property
    def rated(self) -> int:
        return sum(1 for row in self.rows if row.rating)

    @property
    def left_percent(self) -> float | None:
        """Of the votes for one side; far from 50 says that the side counted."""
        if self.decided:
            return 100 * self.left_preferred / self.decided
        return None


def standings() -> Standings:
    """Of all blind votes of everybody; a deployment against itself says nothing."""
    ballots = list(
        Ballot.objects.exclude(verdict__in=["", Verdict.NONE]).select_related(
            "left", "right"
        )
    )
    blind = [b for b in ballots if b.is_blind and b.left_id != b.right_id]
    counted = [b for b in blind if b.verdict in SCORES]
    votes = [_vote_of(ballot) for ballot in counted]
    group = group_of_rated(votes)
    ratings = rate(group, votes) if group else {}
    reachable = connected_to(group, votes)
    became = _what_became()
    rows = [
        _standing(contestant, blind, ratings, reachable, became)
        for contestant in _contestants(blind)
    ]
    decided = [b for b in counted if b.verdict != Verdict.TIE]
    scale = _scale_of(rows)
    return Standings(
        rows=sorted((_with_bar(row, scale) for row in rows), key=_order),
        votes=len(votes),
        conversations=len({vote.conversation for vote in votes}),
        both_bad=len(blind) - len(counted),
        open_votes=sum(1 for ballot in ballots if not ballot.is_blind),
        decided=len(decided),
        left_preferred=sum(1 for b in decided if b.verdict == Verdict.LEFT),
        middle=scale.percent(1000) if scale else None,
    )


def _vote_of(ballot: Ballot) -> Vote:
    return Vote(
        ballot.left_id,
        ballot.right_id,
        SCORES[Verdict(ballot.verdict)],
        ballot.conversation_number,
    )


def _contestants(ballots: Sequence[Ballot]) -> list[Contestant]:
    found = {}
    for ballot in ballots:
        found[ballot.left_id] = ballot.left
        found[ballot.right_id] = ballot.right
    return list(found.values())


def _standing(
    contestant: Contestant,
    blind: Sequence[Ballot],
    ratings: dict[int, Rating],
    reachable: set[int],
    became: dict[str, str],
) -> Standing:
    own = [b for b in blind if contestant.pk in (b.left_id, b.right_id)]
    won = sum(1 for ballot in own if ballot.preferred == contestant)
    tied = sum(1 for ballot in own if ballot.verdict == Verdict.TIE)
    both_bad = sum(1 for ballot in own if ballot.verdict == Verdict.BOTH_BAD)
    lost = len(own) - won - tied - both_bad
    rating = ratings.get(contestant.pk)
    lacks = _lacks(contestant.pk, won, lost, tied, rating, reachable)
    return Standing(
        contestant,
        won,
        lost,
        tied,
        both_bad,
        _became(contestant, became),
        None if lacks else rating,
        lacks,
    )


def _lacks(
    pk: int,
    won: int,
    lost: int,
    tied: int,
    rating: Rating | None,
    reachable: set[int],
) -> str:
    """Why it has no rating; empty where it has one."""
    votes = won + lost + tied
    if votes < FEWEST_VOTES:
        return f"Too few votes: {votes} of {FEWEST_VOTES}"
    if rating is not None and rating.low is None:
        return f"Too few votes: fewer than {FEWEST_CONVERSATIONS} conversations"
    if rating is not None:
        return ""
    if won == votes:
        return "Too few votes: it won all of them, so there is no upper bound"
    if lost == votes:
        return "Too few votes: it lost all of them, so there is no lower bound"
    if reachable and pk not in reachable:
        return "Too few votes: none connects it with those that are rated"
    return "Too few votes: those that connect it all went one way"


def _what_became() -> dict[str, str]:
    """Deployment → what it is made of now."""
    found = Deployment.objects.filter(is_deleting=False).select_related("engine")
    return {deployment.name: digest_of(deployment) for deployment in found}


def _became(contestant: Contestant, now: dict[str, str]) -> str:
    if contestant.name not in now:
        return "deleted since"
    if now[contestant.name] != contestant.digest:
        return "changed since"
    return ""


def _scale_of(rows: Sequence[Standing]) -> Scale | None:
    ends = [
        end
        for row in rows
        if row.rating
        for end in (row.rating.low, row.rating.high)
        if end is not None
    ]
    if ends:
        return Scale(min(ends), max(ends))
    return None


def _with_bar(row: Standing, scale: Scale | None) -> Standing:
    rating = row.rating
    if scale is None or rating is None or rating.low is None or rating.high is None:
        return row
    low = scale.percent(rating.low)
    high = scale.percent(rating.high)
    return replace(row, bar=Bar(low, scale.percent(rating.value), round(high - low, 2)))


def _order(row: Standing) -> tuple[bool, float, int, str]:
    """Ratings first, the highest on top; then whoever has most votes."""
    value = row.rating.value if row.rating else 0.0
    return row.rating is None, -value, -row.votes, row.contestant.name
