"""Deploy of one click takes the planner's best way on what is free, and says why where there is
none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from deployments.models import Deployment, Engine, Instance, Model
from deployments.services import one_click
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
    plan_deployment,
)
from deployments.services.discovery import local_host
from gpus.models import Device
from omni.errors import OmniError
from tests.planning.stand_ins import OWNERS_MODELS

GIB, MIB = 1 << 30, 1 << 20
BIG, CODER, HUGE, SMALL = OWNERS_MODELS


def devices(deployment: Deployment) -> list[str]:
    return [name for binding in deployment.bindings.all() for name in binding.devices]


def runs(deployment: Deployment) -> None:
    host = deployment.host
    Instance.objects.create(
        host=host,
        deployment=deployment,
        role="model",
        state="ready",
        pid=1,
        generation=99,
    )


# --- what it takes --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "strategies", "taken"),
    [
        (BIG, {"independent"}, ["CUDA0"]),
        (SMALL, {"independent"}, None),
        (HUGE, {"expert_offload", "independent"}, None),
    ],
)
def test_each_of_the_owners_models_runs_on_cards(
    owned: Callable[[str], Model],
    name: str,
    strategies: set[str],
    taken: list[str] | None,
) -> None:
    made = one_click.deploy(model=owned(name))
    plan = plan_deployment(made)
    assert made.desired == "running" or Deployment.objects.get().desired == "running"
    assert made.strategy in strategies and plan.verdict != "not_viable"
    assert taken in (None, devices(made)) and "CPU" not in devices(made)


def test_a_second_deploy_takes_the_card_that_is_free(
    owned: Callable[[str], Model],
) -> None:
    first = one_click.deploy(model=owned(CODER))
    second = one_click.deploy(model=owned(SMALL))
    assert len(devices(first)) == len(devices(second)) == 1
    assert devices(first) != devices(second)


def test_what_is_loading_counts_though_no_card_shows_it_yet(
    owned: Callable[[str], Model],
) -> None:
    big = one_click.deploy(model=owned(BIG))
    assert devices(big) == ["CUDA0"]
    # 20 GiB are left on the large card by the rows, 90 by what the cards show.
    assert devices(one_click.deploy(model=owned(CODER))) == ["CUDA1"]


def test_what_the_cards_have_left_is_used_though_a_model_needs_more(
    owned: Callable[[str], Model],
) -> None:
    one_click.deploy(model=owned(BIG))
    one_click.deploy(model=owned(CODER))
    made = one_click.deploy(model=owned(HUGE))
    assert devices(made) != ["CPU"] and plan_deployment(made).verdict != "not_viable"


def test_a_model_that_was_deployed_before_is_started_again(
    owned: Callable[[str], Model],
) -> None:
    made = one_click.deploy(model=owned(SMALL))
    deployment_stop(deployment=made)
    assert one_click.deploy(model=Model.objects.get()).pk == made.pk
    assert Deployment.objects.get().desired == "running"


def test_what_a_model_only_drafts_for_is_not_what_its_deploy_starts(
    owned: Callable[[str], Model], engine: Engine, operator: Client
) -> None:
    big, small = owned(CODER), owned(SMALL)
    pair = {"target": (big, ["CUDA0"]), "draft": (small, ["CUDA1"])}
    deployment_create(
        name="pair", strategy="speculative", engine=engine, members=pair, settings={}
    )
    assert (
        f"/models/{small.name}/deploy/"
        in operator.get("/deployments/quick/").content.decode()
    )
    assert one_click.deploy(model=small).name == small.name


def test_the_command_is_the_one_that_was_judged(owned: Callable[[str], Model]) -> None:
    model = owned(HUGE)
    offer = one_click.best_offer(local_host(), model)
    made = one_click.deploy(model=model)
    judged, kept = offer.plan.instances, plan_deployment(made).instances
    assert [instance.argv for instance in judged] == [
        instance.argv for instance in kept
    ]


def test_without_cards_it_runs_on_a_stand_in(engine: Engine, model: Model) -> None:
    made = one_click.deploy(model=model)
    assert (made.name, devices(made)) == (model.name, ["RPC0"])


def test_a_stand_in_that_serves_another_is_left_to_it(
    engine: Engine, model: Model, make_deployment: object
) -> None:
    other = make_deployment("other", members={"model": (model, ["RPC0"])})  # type: ignore[operator]
    deployment_start(deployment=other)
    copy = Model.objects.create(
        name="copy",
        path=f"{model.path}.copy",
        facts=model.facts,
        shape=model.shape,
        vocab=model.vocab,
        state="ok",
    )
    assert devices(one_click.deploy(model=copy)) == ["RPC1"]


# --- why not --------------------------------------------------------------------------------------
def test_what_fits_nowhere_is_refused_with_what_it_lacks(
    owned: Callable[[str], Model],
) -> None:
    Device.objects.filter(name="CPU").update(memory_bytes=4 * GIB)
    with pytest.raises(OmniError) as refused:
        one_click.deploy(model=owned(HUGE))
    assert refused.value.code == "fits_nowhere" and "GiB" in refused.value.text
    assert not Deployment.objects.exists()


def test_who_is_in_the_way_is_named(owned: Callable[[str], Model]) -> None:
    Device.objects.filter(name="CPU").update(memory_bytes=4 * GIB)
    Device.objects.filter(name="CUDA1").update(is_present=False)
    first = one_click.deploy(model=owned(BIG))
    runs(first)
    second = owned(CODER)
    Device.objects.filter(name="CUDA0").update(memory_bytes=50 * GIB)
    with pytest.raises(OmniError, match=first.name) as refused:
        one_click.deploy(model=second)
    assert refused.value.code == "place_taken"


def test_a_card_that_no_engine_can_use_is_not_passed_over_in_silence(
    owned: Callable[[str], Model], engine: Engine, operator: Client
) -> None:
    Engine.objects.update(devices=[])
    Device.objects.filter(kind="cuda").delete()
    model = owned(SMALL)
    with pytest.raises(OmniError) as refused:
        one_click.deploy(model=model)
    assert refused.value.code == "unusable_cards" and "RTX 5090" in refused.value.text
    text = operator.post(
        f"/models/{model.name}/deploy/", headers={"HX-Request": "true"}
    ).content.decode()
    assert "No engine here can use" in text and "Plan page" in text, (
        "said on the page that is open"
    )
    assert not Deployment.objects.exists()
