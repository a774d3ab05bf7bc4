"""The standings page: ratings where votes suffice, and a plain word where they do not."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from chat.contestants import contestant_of
from chat.models import Ballot, Contestant
from chat.ratings import FEWEST_VOTES
from chat.standings import standings
from tests.gateway.engine import make_deployment
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db


@pytest.fixture
def contestants(db: None) -> dict[str, Contestant]:
    for number, name in enumerate("abc"):
        make_deployment(name, 20001 + number)
    return {name: contestant_of(name) for name in "abcd"}


def vote(
    contestants: dict[str, Contestant],
    pair: str,
    verdict: str,
    times: int = 1,
    *,
    first_conversation: int = 1,
    is_blind: bool = True,
) -> None:
    """Each in a conversation of its own."""
    left, right = pair
    for number in range(times):
        Ballot.objects.create(
            conversation_number=first_conversation + number,
            is_blind=is_blind,
            left=contestants[left],
            right=contestants[right],
            verdict=verdict,
        )


def by_name() -> dict[str, Any]:
    return {row.contestant.name: row for row in standings().rows}


def test_enough_votes_on_both_sides_give_ratings(
    contestants: dict[str, Contestant],
) -> None:
    vote(contestants, "ab", "left", 9)
    vote(contestants, "ba", "left", 3, first_conversation=20)
    vote(contestants, "ab", "tie", 2, first_conversation=30)
    vote(contestants, "ab", "both_bad", 4, first_conversation=40)
    rows = by_name()
    a, b = rows["a"], rows["b"]
    assert (a.won, a.lost, a.tied, a.both_bad, a.votes) == (9, 3, 2, 4, 14)
    assert (b.won, b.lost, b.tied, b.both_bad, b.votes) == (3, 9, 2, 4, 14)
    # Ten of fourteen: the odds are 10 to 4.
    assert a.rating.value - b.rating.value == pytest.approx(159.18, abs=0.01)
    assert a.rating.low < a.rating.value < a.rating.high
    found = standings()
    assert (found.votes, found.both_bad, found.conversations) == (14, 4, 14)
    assert found.left_percent == 100
    assert [row.contestant.name for row in found.rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("cast", "name", "said"),
    [
        ([("ab", "left", 5), ("ab", "right", 4)], "a", f"9 of {FEWEST_VOTES}"),
        ([("ab", "left", 12)], "a", "it won all of them"),
        ([("ab", "left", 12)], "b", "it lost all of them"),
        (
            [
                ("ab", "left", 9),
                ("ab", "right", 9),
                ("cd", "left", 6),
                ("cd", "right", 6),
            ],
            "c",
            "none connects it",
        ),
        (
            [
                ("ab", "left", 9),
                ("ab", "right", 9),
                ("cd", "left", 6),
                ("cd", "right", 6),
                ("ac", "left", 3),
            ],
            "c",
            "all went one way",
        ),
    ],
)
def test_too_few_votes_are_said(
    contestants: dict[str, Contestant],
    viewer: Client,
    cast: list[tuple[str, str, int]],
    name: str,
    said: str,
) -> None:
    for pair, verdict, times in cast:
        vote(contestants, pair, verdict, times)
    row = by_name()[name]
    assert row.rating is None and row.bar is None
    assert row.lacks.startswith("Too few votes") and said in row.lacks
    page = squeezed(viewer.get(reverse("chat:standings")).content.decode())
    assert row.lacks in page


def test_votes_of_two_conversations_are_too_few(
    contestants: dict[str, Contestant],
) -> None:
    for verdict in ("left", "right"):
        for _ in range(8):
            vote(contestants, "ab", verdict, 2)
    assert "fewer than 3 conversations" in by_name()["a"].lacks


def test_what_does_not_count_is_told_apart(
    contestants: dict[str, Contestant], viewer: Client
) -> None:
    vote(contestants, "ab", "left", 5, is_blind=False)
    vote(contestants, "ab", "none", 5)
    vote(contestants, "ab", "", 5)
    vote(contestants, "aa", "left", 5)
    found = standings()
    assert (found.rows, found.votes, found.open_votes) == ([], 0, 5)
    page = squeezed(viewer.get(reverse("chat:standings")).content.decode())
    assert "No blind votes yet" in page and "5 votes with the names shown" in page


def test_what_became_of_a_deployment_is_said(
    contestants: dict[str, Contestant], viewer: Client
) -> None:
    from deployments.models import Deployment

    vote(contestants, "ab", "left", 2)
    vote(contestants, "dc", "left", 2)
    deployment = Deployment.objects.get(name="a")
    deployment.settings = {"context": 8192}
    deployment.save()
    contestants["a"] = contestant_of("a")
    vote(contestants, "ab", "tie", 2)
    rows = [(row.contestant.name, row.became) for row in standings().rows]
    assert sorted(rows) == [
        ("a", ""),
        ("a", "changed since"),
        ("b", ""),
        ("c", ""),
        ("d", "deleted since"),
    ]
    page = viewer.get(reverse("chat:standings")).content.decode()
    assert "changed since" in page and "deleted since" in page


def test_whoever_is_logged_in_sees_the_standings(
    viewer: Client, anonymous: Client, operator: Client, operator_user: User
) -> None:
    address = reverse("chat:standings")
    assert viewer.get(address).status_code == 200
    assert anonymous.get(address).status_code == 302
    assert viewer.post(address).status_code == 405
    assert f'href="{address}"' in operator.get(reverse("chat:list")).content.decode()
