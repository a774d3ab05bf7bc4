"""The creation form: good defaults, errors beside their fields, nothing typed is lost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from deployments.forms import DeploymentForm
from deployments.models import Deployment, Engine, Model
from deployments.planning.settings import SETTINGS
from gpus.models import Device, Host


@pytest.fixture
def typed(engine: Engine, model: Model) -> dict[str, Any]:
    """What the browser sends when only the defaults are there."""
    defaults = {f"setting_{key}": setting.default for key, setting in SETTINGS.items()}
    return defaults | {"model": model.name, "name": "", "devices": ["RPC0"], "engine": engine.pk, "extra_args": ""}


def errors(text: str) -> list[str]:
    return re.findall(r'class="field-error"[^>]*>([^<]+)<', text)


def test_the_form_opens_with_the_wanted_model_and_the_best_device(
    operator: Client, engine: Engine, model: Model
) -> None:
    text = operator.get(f"/deployments/new/?model={model.name}").content.decode()
    assert f'<option value="{model.name}" selected>' in text
    assert re.search(r'value="RPC0"[^>]*checked', text)
    assert not re.search(r'value="CPU"[^>]*checked', text)
    assert "CPU-backed stand-in" in text
    assert "<details open>" not in text


def test_every_setting_has_a_labelled_field_with_its_default(operator: Client, engine: Engine, model: Model) -> None:
    text = operator.get("/deployments/new/").content.decode()
    for key, setting in SETTINGS.items():
        assert f'for="id_setting_{key}"' in text
        assert f'id="setting_{key}-help"' in text
        assert re.search(rf'name="setting_{key}"[^>]*value="{setting.default}"', text) or re.search(
            rf'<option value="{re.escape(str(setting.default))}" selected>', text
        )


def test_the_defaults_make_a_deployment_named_after_its_model(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    answer = operator.post("/deployments/new/", typed)
    made = Deployment.objects.get()
    assert answer["Location"] == f"/deployments/{model.name}/"
    assert (made.name, made.settings, made.extra_args, made.desired) == (model.name, {}, [], "stopped")
    assert made.created_by is not None and made.created_by.username == "oscar"


def test_create_and_start_starts_it(operator: Client, typed: dict[str, Any]) -> None:
    operator.post("/deployments/new/", typed | {"start": "yes"})
    assert Deployment.objects.get().desired == "running"


def test_only_what_differs_from_the_default_is_kept(operator: Client, typed: dict[str, Any]) -> None:
    changes = {"setting_context": "2048", "setting_kv_cache_k": "q8_0", "setting_parallel": "", "name": "mine"}
    operator.post("/deployments/new/", typed | changes | {"extra_args": "--top-k 5\n\n --swa-full \n"})
    made = Deployment.objects.get(name="mine")
    assert made.settings == {"context": 2048, "kv_cache_k": "q8_0"}
    assert made.extra_args == ["--top-k 5", "--swa-full"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "nope"}, "Select a valid choice"),
        ({"devices": []}, "Choose at least one"),
        ({"devices": ["CUDA9"]}, "Select a valid choice"),
        ({"name": "Not A Name"}, "cannot be a name"),
        ({"name": "new"}, "has another meaning"),
        ({"setting_context": "many"}, "context is &#x27;many&#x27;"),
        ({"setting_context": "1"}, "It takes auto, or 256"),
        ({"setting_parallel": "0"}, "It takes 1 to 64"),
        ({"setting_kv_cache_v": "q8_0", "setting_flash_attention": "off"}, "needs flash attention"),
        ({"setting_ubatch": "4096"}, "more than batch"),
        ({"extra_args": "--tools all"}, "it can run code"),
        ({"extra_args": "--host 0.0.0.0"}, "network sockets"),
    ],
)
def test_a_mistake_is_said_beside_its_field_and_nothing_typed_is_lost(
    operator: Client, typed: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    kept = {"setting_context": "3000", "extra_args": "--top-k 7"}
    text = operator.post("/deployments/new/", typed | kept | changes).content.decode()
    assert any(says in error for error in errors(text)), errors(text)
    assert not Deployment.objects.exists()
    for value in {**kept, **changes}.values():
        if isinstance(value, str) and value not in ("nope", ""):
            assert re.search(rf'(value="{re.escape(value)}"|>\s*{re.escape(value)}<)', text), value


def test_a_taken_name_is_a_clear_field_error(operator: Client, typed: dict[str, Any], deployment: Deployment) -> None:
    text = operator.post("/deployments/new/", typed | {"name": "small"}).content.decode()
    assert errors(text) == ["There is already a deployment or route named small. Choose another name."]


def test_a_mistake_below_the_fold_opens_it(operator: Client, typed: dict[str, Any]) -> None:
    assert "<details open>" in operator.post("/deployments/new/", typed | {"setting_batch": "0"}).content.decode()


def test_a_change_shows_what_is_set_and_is_a_new_generation(
    operator: Client, typed: dict[str, Any], deployment: Deployment
) -> None:
    Deployment.objects.update(settings={"context": 1024, "threads": 2}, extra_args=["--top-k 5"])
    text = operator.get("/deployments/small/change/").content.decode()
    assert 'value="1024"' in text and "--top-k 5" in text and "<details open>" in text
    assert 'name="name"' not in text, "a name does not change: programs ask for it"
    answer = operator.post("/deployments/small/change/", typed | {"setting_context": "512"})
    assert answer["Location"] == "/deployments/small/"
    changed = Deployment.objects.get()
    assert (changed.settings, changed.extra_args, changed.generation) == ({"context": 512}, [], 2)
    assert changed.bindings.get().devices == ["RPC0"]


def test_what_cannot_be_used_is_not_offered(host: Host, engine: Engine, model: Model) -> None:
    Model.objects.create(name="broken", path="/b.gguf", state="broken")
    Model.objects.create(name="eyes", path="/e.gguf", facts={"is_projector": True})
    Engine.objects.create(host=host, name="gone", flavour="llama.cpp", path="/gone", state="missing")
    Device.objects.filter(name="RPC1").update(is_present=False)
    form = DeploymentForm(host=host)
    assert [m.name for m in form.fields["model"].queryset] == [model.name]  # type: ignore[attr-defined]
    assert [e.name for e in form.fields["engine"].queryset] == ["llama-server"]  # type: ignore[attr-defined]
    assert [name for name, _ in form.fields["devices"].choices] == ["RPC0", "CPU"]  # type: ignore[attr-defined]
