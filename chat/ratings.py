"""Bradley–Terry ratings out of votes between two, with 95 % intervals.

The model (Bradley and Terry, Biometrika 39, 1952): i wins against j with probability
p_i / (p_i + p_j). A tie is half a win for each, as in most arenas of language models.

Strengths by maximum likelihood, with the iteration of M. E. J. Newman, "Efficient computation of
rankings from pairwise comparisons", JMLR 24 (2023). They exist where everybody can be reached from
everybody along wins (L. R. Ford, Amer. Math. Monthly 64, 1957), so that is asked first.

Intervals by the sandwich of the information matrix and the scores of whole conversations (Liang and
Zeger, Biometrika 73, 1986), with the factor G / (G − 1) and Student's t with G − 1 degrees of
freedom for G conversations: votes of one conversation are about one subject by one person. Where
the information matrix alone gives a wider one, that is taken: few conversations that happen to
cancel out within themselves, or ties only, would otherwise look certain.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Whoever has fewer is not given a rating: its interval would say next to nothing.
FEWEST_VOTES = 10
# Fewer tell nothing of how conversations differ.
FEWEST_CONVERSATIONS = 3
# As chess has it: 400 points are odds of ten to one.
POINTS = 400 / math.log(10)
MIDDLE = 1000.0
NORMAL_975 = 1.959963984540054
MOST_ROUNDS = 10_000
CLOSE_ENOUGH = 1e-12

Matrix = list[list[float]]


@dataclass(frozen=True)
class Vote:
    """`score` is the first one's: 1 it won, 0 the second won, ½ a tie."""

    first: int
    second: int
    score: float
    conversation: int


@dataclass(frozen=True)
class Rating:
    """Points, of which the mean of all that are rated is 1000; None where votes are too few."""

    value: float
    low: float | None
    high: float | None


def group_of_rated(votes: Sequence[Vote]) -> list[int]:
    """The largest set in which each has been beaten by each of the others, directly or through
    others: only within such a set ratings exist. Empty when there is none of two."""
    beaten = _beaten_by(votes)
    reached = {one: _reached_from(one, beaten) for one in beaten}
    groups = {
        one: frozenset(other for other in reached[one] if one in reached[other])
        for one in beaten
    }
    sizes = {
        group: sum(1 for vote in votes if {vote.first, vote.second} <= group)
        for group in groups.values()
        if len(group) > 1
    }
    if not sizes:
        return []
    largest = max(sizes, key=lambda group: (sizes[group], -min(group)))
    return sorted(largest)


