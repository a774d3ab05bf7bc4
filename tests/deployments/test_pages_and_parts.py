"""Every address that htmx asks for: the part for htmx, the whole page for everybody else and for
going back."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from chat import services as chat_services
from deployments.models import BenchmarkRun, Deployment, Engine, Model
from gpus.models import Gpu, Host

HTMX = {"HX-Request": "true"}
WHOLE = [
    {},
    HTMX | {"HX-History-Restore-Request": "true"},
    HTMX | {"HX-Boosted": "true"},
]
# Address → the arguments it takes, by the names of `named`.
PAGES = {
    "chat:list": (),
    "deployments:activity": (),
    "deployments:alerts": (),
    "deployments:benchmark": ("benchmark",),
    "deployments:benchmarks": (),
    "deployments:connect": (),
    "deployments:deployment": ("deployment",),
    "deployments:deployments": (),
    "deployments:doctor": (),
    "deployments:download": (),
    "deployments:keys": (),
    "deployments:models": (),
    "deployments:plan": (),
    "deployments:server": ("server",),
    "gpus:card": ("card",),
    "gpus:history": (),
    "gpus:rig": (),
}
# A part that is never opened by itself.
PARTS = {
    "chat:lanes": ("conversation",),
    "deployments:across": (),
    "deployments:activity_running": (),
    "deployments:alert_line": (),
    "deployments:advice_running": (),
    "deployments:answer": (),
    "deployments:card_processes": ("card",),
    "deployments:download_list": (),
    "deployments:model_advice": ("model",),
    "deployments:plan_presets": (),
    "deployments:quick": (),
    "deployments:stand_ins": (),
}


@pytest.fixture
def named(
    deployment: Deployment, model: Model, host: Host, admin_user: object
) -> dict[str, str]:
    server = Engine.objects.create(
        host=host,
        name="other",
        flavour="external",
        path="http://127.0.0.1:9",
        state="ok",
    )
    conversation = chat_services.conversation_create(
        owner=admin_user, deployment=deployment
    )
    benchmark = BenchmarkRun.objects.create(
        host=host, scenario="chat", names=[deployment.name], most_rounds=1
    )
    Gpu.objects.create(host=host, uuid="GPU-1", name="RTX 5090")
    return {
        "card": "GPU-1",
        "benchmark": str(benchmark.pk),
        "deployment": deployment.name,
        "model": model.name,
        "server": server.name,
        "conversation": str(conversation.pk),
    }


def address(name: str, named: dict[str, str]) -> str:
    return reverse(name, args=[named[argument] for argument in (PAGES | PARTS)[name]])


def test_the_tables_have_every_address_that_a_template_asks_for() -> None:
    templates = (Path(settings.BASE_DIR) / "templates").rglob("*.html")
    asked = {
        name
        for path in templates
        for name in re.findall(r'hx-get="{% url "([a-z:_-]+)"', path.read_text())
    }
    assert asked == set(PAGES) | set(PARTS)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_for_a_browser_and_a_part_for_htmx(
    admin: Client, named: dict[str, str], name: str
) -> None:
    path = address(name, named)
    for headers in WHOLE:
        assert "<!doctype html>" in admin.get(path, headers=headers).content.decode(), (
            headers
        )
    assert "<html" not in admin.get(path, headers=HTMX).content.decode()


@pytest.mark.parametrize("name", [*PAGES, *PARTS])
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["browser", "htmx"])
def test_the_browser_keeps_pages_and_parts_apart(
    admin: Client, named: dict[str, str], name: str, headers: dict[str, str]
) -> None:
    told = admin.get(address(name, named), headers=headers)["Vary"]
    assert {"HX-Request", "HX-History-Restore-Request"} <= set(told.split(", "))


# --- a session that has ended ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "headers", [HTMX, {"Accept": "application/json"}], ids=["htmx", "script"]
)
@pytest.mark.parametrize("name", [*PAGES, *PARTS])
def test_a_script_is_told_that_the_session_has_ended_and_gets_no_log_in_page(
    anonymous: Client, named: dict[str, str], name: str, headers: dict[str, str]
) -> None:
    answer = anonymous.get(address(name, named), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "logged_out"


@pytest.mark.parametrize(
    ("referer", "comes_back_to"),
    [
        ("http://testserver/models/?q=small", "/models/?q=small"),
        ("http://elsewhere.example/models/", "/"),
        ("", "/"),
    ],
)
def test_after_a_form_the_log_in_leads_back_to_the_page_of_the_form(
    anonymous: Client, db: None, referer: str, comes_back_to: str
) -> None:
    answer = anonymous.post(
        "/models/folders/add/", {"path": "/x"}, headers={"Referer": referer}
    )
    assert answer["Location"] == f"/login/?next={quote(comes_back_to)}"
