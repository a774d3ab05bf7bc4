"""Bradley–Terry ratings against a reference computation, and what has no rating."""

from __future__ import annotations

import math
import random

import pytest

from chat.ratings import Rating, Vote, connected_to, group_of_rated, rate, student_975

NAMES = "abcde"
# One conversation a line.
# In these, conversations happen to differ less than votes that have nothing to do with each other.
APART = """
d>c d=c d>c d<c d<c d>c
d>c d>c d<c
d<a d<a
d<e d<e
e<b e=b
e<d e<d e=d e<d e<d e<d
c<a c<a c>a c<a
e>a e<a e<a
a>c a>c
e>d e<d e<d e=d
e<c e>c e<c
c<b c>b c<b
b<a b>a b<a b>a
d<b d<b d<b d>b d<b
a>e a=e a>e
a>c a<c
e<c e=c e>c e=c
a>e a>b b>c b=d e<d
"""
# In these they are of one mind each.
ALIKE = """
e>c b<a
b>d b>d b>d
a<e a>e a<e
d<c c<a
a>c a<c a>c a>c
d<a d<a d<a
d=a d=a d<a d>a
c=e c<e c=e c>e
b<c b>c b>c b>c b=c
d>c d>c d>c
d<b c=e c<e
a<c a<c a<c a<c
c>e c>e c>e c>e
b<e b>e b<e b<e
c<a d<b b>d
d=c d<c d<c d<c d<c
c<e c>e c<e c<e
a>d a>d
d<e d<e d<e d<e d<e
e<d e<c d<c
b>c b>c
c>d c>d c<d
d>e d=e d>e
d<c d<c d=c
b>c b>c
a>b a>b
"""
# Value, low, high as choix 0.4.1 (strengths: opt_pairwise, alpha=0, on every vote twice, so that a
# tie is one win each), statsmodels 0.15 (the same strengths, and the errors) and scipy.stats.t have
# them, for votes (i, j, score, line):
#   python -m venv v; v/bin/pip install choix statsmodels; v/bin/python reference.py
#   X[vote] = e_i − e_j;  C = eye(5)[:, :4] − 1/5;  G = number of lines
#   model = sm.GLM(score, X[:, :4], family=sm.families.Binomial())
#   fit = model.fit(tol=1e-14, cov_type="cluster",
#       cov_kwds={"groups": line, "use_correction": False})
#   clustered = C @ fit.cov_params() @ C.T * G / (G − 1)
#   plain = C @ model.fit(tol=1e-14).cov_params() @ C.T
#   value = 1000 + 400 / ln 10 · C @ fit.params
#   reach = 400 / ln 10 · t.ppf(.975, G − 1) · sqrt(maximum(diag(clustered), diag(plain)))
REFERENCES = {
    APART: {
        "a": (1148.8387, 998.3527, 1299.3246),
        "b": (1108.9138, 951.8097, 1266.0178),
        "c": (914.6484, 792.1122, 1037.1846),
        "d": (967.6786, 849.1015, 1086.2556),
        "e": (859.9206, 731.8651, 987.9761),
    },
    ALIKE: {
        "a": (1059.7529, 890.4978, 1229.0080),
        "b": (1086.2660, 942.2481, 1230.2840),
        "c": (992.3310, 883.1119, 1101.5501),
        "d": (845.6926, 708.4774, 982.9077),
        "e": (1015.9575, 862.9053, 1169.0097),
    },
}


def votes_of(cast: str) -> list[Vote]:
    scores = {">": 1.0, "=": 0.5, "<": 0.0}
    return [
        Vote(NAMES.index(one), NAMES.index(other), scores[sign], line)
        for line, text in enumerate(cast.strip().splitlines())
        for one, sign, other in text.split()
    ]


@pytest.mark.parametrize("cast", REFERENCES, ids=["apart", "alike"])
def test_ratings_and_intervals_are_those_of_the_reference(cast: str) -> None:
    votes = votes_of(cast)
    group = group_of_rated(votes)
    assert group == [0, 1, 2, 3, 4]
    found = rate(group, votes)
    for name, expected in REFERENCES[cast].items():
        rating = found[NAMES.index(name)]
        shown = (rating.value, rating.low, rating.high)
        assert shown == pytest.approx(expected, abs=0.01), name


