"""Rules of routes as they are kept: in rig files, in the administration, in the routing table."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from django.test import Client
from django.urls import reverse
from jsonschema import Draft202012Validator

from deployments.gateway.auto.rules import CONDITIONS
from deployments.gateway.directory import read_table
from deployments.models import Deployment, Route
from deployments.rig.apply import apply
from deployments.rig.export import current_rig
from deployments.rig.reader import parse
from deployments.rig.schema import rig_schema
from deployments.rig.words import RigError, dump
from tests.gateway.engine import make_deployment

VALIDATOR = Draft202012Validator(rig_schema())
WHOLE = """\
routes:
  - name: helper
    deployment: smol
    rules:
      - {purpose: [coding, reasoning], code_share: 0.25, to: coder}
      - {images: true, to: [coder, smol]}
      - {keywords: refund, tokens_above: 8000, to: coder}
    fallbacks: [coder]
"""
RULES = (
    {"purpose": ["coding", "reasoning"], "code_share": 0.25, "to": ["coder"]},
    {"images": True, "to": ["coder", "smol"]},
    {"keywords": ["refund"], "tokens_above": 8000, "to": ["coder"]},
)
HEAD = "routes:\n  - {name: r, deployment: smol, rules: "


def is_wrong(text: str) -> bool:
    return bool(list(VALIDATOR.iter_errors(yaml.safe_load(text))))


def test_a_file_is_read_written_and_read_again() -> None:
    rig = parse(WHOLE)
    assert rig.routes[0].rules == RULES
    assert rig.routes[0].fallbacks == ("coder",)
    assert parse(dump(rig)) == rig
    assert not is_wrong(WHOLE) and not is_wrong(dump(rig))


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("3", "rules must be a list"),
        ("[3]", "the rule must be"),
        ("[{images: true}]", "to is not a text"),
        ("[{to: a, colour: red}]", "the rule has no key 'colour'"),
        ("[{to: a, images: 3}]", "images is neither true nor false"),
        ("[{to: a, tokens_above: many}]", "tokens_above is not a number"),
        ("[{to: a, code_share: .nan}]", "code_share is not from 0"),
        ("[{to: a, language: no}]", "language is not a text"),
        (f"[{', '.join(['{to: a}'] * 51)}]", "at most 50 rules"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_with_its_line(rules: str, says: str) -> None:
    with pytest.raises(RigError, match=says) as caught:
        parse(f"{HEAD}{rules}}}\n")
    assert caught.value.problems[0].line == 2


@pytest.mark.parametrize(
    "rules", ["3", "[3]", "[{images: true}]", "[{to: a, x: 1}]", "[{to: []}]"]
)
def test_the_schema_refuses_it_too(rules: str) -> None:
    assert is_wrong(f"{HEAD}{rules}}}\n")


def test_the_schema_explains_every_condition() -> None:
    rule = rig_schema()["properties"]["routes"]["items"]["properties"]["rules"]["items"]
    assert {*CONDITIONS, "to"} == set(rule["properties"])
    assert all(each["description"] for each in rule["properties"].values())


@pytest.fixture
def deployments(db: None) -> None:
    for name in ("coder", "smol"):
        make_deployment(name, None, state="starting")


@pytest.mark.usefixtures("deployments")
def test_applied_they_are_kept_exported_and_in_the_table() -> None:
    assert apply(WHOLE, user=None).changes == ["route helper → smol added"]
    assert apply(WHOLE, user=None).changes == []
    exported = current_rig().routes[0]
    assert (exported.rules, exported.fallbacks) == (RULES, ("coder",))
    changed = WHOLE.replace("8000", "9000")
    assert apply(changed, user=None).changes == ["route helper → smol changed"]
    rules = read_table().rules["helper"]
    assert rules.otherwise == "smol" and rules.fallbacks == ("coder",)
    assert rules.rules[2].when["tokens_above"] == 9000


@pytest.mark.usefixtures("deployments")
def test_a_file_that_names_no_deployment_in_a_rule_is_refused() -> None:
    for wrong in (
        WHOLE.replace("to: coder", "to: nobody", 1),
        WHOLE.replace("[coder]", "[gone]"),
    ):
        with pytest.raises(RigError, match="There is no deployment"):
            apply(wrong, user=None)
    assert not Route.objects.exists()


@pytest.mark.usefixtures("deployments")
def test_rules_that_cannot_be_read_are_passed_over_and_the_route_still_leads() -> None:
    smol = Deployment.objects.get(name="smol")
    Route.objects.create(name="old", deployment=smol, rules=[{"colour": "red"}])
    table = read_table()
    assert table.rules["old"].rules == () and table.rules["old"].otherwise == "smol"


@pytest.mark.usefixtures("deployments")
@pytest.mark.parametrize(
    ("rules", "fallbacks", "says"),
    [
        ('[{"purpose": "coding", "to": "coder"}]', '["coder"]', ""),
        ("", "", ""),
        ('[{"purpose": "coding"}]', "", "to is not a text"),
        ('[{"to": "nobody"}]', "", "There is no deployment"),
        ("", '["nobody"]', "There is no deployment"),
        ("", "3", "fallbacks is not a text"),
    ],
)
def test_the_administration_checks_them(
    admin_client: Client, rules: str, fallbacks: str, says: str
) -> None:
    smol = Deployment.objects.get(name="smol")
    fields: dict[str, Any] = {
        "name": "helper",
        "deployment": smol.pk,
        "description": "",
    }
    answer = admin_client.post(
        reverse("admin:deployments_route_add"),
        {**fields, "rules": rules, "fallbacks": fallbacks},
    )
    if says:
        assert says in answer.content.decode()
    else:
        assert answer.status_code == 302, answer.content.decode()
    assert Route.objects.exists() is not bool(says)
    if rules and not says:
        assert Route.objects.get().rules == [{"purpose": ["coding"], "to": ["coder"]}]
