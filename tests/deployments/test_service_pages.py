"""What the pages and services make of deployments that drain, are unloaded, or have no place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.gateway.directory import serving
from deployments.gateway.waking import deployment_wake
from deployments.models import Deployment, Instance, Model
from deployments.planning.settings import SETTINGS
from deployments.services.deployments import (
    deployment_change,
    deployment_start,
    deployment_stop,
)
from deployments.services.reports import status_document
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.deployments.test_pages import HTMX, page, running

Make = Callable[..., Deployment]
LIST, ONE = "/deployments/", "/deployments/small/"


@pytest.fixture
def agent(host: Host) -> Host:
    Host.objects.update(agent_seen_at=timezone.now())
    return host


@pytest.fixture
def unloaded(deployment: Deployment, agent: Host) -> Deployment:
    deployment_start(deployment=deployment)
    running(deployment, state="stopped", pid=None, port=None)
    Deployment.objects.update(
        is_unloaded=True, unloaded_why="after 10 min 0 s without a request"
    )
    return Deployment.objects.get()


def test_one_that_lets_answers_finish_says_until_when_and_can_be_stopped_at_once(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    deployment_start(deployment=deployment)
    running(
        deployment,
        state="stopping",
        drains_until=timezone.now() + timedelta(seconds=20),
    )
    deployment_stop(deployment=deployment)
    assert not Deployment.objects.get().ends_now
    for path in (LIST, ONE):
        text = page(admin, path)
        assert "Stop now" in text and "cut off where they are" in text
    assert "nswers in progress may finish" in text and "data-relative" in text
    admin.post("/deployments/small/stop/", {"now": "yes"}, headers=HTMX)
    assert Deployment.objects.get().ends_now
    deployment_start(deployment=deployment)
    assert not Deployment.objects.get().ends_now, "the next stop waits again"


def test_one_that_has_failed_offers_a_start_and_no_stop_but_of_what_runs(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    deployment_start(deployment=deployment)
    running(deployment, state="failed", pid=None, error="The model file is gone.")
    for path in (LIST, ONE):
        text = page(admin, path)
        assert (
            "Start<" in text
            and "Stop<" not in text
            and "The model file is gone." in text
        )
    Instance.objects.create(
        host=agent, deployment=deployment, role="draft", state="ready", pid=77
    )
    for path in (LIST, ONE):
        assert "Stop<" in page(admin, path)


def test_one_that_waits_says_for_what_on_every_page(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    deployment_start(deployment=deployment)
    why = "It waits for RPC0 (in use by other)."
    running(deployment, state="starting", pid=None, error_code="waiting", error=why)
    for path in (LIST, ONE, "/deployments/quick/"):
        assert why in page(admin, path), path


def test_an_unloaded_one_says_why_and_is_loaded_by_a_click(
    admin: Client, unloaded: Deployment
) -> None:
    for path in (LIST, ONE):
        text = page(admin, path)
        assert (
            'data-state="unloaded"' in text
            and "after 10 min 0 s without a request" in text
        )
        assert "Load<" in text and "Stop<" in text
    generation = unloaded.generation
    admin.post("/deployments/small/start/", headers=HTMX)
    row = Deployment.objects.get()
    assert (row.is_unloaded, row.unloaded_why, row.generation) == (
        False,
        "",
        generation,
    )
    assert row.ought_to_run


def test_an_unloaded_one_has_a_word_of_its_own_for_programs(
    unloaded: Deployment,
) -> None:
    (shown,) = status_document()["deployments"]
    assert (shown["state"], shown["desired"]) == ("unloaded", "running")
    assert (
        serving(unloaded).shown_state == "unloaded"
        and serving(unloaded).state == "stopped"
    )


def test_a_request_wakes_it_once_and_nothing_else(
    unloaded: Deployment, make_deployment: Make
) -> None:
    other = make_deployment("other")
    for deployment in (unloaded, other, unloaded):
        deployment_wake(deployment.pk)
    rows = {row.name: row for row in Deployment.objects.all()}
    assert rows["small"].ought_to_run and not rows["other"].ought_to_run
    deployment_wake(4711)


def test_a_stop_of_an_unloaded_one_keeps_it_from_being_woken(
    unloaded: Deployment,
) -> None:
    deployment_stop(deployment=unloaded)
    deployment_wake(unloaded.pk)
    row = Deployment.objects.get()
    assert (row.desired, row.is_unloaded, row.ought_to_run) == ("stopped", False, False)


def test_an_unloaded_one_can_be_chatted_with(
    admin: Client, unloaded: Deployment
) -> None:
    made = admin.post("/chat/new/", {"deployment": "small"})
    text = page(admin, made["Location"])
    assert "Ask small something" in text and "not ready" not in text


def test_the_second_of_a_group_is_refused_where_it_is_asked_for(
    admin: Client, agent: Host, make_deployment: Make
) -> None:
    one, two = (
        make_deployment(name, settings={"exclusive_group": "card"})
        for name in ("one", "two")
    )
    deployment_start(deployment=one)
    running(one)
    answer = admin.post("/deployments/two/start/", headers=HTMX)
    assert answer["HX-Retarget"] == "#toasts" and "one runs" in answer.content.decode()
    assert Deployment.objects.get(name="two").desired == "stopped"
    deployment_change(
        deployment=two, settings={"exclusive_group": "card", "when_taken": "swap"}
    )
    deployment_start(deployment=two)
    assert Deployment.objects.get(name="two").desired == "running", (
        "it may unload the other"
    )


@pytest.mark.parametrize("state", ["crashed", "stopped"])
def test_one_that_crashed_keeps_its_place_and_one_that_is_stopped_does_not(
    agent: Host, make_deployment: Make, state: str
) -> None:
    one, two = (
        make_deployment(name, settings={"exclusive_group": "card"})
        for name in ("one", "two")
    )
    Instance.objects.create(host=one.host, deployment=one, role="model", state=state)
    if state == "crashed":
        with pytest.raises(OmniError, match="one runs"):
            deployment_start(deployment=two)
    else:
        assert deployment_start(deployment=two)


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        ("exclusive_group", "Big-Card", "big-card"),
        ("exclusive_group", "none", "none"),
        ("drain_s", "0", 0),
        ("idle_unload_s", 600, 600),
        ("when_taken", "SWAP", "swap"),
        ("exclusive_group", "two words", None),
        ("exclusive_group", "", None),
        ("exclusive_group", "x" * 41, None),
        ("drain_s", -1, None),
        ("drain_s", 3601, None),
        ("when_taken", "kill", None),
    ],
)
def test_what_the_settings_take(
    key: str, given: Any, kept: Any, deployment: Deployment
) -> None:
    if kept is None:
        with pytest.raises(OmniError, match=key):
            deployment_change(deployment=deployment, settings={key: given})
    else:
        assert deployment_change(
            deployment=deployment, settings={key: given}
        ).settings == {key: kept}


def test_a_group_is_typed_in_the_form(admin: Client, deployment: Deployment) -> None:
    text = page(admin, "/deployments/small/change/")
    assert (
        'name="setting_exclusive_group"' in text
        and '<select name="setting_exclusive_group"' not in text
    )
    form = {
        "strategy": "independent",
        "model": deployment.bindings.get().model.name,
        "devices": ["CPU"],
    }
    form |= {
        "engine": str(deployment.engine_id),
        "setting_exclusive_group": "card",
        "setting_when_taken": "swap",
    }
    assert admin.post("/deployments/small/change/", form).status_code == 302
    assert Deployment.objects.get().settings == {
        "exclusive_group": "card",
        "when_taken": "swap",
    }


# --- no place -------------------------------------------------------------------------------------
@pytest.fixture
def occupied(make_deployment: Make, agent: Host) -> Deployment:
    """A small card with one that fills most of it."""
    Device.objects.create(
        host=agent, name="CUDA0", kind="cuda", memory_bytes=1000 << 20
    )
    model = Model.objects.get()
    other = make_deployment(
        "other", members={"model": (model, ["CUDA0"])}, settings={"context": 1024}
    )
    deployment_start(deployment=other)
    running(other)
    return other


def test_the_plan_page_says_at_once_who_is_in_the_way_and_keeps_nothing(
    operator: Client, occupied: Deployment
) -> None:
    text = operator.post(
        "/plan/?device=CUDA0&context=1024", {"strategy": "independent"}
    ).content.decode()
    assert "has no place" in text and "where other holds" in text
    assert [row.name for row in Deployment.objects.all()] == ["other"]


def test_a_form_that_creates_and_starts_keeps_what_was_filled_in_and_says_why_it_does_not_run(
    operator: Client, occupied: Deployment
) -> None:
    defaults = {
        f"setting_{key}": setting.default for key, setting in SETTINGS.items()
    } | {"setting_context": 1024}
    chosen = {
        "strategy": "independent",
        "model": Model.objects.get().name,
        "devices": ["CUDA0"],
    }
    body = (
        defaults
        | chosen
        | {
            "engine": occupied.engine_id,
            "name": "second",
            "extra_args": "",
            "start": "yes",
        }
    )
    answer = operator.post("/deployments/new/", body, follow=True)
    text = answer.content.decode()
    assert "second is created and not started" in text and "where other holds" in text
    assert Deployment.objects.get(name="second").desired == "stopped"