def test_the_ratings_of_two_are_the_odds_of_their_votes() -> None:
    votes = votes_of("a>b a>b\na>b b>a\na=b a=b\na>b a>b")
    found = rate([0, 1], votes)
    # Six of eight points: odds of three to one.
    assert found[0].value - found[1].value == pytest.approx(400 * math.log10(3))
    assert found[0].value + found[1].value == pytest.approx(2000)


def test_who_stands_first_in_a_vote_changes_nothing() -> None:
    votes = votes_of(APART)
    turned = [Vote(v.second, v.first, 1 - v.score, v.conversation) for v in votes]
    for one, other in zip(
        rate(range(5), votes).values(), rate(range(5), turned).values(), strict=True
    ):
        assert (one.value, one.low) == pytest.approx((other.value, other.low))


def test_votes_of_one_conversation_widen_the_interval() -> None:
    """Ten votes that are all one conversation's say less than ten of ten."""
    together = [Vote(0, 1, float(n < 3), n) for n in range(4) for _ in range(10)]
    apart = [Vote(v.first, v.second, v.score, n) for n, v in enumerate(together)]
    wide, narrow = rate([0, 1], together)[0], rate([0, 1], apart)[0]
    assert wide.value == pytest.approx(narrow.value)
    assert width(wide) > 2.5 * width(narrow)


def width(rating: Rating) -> float:
    assert rating.low is not None and rating.high is not None
    return rating.high - rating.low


@pytest.mark.parametrize("cast", ["a>b b>a\n" * 6, "a=b a=b\n" * 6])
def test_conversations_that_cancel_out_are_not_certain(cast: str) -> None:
    assert width(rate([0, 1], votes_of(cast))[0]) > 100


def test_two_conversations_have_no_interval() -> None:
    found = rate([0, 1], votes_of("a>b b>a a>b\na>b b>a"))
    assert (found[0].low, found[0].high) == (None, None)


@pytest.mark.parametrize(
    ("cast", "group", "connected"),
    [
        ("", [], ""),
        ("a>b a>b", [], ""),
        ("a>b b>a", [0, 1], "ab"),
        ("a=b", [0, 1], "ab"),
        ("a>b b>c c>a", [0, 1, 2], "abc"),
        ("a>b b>c a>c", [], ""),
        ("a>b b>a c>d c>d d>c", [2, 3], "cd"),
        ("a>b b>a b>c c>d d>c d>c", [2, 3], "abcd"),
    ],
)
def test_who_can_be_rated(cast: str, group: list[int], connected: str) -> None:
    votes = votes_of(cast)
    assert group_of_rated(votes) == group
    expected = {NAMES.index(name) for name in connected}
    assert connected_to(group, votes) == expected


@pytest.mark.parametrize(
    ("degrees", "expected"),
    # scipy.stats.t.ppf(.975, degrees)
    [(3, 3.182446), (5, 2.570582), (10, 2.228139), (30, 2.042272), (100, 1.983972)],
)
def test_students_t(degrees: int, expected: float) -> None:
    assert student_975(degrees) == pytest.approx(expected, rel=5e-3)


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    """Thirty conversations of four votes, each with a taste of its own, again and again."""
    draw = random.Random(7)
    true = 0.7
    held = 0
    rounds = 300
    for _ in range(rounds):
        votes = []
        for conversation in range(30):
            for _ in range(4):
                chance = 1 / (1 + math.exp(-true))
                score = 0.5 if draw.random() < 0.2 else float(draw.random() < chance)
                votes.append(Vote(0, 1, score, conversation))
        rating = rate([0, 1], votes)[0]
        # A fifth are ties, so the odds that are looked for lie nearer to even.
        share = 0.2 * 0.5 + 0.8 / (1 + math.exp(-true))
        looked_for = 1000 + 200 * math.log10(share / (1 - share))
        assert rating.low is not None and rating.high is not None
        held += rating.low <= looked_for <= rating.high
    assert 0.93 <= held / rounds <= 0.99
