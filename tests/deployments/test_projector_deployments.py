"""A deployment whose model has a projector: bound, offered in the form, kept in the rig file."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from deployments.advice.purposes import Purpose, Question
from deployments.formats.projectors import Medium
from deployments.gateway.directory import read_table
from deployments.library import folders
from deployments.models import Binding, Deployment, Engine, Model
from deployments.planning.settings import SETTINGS
from deployments.rig.advised import applied
from deployments.rig.apply import apply
from deployments.rig.export import rig_text
from deployments.rig.reader import parse
from deployments.rig.words import RigError
from deployments.services import one_click
from deployments.services.advice_documents import deployments_of
from deployments.services.advising import advise
from deployments.services.deployments import deployment_change, deployment_create
from deployments.services.plans import plan_deployment, setup_of
from deployments.services.projectors import (
    has_projector,
    own_projector,
    projectors,
    projectors_for,
)
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.gguf_corpus import write_stub
from tests.helpers import squeezed
from tests.vision_models import Eye, write_projector


@pytest.fixture
def eyes(model: Model, tmp_path: Path) -> Model:
    """The model's own projector, by the names of both."""
    return folders.register(write_projector(tmp_path / "eyes.gguf"))


@pytest.fixture
def nameless(model: Model, tmp_path: Path) -> Model:
    """One of the same width that names no model."""
    path = write_projector(tmp_path / "mmproj-f16.gguf", names={})
    return folders.register(path)


def made(engine: Engine, model: Model, projector: Model, **changes: Any) -> Deployment:
    members = {"model": (model, ["CPU"]), "projector": (projector, [])}
    values: dict[str, Any] = {
        "name": "seer",
        "strategy": "independent",
        "engine": engine,
        "members": members,
        "settings": {"context": 2048},
    }
    return deployment_create(**values | changes)


# --- services -------------------------------------------------------------------------------------
def test_it_is_bound_without_a_device_and_planned_with_its_model(
    engine: Engine, model: Model, eyes: Model
) -> None:
    seer = made(engine, model, eyes)
    bound = {b.role: (b.model.name, b.devices) for b in seer.bindings.all()}
    assert bound == {"model": (model.name, ["CPU"]), "projector": ("eyes", [])}
    plan = plan_deployment(seer)
    (process,) = plan.instances
    assert eyes.path in process.argv and plan.devices[-1].projector_bytes > 0
    document = plan.devices[-1].document()
    assert document["projector_bytes"] == plan.devices[-1].projector_bytes
    assert setup_of(seer).members["projector"] == (eyes, [])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"strategy": "speculative"}, "wrong_roles"),
        ({"members": "text"}, "wrong_kind"),
        ({"members": "placed"}, "bad_device"),
        ({"members": "alone"}, "wrong_roles"),
    ],
)
def test_what_cannot_be_is_refused(
    engine: Engine, model: Model, eyes: Model, changes: dict[str, Any], code: str
) -> None:
    main = (model, ["CPU"])
    members = {
        "text": {"model": main, "projector": (model, [])},
        "placed": {"model": main, "projector": (eyes, ["CPU"])},
        "alone": {"projector": (eyes, [])},
    }
    if "members" in changes:
        changes = {"members": members[changes["members"]]}
    with pytest.raises(OmniError) as refused:
        made(engine, model, eyes, **changes)
    assert refused.value.code == code
    assert not Deployment.objects.exists()


def test_one_press_serves_texts_whatever_lies_beside_the_model(
    engine: Engine, model: Model, eyes: Model
) -> None:
    deployed = one_click.deploy(model=model)
    assert {b.role for b in deployed.bindings.all()} == {"model"}


# --- which belongs --------------------------------------------------------------------------------
def test_a_guess_is_offered_and_never_counted_as_the_models_own(
    model: Model, eyes: Model, nameless: Model
) -> None:
    offered = projectors_for(model)
    assert (offered.certain, offered.possible) == (("eyes",), ("mmproj-f16",))
    assert has_projector(model, projectors())
    eyes.delete()
    assert not has_projector(model, projectors())


# --- form -----------------------------------------------------------------------------------------
def typed(engine: Engine, model: Model, **changes: Any) -> dict[str, Any]:
    defaults = {f"setting_{key}": setting.default for key, setting in SETTINGS.items()}
    chosen = {
        "strategy": "independent",
        "model": model.name,
        "devices": ["CPU"],
        "engine": engine.pk,
        "name": "seer",
        "extra_args": "",
    }
    return defaults | chosen | changes


def choices(text: str) -> list[str]:
    found = re.search(r'<select name="projector".*?</select>', text, re.S)
    if not found:
        return []
    return [html.unescape(each) for each in re.findall(r">([^<]+)</option>", found[0])]


