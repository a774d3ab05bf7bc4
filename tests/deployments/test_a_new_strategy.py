"""A new strategy is one file and a row: pages, services, rig files and the database take it as it
is."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from django.test import Client
from jsonschema import Draft202012Validator

from deployments.models import Deployment, Model
from deployments.planning.settings import SETTINGS
from deployments.rig.apply import apply
from deployments.rig.export import rig_text
from deployments.rig.reader import parse
from deployments.rig.schema import rig_schema
from deployments.services.deployments import plan_deployment
from deployments.strategies import STRATEGIES
from tests.deployments.plan_page import card_of, page
from tests.deployments.toy_strategy import Spare

ROOT = Path(__file__).parents[2]
KNOWN_IN_ORDER = tuple(STRATEGIES)
KNOWN = frozenset(KNOWN_IN_ORDER)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> Spare:
    strategy = Spare()
    monkeypatch.setitem(STRATEGIES, strategy.name, strategy)
    return strategy


@pytest.fixture
def made(make_deployment: Callable[..., Deployment], model: Model) -> Deployment:
    members = {"model": (model, ["RPC0", "RPC1"])}
    return make_deployment("spared", strategy=Spare.name, members=members)


# --- pages ----------------------------------------------------------------------------------------
@pytest.mark.usefixtures("engine")
def test_the_plan_page_plans_and_deploys_it(operator: Client, model: Model) -> None:
    query = f"model={model.name}&device=RPC0&device=RPC1"
    card = card_of(page(operator, query), Spare.name)
    assert "Warm spare" in card and "RPC0 is kept free beside RPC1." in card
    operator.post(f"/plan/?{query}", {"strategy": Spare.name, "name": ""})
    made = Deployment.objects.get()
    assert (made.strategy, made.name) == (Spare.name, f"{model.name}-warm-spare")
    assert made.desired == Deployment.Desired.RUNNING
    (instance,) = plan_deployment(made).instances
    assert instance.devices == ("RPC1",)


@pytest.mark.usefixtures("engine")
def test_the_form_offers_and_makes_it(operator: Client, model: Model) -> None:
    assert '<option value="warm_spare">Warm spare</option>' in operator.get(
        "/deployments/new/"
    ).content.decode().replace(" selected", "")
    asked = operator.get("/deployments/new/?strategy=warm_spare").content.decode()
    assert "setting_context" in asked and "setting_draft_max" not in asked


def test_its_deployments_carry_its_title(operator: Client, made: Deployment) -> None:
    assert "Warm spare" in operator.get(f"/deployments/{made.name}/").content.decode()


def test_one_whose_strategy_is_gone_is_still_shown_and_says_so(
    operator: Client, made: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(STRATEGIES, Spare.name)
    answer = operator.get(f"/deployments/{made.name}/")
    text = answer.content.decode()
    assert answer.status_code == 200
    assert (
        "warm_spare" in text and "There is no strategy &#x27;warm_spare&#x27;." in text
    )


# --- rig files ------------------------------------------------------------------------------------
def test_rig_files_name_it_both_ways(made: Deployment) -> None:
    text = rig_text()
    assert "strategy: warm_spare" in text
    (entry,) = parse(text).deployments
    assert (entry.strategy, dict(entry.devices)) == (
        Spare.name,
        {"model": ("RPC0", "RPC1")},
    )
    made.delete()
    apply(text)
    assert Deployment.objects.get().strategy == Spare.name


def test_the_schema_of_rig_files_takes_it(made: Deployment) -> None:
    schema = rig_schema()
    names = schema["properties"]["deployments"]["items"]["properties"]["strategy"][
        "enum"
    ]
    assert names == [*KNOWN_IN_ORDER, Spare.name]
    found = Draft202012Validator(schema).iter_errors(yaml.safe_load(rig_text()))
    assert [error.message for error in found] == []


# --- words ----------------------------------------------------------------------------------------
# The word of a setting, and of a key in llama-server's own answers.
OTHER_MEANINGS = {
    ("deployments/planning/settings.py", "tensor_split"),
    ("deployments/engines/llama_cpp.py", "speculative"),
}


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def sources() -> Iterator[tuple[str, Path]]:
    for app in ("omni", "gpus", "deployments", "chat"):
        for path in sorted((ROOT / app).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/migrations/" not in name:
                yield name, path


def test_no_file_but_states_and_the_strategies_own_names_a_strategy() -> None:
    found = {
        (name, text)
        for name, path in sources()
        for text in strings(path)
        if text in KNOWN and not name.startswith("deployments/strategies/")
    }
    assert {
        pair for pair in found if pair[0] != "deployments/states.py"
    } == OTHER_MEANINGS
    assert {text for name, text in found if name == "deployments/states.py"} == KNOWN


def test_no_migration_will_name_strategies_again() -> None:
    folder = ROOT / "deployments" / "migrations"
    named = {
        path.name: KNOWN & set(strings(path))
        for path in sorted(folder.glob("0*.py"))
        if len(KNOWN & set(strings(path))) > 1
    }
    assert set(named) == {"0001_initial.py"}
    assert Deployment._meta.get_field("strategy").choices is None


def test_each_name_fits_its_column() -> None:
    longest = Deployment._meta.get_field("strategy").max_length
    assert longest and all(0 < len(name) <= longest for name in STRATEGIES)


def test_each_setting_of_few_strategies_is_some_strategys_own() -> None:
    marked = {key for key, setting in SETTINGS.items() if setting.of_strategy}
    assert marked == {
        key for strategy in STRATEGIES.values() for key in strategy.own_settings
    }
