"""The page that shows where a prompt would go."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.models import Deployment, Route
from tests.gateway.engine import make_deployment
from tests.helpers import free_port

pytestmark = pytest.mark.django_db
CODE = "Write a Python function that sorts a list of tuples."


@pytest.fixture
def looking(client: Client, django_user_model: Any) -> Client:
    """Somebody who may look, and no more."""
    client.force_login(django_user_model.objects.create_user("eve", password="eve"))
    return client


def test_without_deployments_it_says_what_it_is_for(looking: Client) -> None:
    page = looking.get(reverse("deployments:routing")).content.decode()
    assert "There is no deployment yet" in page
    answer = looking.post(reverse("deployments:routing"), {"prompt": CODE})
    assert "No deployment that it leads to is ready" in answer.content.decode()


def test_it_shows_the_rules_and_the_scores_of_a_prompt(looking: Client) -> None:
    for name in ("a-coder", "smol"):
        make_deployment(name, free_port(), state="starting")
    page = looking.post(reverse("deployments:routing"), {"prompt": CODE})
    text = page.content.decode()
    assert '<h2 id="decision-title">a-coder</h2>' in text
    assert "Decided by the rule <strong>purpose</strong>" in text
    for word in ("reachable", "images", "context", "conversation", "prefix", "load"):
        assert word in text
    assert "words that programmers use, too" in text and "by its name" in text


def test_htmx_gets_the_decision_alone(looking: Client) -> None:
    make_deployment("smol", free_port(), state="starting")
    answer = looking.post(
        reverse("deployments:routing"), {"prompt": "hi"}, headers={"HX-Request": "true"}
    )
    text = answer.content.decode()
    assert "<html" not in text and 'id="decision"' in text


def test_a_prompt_is_needed_and_is_shown_as_text(looking: Client) -> None:
    make_deployment("smol", free_port(), state="starting")
    address = reverse("deployments:routing")
    assert "prompt: This field is required." in looking.post(address).content.decode()
    shown = looking.post(address, {"prompt": "<script>x_y()</script>"}).content.decode()
    assert "<script>x_y" not in shown


def test_a_conversation_that_goes_on_stays(looking: Client) -> None:
    for name in ("a-coder", "smol"):
        make_deployment(name, free_port(), state="starting")
    fields = {"prompt": CODE, "earlier": "hello", "answered_by": "smol"}
    text = looking.post(reverse("deployments:routing"), fields).content.decode()
    assert "smol has answered this conversation before" in text


def test_a_route_with_rules_is_shown_rule_by_rule(looking: Client) -> None:
    for name in ("a-coder", "smol"):
        make_deployment(name, free_port(), state="starting")
    rules = [{"images": True, "to": "a-coder"}, {"purpose": "coding", "to": "a-coder"}]
    smol = Deployment.objects.get(name="smol")
    Route.objects.create(name="helper", deployment=smol, rules=rules)
    fields = {"prompt": CODE, "model": "helper"}
    text = looking.post(reverse("deployments:routing"), fields).content.decode()
    assert "Decided by the rule <strong>rule 2</strong>" in text
    assert "images is not true" in text and "purpose is coding" in text