def test_the_form_offers_what_may_belong_and_marks_a_guess(
    operator: Client, engine: Engine, model: Model, eyes: Model, nameless: Model
) -> None:
    folders.register(write_projector(Path(eyes.path).parent / "w.gguf", Eye(width=960)))
    text = operator.get(f"/deployments/new/?model={model.name}").content.decode()
    assert choices(text) == [
        "None: texts only",
        "eyes",
        "mmproj-f16 (a guess: the width fits)",
    ]
    assert 'value="" selected' in text, "nothing is taken in silence"
    text = operator.get(
        f"/deployments/new/?model={model.name}&strategy=speculative"
    ).content.decode()
    assert choices(text) == []


def test_what_only_hears_is_marked_and_gives_no_vision(
    operator: Client, engine: Engine, model: Model, tmp_path: Path
) -> None:
    keys = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.basename": "smollm2",
        "clip.has_audio_encoder": True,
        "clip.audio.projection_dim": 576,
        "clip.audio.embedding_length": 64,
    }
    path = tmp_path / "ears.gguf"
    folders.register(write_stub(path, keys, [("a.conv1d.0.weight", (32, 32), 0)]))
    text = operator.get(f"/deployments/new/?model={model.name}").content.decode()
    assert choices(text) == ["None: texts only", "ears (audio only)"]
    assert not has_projector(model, projectors()) and own_projector(model) is None
    made(engine, model, Model.objects.get(name="ears"))
    assert read_table().deployments["seer"].takes == {Medium.AUDIO}


def test_without_a_projector_in_the_library_there_is_no_field(
    operator: Client, engine: Engine, model: Model
) -> None:
    text = operator.get(f"/deployments/new/?model={model.name}").content.decode()
    assert choices(text) == []


def test_the_form_binds_what_is_chosen_and_shows_it_again(
    operator: Client, engine: Engine, model: Model, eyes: Model
) -> None:
    operator.post("/deployments/new/", typed(engine, model, projector="eyes"))
    seer = Deployment.objects.get(name="seer")
    assert seer.bindings.get(role="projector").model == eyes
    text = operator.get("/deployments/seer/change/").content.decode()
    assert '<option value="eyes" selected>' in text
    page = operator.get("/deployments/seer/").content.decode()
    assert (
        "eyes" in page and "--mmproj" in page and "eyes</a>\n          on" not in page
    )
    listed = squeezed(operator.get("/deployments/").content.decode())
    assert "CPU;" not in listed
    operator.post("/deployments/seer/change/", typed(engine, model, projector=""))
    assert not Binding.objects.filter(role="projector").exists()
    answer = operator.post("/deployments/new/", typed(engine, model, projector="x"))
    assert "x is no projector for this model." in answer.content.decode()


# --- rig file -------------------------------------------------------------------------------------
RIG = """
models:
  - {{name: eyes, path: {eyes}}}
  - {{name: smol, path: {smol}}}
deployments:
  - name: seer
    models: {{projector: eyes, model: smol}}
    devices: {{model: CPU}}
    settings: {{context: 2048}}
"""


def test_the_rig_file_names_it_and_gets_it_back(
    engine: Engine, model: Model, eyes: Model
) -> None:
    apply(RIG.format(eyes=eyes.path, smol=model.path))
    seer = Deployment.objects.get(name="seer")
    assert {b.role for b in seer.bindings.all()} == {"model", "projector"}
    text = rig_text()
    (entry,) = parse(text).deployments
    assert entry.models == {"model": "smol", "projector": "eyes"}
    assert entry.devices == {"model": ("CPU",)}
    assert not apply(text).changes
    deployment_change(
        deployment=seer,
        strategy="independent",
        members={"model": (model, ["CPU"])},
        settings={},
    )
    assert "projector" not in str(parse(rig_text()).deployments[0].models)


def test_the_rig_file_refuses_a_device_for_it_and_a_strategy_without(
    engine: Engine, model: Model, eyes: Model
) -> None:
    text = RIG.format(eyes=eyes.path, smol=model.path)
    with pytest.raises(RigError, match="projector"):
        parse(text.replace("{model: CPU}", "{model: CPU, projector: CPU}"))
    with pytest.raises(RigError, match="projector"):
        parse(text.replace("    models:", "    strategy: speculative\n    models:"))


# --- advice ---------------------------------------------------------------------------------------
def test_advice_gives_a_projector_to_what_is_to_see_and_to_nothing_else(
    host: Host, engine: Engine, model: Model, eyes: Model, nameless: Model
) -> None:
    seeing, talking = (
        Purpose(name, (model.name,), context=2048) for name in ("vision", "chat")
    )
    for purpose, roles in ((seeing, {"model", "projector"}), (talking, {"model"})):
        (first, *_) = advise(Question((purpose,)), host).answers
        (entry,) = deployments_of(first)
        assert set(entry["models"]) == roles
        assert set(entry["devices"]) == {"model"}
    eyes.delete()
    (first, *_) = advise(Question((seeing,)), host).answers
    assert set(deployments_of(first)[0]["models"]) == {"model"}, "a guess is not taken"


def test_what_was_advised_is_a_rig_file_that_applies(
    host: Host, engine: Engine, model: Model, eyes: Model
) -> None:
    question = Question((Purpose("vision", (model.name,), context=2048),))
    applied(advise(question, host), 1)
    assert Binding.objects.get(role="projector").model == eyes