def connected_to(group: Iterable[int], votes: Sequence[Vote]) -> set[int]:
    """All that votes connect with it, whoever won them."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for vote in votes:
        neighbours[vote.first].add(vote.second)
        neighbours[vote.second].add(vote.first)
    found: set[int] = set()
    for one in group:
        found |= _reached_from(one, neighbours)
    return found


def rate(group: Sequence[int], votes: Iterable[Vote]) -> dict[int, Rating]:
    """Ratings within a group that `group_of_rated` found, by the votes among its members."""
    among = [vote for vote in votes if vote.first in group and vote.second in group]
    places = {one: place for place, one in enumerate(group)}
    strengths = _log_strengths(places, among)
    errors = _standard_errors(places, among, strengths)
    ratings = {}
    for one, place in places.items():
        value = MIDDLE + POINTS * strengths[place]
        if errors is None:
            ratings[one] = Rating(value, None, None)
        else:
            reach = POINTS * errors[place]
            ratings[one] = Rating(value, value - reach, value + reach)
    return ratings


# --- who can be compared with whom ----------------------------------------------------------------
def _beaten_by(votes: Iterable[Vote]) -> dict[int, set[int]]:
    """Whom each has beaten; a tie counts as beating each other."""
    beaten: dict[int, set[int]] = defaultdict(set)
    for vote in votes:
        beaten[vote.first] |= {vote.second} if vote.score > 0 else set()
        beaten[vote.second] |= {vote.first} if vote.score < 1 else set()
    return dict(beaten)


def _reached_from(start: int, edges: Mapping[int, set[int]]) -> set[int]:
    found = {start}
    waiting = [start]
    while waiting:
        for other in edges.get(waiting.pop(), set()) - found:
            found.add(other)
            waiting.append(other)
    return found


# --- maximum likelihood ---------------------------------------------------------------------------
def _log_strengths(places: Mapping[int, int], votes: Sequence[Vote]) -> list[float]:
    """Natural logarithms of the strengths; their mean is 0."""
    wins = _wins(places, votes)
    strengths = [1.0] * len(places)
    for _ in range(MOST_ROUNDS):
        before = list(strengths)
        for place in range(len(strengths)):
            strengths[place] = _newman_step(place, strengths, wins)
        _set_mean_to_one(strengths)
        moved = max(
            abs(math.log(new / old)) for new, old in zip(strengths, before, strict=True)
        )
        if moved < CLOSE_ENOUGH:
            break
    return [math.log(strength) for strength in strengths]


def _wins(places: Mapping[int, int], votes: Iterable[Vote]) -> Matrix:
    """How often each has won against each; a tie is half a win for both."""
    wins = [[0.0] * len(places) for _ in places]
    for vote in votes:
        first, second = places[vote.first], places[vote.second]
        wins[first][second] += vote.score
        wins[second][first] += 1 - vote.score
    return wins


def _newman_step(place: int, strengths: Sequence[float], wins: Matrix) -> float:
    own = strengths[place]
    won = lost = 0.0
    for other, strength in enumerate(strengths):
        both = own + strength
        won += wins[place][other] * strength / both
        lost += wins[other][place] / both
    return won / lost


def _set_mean_to_one(strengths: list[float]) -> None:
    """The geometric mean: only the ratios of strengths mean anything."""
    logs = [math.log(strength) for strength in strengths]
    mean = math.exp(sum(logs) / len(logs))
    for place, strength in enumerate(strengths):
        strengths[place] = strength / mean


# --- intervals ------------------------------------------------------------------------------------
def _standard_errors(
    places: Mapping[int, int], votes: Sequence[Vote], logs: Sequence[float]
) -> list[float] | None:
    """Half the width of each interval, in natural logarithms; None for too few
    conversations."""
    size = len(places)
    information = [[0.0] * size for _ in range(size)]
    scores: dict[int, list[float]] = defaultdict(lambda: [0.0] * size)
    for vote in votes:
        first, second = places[vote.first], places[vote.second]
        expected = 1 / (1 + math.exp(logs[second] - logs[first]))
        weight = expected * (1 - expected)
        information[first][first] += weight
        information[second][second] += weight
        information[first][second] -= weight
        information[second][first] -= weight
        surprise = vote.score - expected
        scores[vote.conversation][first] += surprise
        scores[vote.conversation][second] -= surprise
    conversations = len(scores)
    if conversations < FEWEST_CONVERSATIONS:
        return None
    bread = _inverse_around_mean(information)
    factor = conversations / (conversations - 1)
    # How far the scores of each conversation move each strength.
    moves = [[_dot(row, score) for row in bread] for score in scores.values()]
    variances = [
        max(factor * sum(move[place] ** 2 for move in moves), bread[place][place])
        for place in range(size)
    ]
    reach = student_975(conversations - 1)
    return [reach * math.sqrt(variance) for variance in variances]


def _inverse_around_mean(information: Matrix) -> Matrix:
    """The pseudo-inverse of a matrix whose rows add up to 0, as those of the information do."""
    size = len(information)
    share = 1 / size
    inverse = _inverse([[value + share for value in row] for row in information])
    return [[value - share for value in row] for row in inverse]


def _inverse(matrix: Matrix) -> Matrix:
    """By Gauss and Jordan, the largest pivot first."""
    size = len(matrix)
    rows = [
        [*row, *(1.0 if column == place else 0.0 for column in range(size))]
        for place, row in enumerate(matrix)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda place: abs(rows[place][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for place in range(size):
            factor = rows[place][column]
            if place != column and factor:
                rows[place] = [
                    value - factor * above
                    for value, above in zip(rows[place], rows[column], strict=True)
                ]
    return [row[size:] for row in rows]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def student_975(degrees: int) -> float:
    """The 97.5 % point of Student's t, by Abramowitz and Stegun 26.7.5."""
    z = NORMAL_975
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    corrections = [
        term / float(degrees) ** power for power, term in enumerate(terms, 1)
    ]
    return z + math.fsum(corrections)
