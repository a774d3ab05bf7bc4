"""The creation form: good defaults, errors beside their fields, nothing typed is lost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from deployments.models import Deployment, Engine, Measurement, Model
from deployments.planning.settings import SETTINGS
from deployments.services.effects import effects
from deployments.strategies import STRATEGIES
from deployments.web.forms import DeploymentForm
from gpus.models import Device, Host
from tests.helpers import squeezed


@pytest.fixture
def typed(engine: Engine, model: Model) -> dict[str, Any]:
    """What the browser sends when only the defaults are there."""
    defaults = {f"setting_{key}": setting.default for key, setting in SETTINGS.items()}
    chosen = {
        "strategy": "independent",
        "model": model.name,
        "devices": ["RPC0"],
        "engine": engine.pk,
    }
    return defaults | chosen | {"name": "", "extra_args": ""}


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


def test_every_setting_has_a_labelled_field_with_its_default(
    operator: Client, engine: Engine, model: Model
) -> None:
    text = operator.get("/deployments/new/").content.decode()
    for key, setting in SETTINGS.items():
        if not STRATEGIES["independent"].looks_at(setting):
            assert f"setting_{key}" not in text, "it means nothing to this strategy"
            continue
        assert f'for="id_setting_{key}"' in text
        assert f'id="setting_{key}-help"' in text
        assert re.search(
            rf'name="setting_{key}"[^>]*value="{setting.default}"', text
        ) or re.search(
            rf'<option value="{re.escape(str(setting.default))}" selected>', text
        )


def test_the_defaults_make_a_deployment_named_after_its_model(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    answer = operator.post("/deployments/new/", typed)
    made = Deployment.objects.get()
    assert answer["Location"] == f"/deployments/{model.name}/"
    assert (made.name, made.settings, made.extra_args, made.desired) == (
        model.name,
        {},
        [],
        "stopped",
    )
    assert made.created_by is not None and made.created_by.username == "oscar"


def test_create_and_start_starts_it(operator: Client, typed: dict[str, Any]) -> None:
    operator.post("/deployments/new/", typed | {"start": "yes"})
    assert Deployment.objects.get().desired == "running"


def test_only_what_differs_from_the_default_is_kept(
    operator: Client, typed: dict[str, Any]
) -> None:
    changes = {
        "setting_context": "2048",
        "setting_kv_cache_k": "q8_0",
        "setting_parallel": "",
        "name": "mine",
    }
    operator.post(
        "/deployments/new/",
        typed | changes | {"extra_args": "--top-k 5\n\n --swa-full \n"},
    )
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
        (
            {"setting_kv_cache_v": "q8_0", "setting_flash_attention": "off"},
            "needs flash attention",
        ),
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
            assert re.search(
                rf'(value="{re.escape(value)}"|>\s*{re.escape(value)}<)', text
            ), value


def test_a_taken_name_is_a_clear_field_error(
    operator: Client, typed: dict[str, Any], deployment: Deployment
) -> None:
    text = operator.post(
        "/deployments/new/", typed | {"name": "small"}
    ).content.decode()
    assert errors(text) == [
        "There is already a deployment or route named small. Choose another name."
    ]


def test_a_mistake_below_the_fold_opens_it(
    operator: Client, typed: dict[str, Any]
) -> None:
    assert (
        "<details open>"
        in operator.post(
            "/deployments/new/", typed | {"setting_batch": "0"}
        ).content.decode()
    )


def test_a_change_shows_what_is_set_and_is_a_new_generation(
    operator: Client, typed: dict[str, Any], deployment: Deployment
) -> None:
    Deployment.objects.update(
        settings={"context": 1024, "threads": 2}, extra_args=["--top-k 5"]
    )
    text = operator.get("/deployments/small/change/").content.decode()
    assert 'value="1024"' in text and "--top-k 5" in text and "<details open>" in text
    assert 'name="name"' not in text, "a name does not change: programs ask for it"
    answer = operator.post(
        "/deployments/small/change/", typed | {"setting_context": "512"}
    )
    assert answer["Location"] == "/deployments/small/"
    changed = Deployment.objects.get()
    assert (changed.settings, changed.extra_args, changed.generation) == (
        {"context": 512},
        [],
        2,
    )
    assert changed.bindings.get().devices == ["RPC0"]


# --- purposes -------------------------------------------------------------------------------------
def test_purposes_are_kept_and_come_again_in_the_form_and_on_the_page(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    purposes = {"purposes": ["coding", "chat"], "other_purposes": "my-own, chat  law"}
    operator.post("/deployments/new/", typed | purposes)
    made = Deployment.objects.get()
    assert made.purposes == ["coding", "chat", "my-own", "law"]

    form = operator.get(f"/deployments/{made.name}/change/").content.decode()
    ticked = re.findall(r'name="purposes" value="(\w+)"[^>]*checked', form)
    assert ticked == ["coding", "chat"] and 'value="my-own, law"' in form
    page = operator.get(f"/deployments/{made.name}/").content.decode()
    assert '<span class="chip">my-own</span>' in page

    operator.post(f"/deployments/{made.name}/change/", typed)
    assert Deployment.objects.get().purposes == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"other_purposes": "My Own!"}, "cannot be a purpose"),
        ({"other_purposes": "auto"}, "has another meaning"),
        ({"other_purposes": " ".join(f"p{n}" for n in range(13))}, "13 purposes"),
        ({"purposes": ["nonsense"]}, "not one of the available choices"),
    ],
)
def test_what_cannot_be_a_purpose_is_said_beside_its_field(
    operator: Client, typed: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    text = operator.post("/deployments/new/", typed | changes).content.decode()
    assert any(says in error for error in errors(text)), errors(text)
    assert not Deployment.objects.exists()


def test_a_purpose_that_the_model_suggests_is_offered_and_not_set(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    text = operator.get("/deployments/new/").content.decode()
    assert "suggest chat; nothing is" in squeezed(text)
    assert not re.search(r'name="purposes"[^>]*checked', text)
    operator.post("/deployments/new/", typed)
    assert Deployment.objects.get().purposes == []
    page = operator.get(f"/deployments/{model.name}/").content.decode()
    assert "its model suggests chat" in squeezed(page)


def test_ticked_purposes_survive_a_change_of_strategy(
    operator: Client, engine: Engine, model: Model
) -> None:
    query = "strategy=layer_split&purposes=coding&purposes=vision"
    text = operator.get(f"/deployments/new/?{query}").content.decode()
    ticked = re.findall(r'name="purposes" value="(\w+)"[^>]*checked', text)
    assert ticked == ["coding", "vision"]


def test_what_cannot_be_used_is_not_offered(
    host: Host, engine: Engine, model: Model
) -> None:
    Model.objects.create(name="broken", path="/b.gguf", state="broken")
    Model.objects.create(name="eyes", path="/e.gguf", kind="projector")
    Engine.objects.create(
        host=host, name="gone", flavour="llama.cpp", path="/gone", state="missing"
    )
    Device.objects.filter(name="RPC1").update(is_present=False)
    form = DeploymentForm(host=host)
    assert [m.name for m in form.fields["model"].queryset] == [model.name]  # type: ignore[attr-defined]
    assert [e.name for e in form.fields["engine"].queryset] == ["llama-server"]  # type: ignore[attr-defined]
    assert [name for name, _ in form.fields["devices"].choices] == ["RPC0", "CPU"]  # type: ignore[attr-defined]


# strategy → what is chosen beside the model, the bindings that come of it
CHOICES: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "independent": ({"devices": ["RPC0"]}, {"model": ["RPC0"]}),
    "layer_split": (
        {"devices": ["RPC0", "RPC1"], "setting_tensor_split": "3,1"},
        {"model": ["RPC0", "RPC1"]},
    ),
    "tensor_split": ({"devices": ["RPC0", "RPC1"]}, {"model": ["RPC0", "RPC1"]}),
    "graph_split": ({"devices": ["RPC0", "RPC1"]}, {"model": ["RPC0", "RPC1"]}),
    "expert_offload": (
        {"devices": ["RPC0", "CPU"], "setting_n_cpu_moe": "4"},
        {"model": ["RPC0", "CPU"]},
    ),
    "prefill_decode": (
        {"devices": ["RPC0"], "devices_decode": ["RPC1"], "setting_handover_min": "32"},
        {"prefill": ["RPC0"], "decode": ["RPC1"]},
    ),
    "speculative": (
        {
            "devices": ["RPC0"],
            "draft": "DRAFT",
            "devices_draft": ["CPU"],
            "setting_draft_max": "8",
        },
        {"target": ["RPC0"], "draft": ["CPU"]},
    ),
}


@pytest.mark.parametrize("strategy", CHOICES)
def test_every_strategy_can_be_created_and_changed_in_its_form(
    strategy: str, operator: Client, typed: dict[str, Any], model: Model
) -> None:
    small = Model.objects.create(
        name="small-one", path="/small.gguf", state="ok", facts={}
    )
    chosen, bound = CHOICES[strategy]
    sent = typed | {k: small.name if v == "DRAFT" else v for k, v in chosen.items()}
    operator.post("/deployments/new/", sent | {"strategy": strategy, "name": "made"})
    made = Deployment.objects.get(name="made")
    assert made.strategy == strategy
    assert {b.role: b.devices for b in made.bindings.all()} == bound
    assert {b.role: b.model for b in made.bindings.all()} == {
        r: small if r == "draft" else model for r in bound
    }
    given = {
        k.removeprefix("setting_"): v
        for k, v in chosen.items()
        if k.startswith("setting_")
    }
    assert {k: str(v) for k, v in made.settings.items()} == given
    text = operator.get("/deployments/made/change/").content.decode()
    assert f'<option value="{strategy}" selected>' in text
    for name, value in chosen.items():
        for each in value if isinstance(value, list) else ():
            assert re.search(rf'name="{name}" value="{each}"[^>]*checked', text), (
                name,
                each,
            )
    assert all(f'value="{value}"' in text for value in given.values())


def test_without_a_draft_model_drafts_come_from_the_text(
    operator: Client, typed: dict[str, Any]
) -> None:
    operator.post(
        "/deployments/new/",
        typed | {"strategy": "speculative", "name": "made", "draft": ""},
    )
    assert [b.role for b in Deployment.objects.get(name="made").bindings.all()] == [
        "target"
    ]


def test_a_draft_model_wants_a_device(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    sent = typed | {"strategy": "speculative", "draft": model.name}
    text = operator.post("/deployments/new/", sent).content.decode()
    assert errors(text) == ["Choose at least one; CPU is one too."]


def test_a_strategy_that_is_chosen_shows_its_own_fields_and_keeps_what_was_typed(
    operator: Client, typed: dict[str, Any], model: Model
) -> None:
    query = {
        "strategy": "prefill_decode",
        "model": model.name,
        "devices": ["RPC1"],
        "setting_context": "3000",
    }
    text = operator.get("/deployments/new/", query).content.decode()
    assert (
        'name="devices_decode"' in text
        and "setting_handover_min" in text
        and "setting_draft_max" not in text
    )
    assert re.search(r'name="devices" value="RPC1"[^>]*checked', text)
    assert not re.search(r'name="devices" value="RPC0"[^>]*checked', text)
    assert 'value="3000"' in text


def test_what_each_strategy_gave_here_stands_where_it_is_chosen(
    operator: Client, host: Host, engine: Engine, model: Model
) -> None:
    given = {"host": host, "model": model, "deployment_name": "x"}
    for rate in (20.0, 22.0, 30.0):
        Measurement.objects.create(
            **given, strategy="independent", devices=["RPC0"], decode_tps=rate
        )
    Measurement.objects.create(
        **given, strategy="speculative", devices=["RPC0", "CPU"], decode_tps=33.0
    )
    first, second = effects(host, model)
    assert (first.strategy, first.decode_tps, first.times) == ("speculative", 33.0, 1.5)
    assert (second.strategy, second.decode_tps, second.answers, second.times) == (
        "independent",
        22.0,
        3,
        None,
    )
    text = operator.get(f"/deployments/new/?model={model.name}").content.decode()
    assert "Measured here" in text and "33 tokens/s" in text and "1.5×" in text
