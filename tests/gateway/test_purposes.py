"""What the routing table knows of a deployment for `auto`: what it is for, how long a request may
be."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.gateway.directory import read_table, serving
from deployments.models import Deployment
from tests.gateway.engine import make_deployment

pytestmark = pytest.mark.django_db


def test_what_somebody_wrote_down_counts_else_its_name_does() -> None:
    made = make_deployment("my-coder", None, state="starting")
    guessed = serving(made)
    assert (guessed.purposes, guessed.is_guessed) == (("coding",), True)
    made.purposes = ["Reasoning", "support"]
    written = serving(made)
    assert (written.purposes, written.is_guessed) == (("reasoning", "support"), False)


def test_a_name_that_tells_nothing_leaves_auto_off_the_list() -> None:
    make_deployment("smol", None, state="starting")
    table = read_table()
    assert table.deployments["smol"].purposes == () and not table.for_auto


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"context": 16_384}, 16_384),
        ({"context": 16_384, "parallel": 2}, 8192),
        ({"context": 16_384, "parallel": 2, "kv_unified": "on"}, 16_384),
    ],
)
def test_parallel_requests_share_the_context(
    settings: dict[str, Any], tokens: int
) -> None:
    make_deployment("smol", None, state="starting", settings=settings)
    assert read_table().deployments["smol"].context_tokens == tokens


def test_a_deployment_that_cannot_be_read_takes_no_other_with_it() -> None:
    make_deployment("broken", None, state="starting", settings={"parallel": 4096})
    make_deployment("smol", None, state="starting")
    assert list(read_table().deployments) == ["smol"]


def test_of_an_external_server_it_is_not_known() -> None:
    make_deployment("remote", None, state="starting", external_model="x")
    assert serving(Deployment.objects.get()).context_tokens == 0


def test_the_table_is_read_with_as_many_queries_for_one_as_for_many(
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(12):
        make_deployment(f"d{number}", None, state="starting")
    with django_assert_max_num_queries(6):
        read_table()
