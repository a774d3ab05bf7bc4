"""The writers of what is desired: who wins, what is refused, who hears of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connection

from deployments.models import Deployment, Engine, Instance, Model, Route
from deployments.planning.plan import SOCKET
from deployments.services.checks import free_name
from deployments.services.defaults import default_device, default_engine
from deployments.services.deployments import (
    deployment_change,
    deployment_delete,
    deployment_start,
    deployment_stop,
    model_delete,
    plan_deployment,
)
from deployments.services.discovery import local_host
from deployments.states import InstanceState
from gpus.models import Device, Host
from omni.errors import OmniError
from omni.events import STATE_GROUP

Make = Callable[..., Deployment]


def fresh(deployment: Deployment) -> Deployment:
    return Deployment.objects.get(pk=deployment.pk)


def failed_instance(deployment: Deployment) -> Instance:
    return Instance.objects.create(
        host=deployment.host, deployment=deployment, role="model", state=InstanceState.FAILED,
        generation=deployment.generation, error="It ended at once.",
    )  # fmt: skip


# --- creating -------------------------------------------------------------------------------------
def test_a_new_deployment_is_stopped_and_keeps_only_what_was_set(
    make_deployment: Make,
) -> None:
    made = make_deployment("a", settings={"context": "2048"}, extra_args=["--top-k 5"])
    assert (made.desired, made.state, made.generation) == ("stopped", "stopped", 1)
    assert (made.settings, made.extra_args) == ({"context": 2048}, ["--top-k 5"])
    assert [
        (b.role, b.model.name, b.devices) for b in made.bindings.select_related("model")
    ] == [("model", "smollm2-135m-instruct-q4_1", ["CPU"])]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "Upper"}, "bad_name"),
        ({"name": "with space"}, "bad_name"),
        ({"name": "../etc"}, "bad_name"),
        ({"name": ""}, "bad_name"),
        ({"name": "a" * 61}, "bad_name"),
        ({"name": "auto"}, "bad_name"),
        ({"name": "new"}, "bad_name"),
        ({"strategy": "magic"}, "unknown_strategy"),
        ({"settings": {"context": 1}}, "bad_setting"),
        ({"settings": {"colour": 1}}, "unknown_setting"),
        ({"extra_args": ["--tools all"]}, "refused_extra_arg"),
        ({"members": {}}, "wrong_roles"),
    ],
)
def test_a_wrong_deployment_is_refused_and_nothing_is_kept(
    make_deployment: Make, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(OmniError) as refused:
        make_deployment(**({"name": "a"} | changes))
    assert refused.value.code == code
    assert refused.value.fix
    assert not Deployment.objects.exists()


@pytest.mark.parametrize(
    ("devices", "code"),
    [([], "no_device"), (["CUDA7"], "unknown_device"), (["CPU", "CPU"], "bad_device")],
)
def test_devices_must_be_there(
    make_deployment: Make, model: Model, devices: list[str], code: str
) -> None:
    with pytest.raises(OmniError) as refused:
        make_deployment("a", members={"model": (model, devices)})
    assert refused.value.code == code


def test_a_name_is_used_once_among_deployments_and_routes(
    make_deployment: Make,
) -> None:
    first = make_deployment("a")
    Route.objects.create(name="r", deployment=first)
    for name in ("a", "r"):
        with pytest.raises(
            OmniError, match=f"already a deployment or route named {name}"
        ):
            make_deployment(name)


def test_a_free_name_is_made_from_the_wanted_one(make_deployment: Make) -> None:
    assert free_name("My Model.Q4_K") == "my-model-q4_k"
    make_deployment("small")
    make_deployment("small-2")
    assert free_name("small") == "small-3"
    assert free_name("auto") == "auto-2"
    assert free_name("///") == "deployment"


# --- start and stop -------------------------------------------------------------------------------
def test_a_start_is_a_new_generation_and_a_second_one_changes_nothing(
    deployment: Deployment,
) -> None:
    assert deployment_start(deployment=deployment) is True
    assert deployment_start(deployment=deployment) is False
    assert (fresh(deployment).desired, fresh(deployment).generation) == ("running", 2)


def test_a_start_after_giving_up_tries_again_once(deployment: Deployment) -> None:
    deployment_start(deployment=deployment)
    failed_instance(fresh(deployment))
    assert deployment_start(deployment=deployment) is True
    assert deployment_start(deployment=deployment) is False
    assert fresh(deployment).generation == 3


def test_a_start_forgets_why_it_could_not_be_planned(deployment: Deployment) -> None:
    Deployment.objects.update(
        desired="running",
        error_code="unknown_device",
        error="There is no device CUDA7.",
    )
    assert deployment_start(deployment=deployment) is True
    assert (fresh(deployment).error, fresh(deployment).error_code) == ("", "")


def test_the_last_word_counts(deployment: Deployment) -> None:
    for _ in range(5):
        deployment_start(deployment=deployment)
        deployment_stop(deployment=deployment)
    assert fresh(deployment).desired == "stopped"
    deployment_start(deployment=deployment)
    assert fresh(deployment).desired == "running"


@pytest.mark.django_db(transaction=True)
def test_ten_starts_at_once_are_one_start(deployment: Deployment) -> None:
    results: list[bool] = []

    def start() -> None:
        try:
            results.append(deployment_start(deployment=deployment))
        finally:
            connection.close()

    threads = [threading.Thread(target=start) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 9 + [True]
    assert fresh(deployment).generation == 2


def test_a_change_is_a_new_generation(deployment: Deployment, model: Model) -> None:
    deployment_change(
        deployment=deployment,
        settings={"context": 512},
        members={"model": (model, ["RPC0"])},
    )
    changed = fresh(deployment)
    assert (changed.settings, changed.generation, changed.desired) == (
        {"context": 512},
        2,
        "stopped",
    )
    assert changed.bindings.get().devices == ["RPC0"]


def test_a_refused_change_changes_nothing(deployment: Deployment, model: Model) -> None:
    with pytest.raises(OmniError):
        deployment_change(
            deployment=deployment,
            members={"model": (model, ["RPC0"])},
            settings={"x": 1},
        )
    assert fresh(deployment).bindings.get().devices == ["CPU"]
    assert fresh(deployment).generation == 1


# --- deleting -------------------------------------------------------------------------------------
def test_a_deleted_deployment_waits_for_its_processes_and_cannot_be_started(
    deployment: Deployment,
) -> None:
    deployment_start(deployment=deployment)
    deployment_delete(deployment=deployment)
    assert (fresh(deployment).desired, fresh(deployment).is_deleting) == (
        "stopped",
        True,
    )
    with pytest.raises(OmniError, match="is being deleted"):
        deployment_start(deployment=deployment)
    deployment_stop(deployment=deployment)


def test_a_deployment_that_a_route_leads_to_stays(deployment: Deployment) -> None:
    Route.objects.create(name="fast", deployment=deployment)
    with pytest.raises(OmniError, match="target of the routes fast"):
        deployment_delete(deployment=deployment)
    assert not fresh(deployment).is_deleting


def test_a_deployment_that_is_gone_is_said_so(deployment: Deployment) -> None:
    deployment.delete()
    deployment.pk = 99_999
    with pytest.raises(OmniError, match="is gone"):
        deployment_start(deployment=deployment)


def test_a_model_in_use_is_kept_and_the_deployments_are_named(
    deployment: Deployment, model: Model
) -> None:
    with pytest.raises(OmniError, match="is used by small"):
        model_delete(model=model)
    deployment.delete()
    model_delete(model=model)
    assert not Model.objects.exists()


# --- choosing -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([], "RPC0"),
        ([("CUDA1", "cuda", 1), ("CUDA0", "cuda", 0)], "CUDA0"),
        ([("Vulkan0", "vulkan", 0)], "Vulkan0"),
    ],
)
def test_the_default_device_is_the_best_one(
    host: Host, extra: list[tuple[str, str, int]], expected: str
) -> None:
    for name, kind, position in extra:
        Device.objects.create(host=host, name=name, kind=kind, position=position)
    assert default_device(host).name == expected


def test_of_devices_alike_the_default_is_one_that_nobody_uses(
    host: Host, deployment: Deployment, engine: Engine
) -> None:
    for number in range(2):
        Device.objects.create(
            host=host, name=f"CUDA{number}", kind="cuda", position=number
        )
    deployment.bindings.update(devices=["CUDA0"])
    assert default_device(host).name == "CUDA0", "stopped, it uses nothing"
    Deployment.objects.update(desired="running")
    assert default_device(host).name == "CUDA1"
    deployment.bindings.update(devices=["CUDA1", "CUDA0"])
    assert default_device(host).name == "CUDA0", "better a card in use than none"


def test_a_device_that_went_away_is_not_chosen(host: Host) -> None:
    host.devices.filter(kind="rpc").update(is_present=False)
    assert default_device(host).name == "CPU"


def test_without_an_engine_or_device_it_is_said_what_to_do(db: None) -> None:
    host = local_host()
    with pytest.raises(OmniError, match="OMNI_LLAMA_SERVER"):
        default_engine(host)
    with pytest.raises(OmniError, match="Start the agent"):
        default_device(host)


# --- planning -------------------------------------------------------------------------------------
def test_a_deployments_plan_knows_the_socket_the_name_and_the_devices_it_uses(
    make_deployment: Make, model: Model
) -> None:
    made = make_deployment("a", members={"model": (model, ["RPC1"])})
    (instance,) = plan_deployment(made).instances
    argv = instance.argv
    assert argv[argv.index("--host") + 1] is SOCKET
    assert argv[argv.index("--alias") + 1] == "a"
    assert argv[argv.index("--rpc") + 1] == "127.0.0.1:18991"
    assert instance.needs_devices == ("RPC1",)
    assert instance.file_bytes == model.size_bytes


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (
            lambda: Engine.objects.update(state="missing", error="There is no file."),
            "engine_unusable",
        ),
        (
            lambda: Model.objects.update(state="missing", error="There is no file."),
            "model_unusable",
        ),
        (lambda: Model.objects.update(facts={}), "model_unusable"),
        (lambda: Device.objects.filter(name="CPU").delete(), "unknown_device"),
        (lambda: Deployment.objects.update(settings={"context": 1}), "bad_setting"),
        (
            lambda: Deployment.objects.update(extra_args=["--tools all"]),
            "refused_extra_arg",
        ),
        (lambda: Engine.objects.update(flags=[]), "engine_not_probed"),
    ],
)
def test_what_cannot_be_planned_says_why(
    deployment: Deployment, spoil: Callable[[], Any], code: str
) -> None:
    spoil()
    with pytest.raises(OmniError) as refused:
        plan_deployment(fresh(deployment))
    assert refused.value.code == code


# --- telling --------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
async def test_pages_hear_of_a_write_once_it_holds(make_deployment: Make) -> None:
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(STATE_GROUP, channel)
    made = await sync_to_async(make_deployment)("a")
    await sync_to_async(deployment_start)(deployment=made)
    heard = [await layer.receive(channel) for _ in range(2)]
    assert heard == [
        {
            "type": "deployment.changed",
            "deployment": made.pk,
            "name": "a",
            "state": "stopped",
        },
        {
            "type": "deployment.changed",
            "deployment": made.pk,
            "name": "a",
            "state": "starting",
        },
    ]
