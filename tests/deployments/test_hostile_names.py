"""Names and texts from files, engines, servers and drivers are text in every page, whatever they
say."""

from __future__ import annotations

import pytest
from django.contrib import admin as site
from django.contrib.auth.models import User
from django.test import Client

from chat import services as chat_services
from deployments.models import (
    BenchmarkRun,
    Deployment,
    Download,
    Engine,
    Instance,
    Model,
    Route,
    Transition,
)
from gpus.models import Device, Gpu, Host
from tests.deployments.benchmark_documents import document

site.autodiscover()
HOSTILE = "\"'><img src=x onerror=boom()><script>boom()</script>{{7*7}}"
RAW = ("<img src=x", "<script>boom", "onerror=boom()>")
PAGES = [
    "/",
    "/answer/",
    "/rig/",
    "/models/",
    "/models/small/",
    "/models/small/advice/",
    "/models/download/",
    "/servers/elsewhere/",
    "/plan/?model=small",
    "/deployments/",
    "/deployments/quick/",
    "/deployments/small/",
    "/deployments/small/change/",
    "/deployments/new/",
    "/devices/across/",
    "/devices/RPC0/server/",
    "/rig-file/",
    "/benchmarks/",
    "/benchmarks/1/",
    "/benchmarks/new/",
    "/benchmarks/new/?again=1",
    "/benchmarks/new/?deployment=<img src=x>&users=<img src=x>",
    "/chat/",
    "/chat/{chat}/",
    "/chat/{chat}/thread/",
    "/chat/{chat}/lanes/",
    "/cards/GPU-1/",
    "/metrics",
    "/models/?q=<img src=x>",
    "/chat/?q=<img src=x>",
    "/plan/?model=<img src=x>",
    "/cards/<img src=x>/",
    "/models/download/?q=<img src=x>",
]


@pytest.fixture
def hostile_rig(deployment: Deployment, admin_user: User) -> int:
    """Every text that somebody else writes says the same; returns a conversation of the
    administrator."""
    host = deployment.host
    words = {
        "title": HOSTILE,
        "arch": HOSTILE[:60],
        "quant": HOSTILE[:40],
        "error": HOSTILE,
        "path": f"/m/{HOSTILE}",
    }
    model = deployment.bindings.get().model
    facts = {
        key: HOSTILE if isinstance(value, str) else value
        for key, value in model.facts.items()
    }
    Model.objects.filter(pk=model.pk).update(**words, facts=facts, name="small")
    Engine.objects.update(build=HOSTILE, error=HOSTILE)
    Engine.objects.create(
        host=host,
        name="elsewhere",
        flavour="external",
        path="http://127.0.0.1:1",
        offers=[HOSTILE],
        error=HOSTILE,
    )
    Device.objects.filter(host=host).update(description=HOSTILE)
    Host.objects.update(
        cpu_name=HOSTILE, nvml_text=HOSTILE, nvml_state="x", problems={"scan": HOSTILE}
    )
    Gpu.objects.create(
        host=host, uuid="GPU-1", name=HOSTILE, error=HOSTILE, state="error"
    )
    told = {
        "error": HOSTILE,
        "log_line": HOSTILE,
        "warning": HOSTILE,
        "argv": [HOSTILE],
        "state": "failed",
    }
    instance = Instance.objects.create(
        host=host, deployment=deployment, role="model", **told
    )
    Instance.objects.create(
        host=host, device=host.devices.get(name="RPC0"), role="rpc", **told
    )
    Transition.objects.create(
        instance=instance, old="loading", new="failed", reason=HOSTILE
    )
    Deployment.objects.update(error=HOSTILE, error_code="x", unloaded_why=HOSTILE[:200])
    Route.objects.create(name="fast", deployment=deployment, description=HOSTILE)
    Download.objects.create(
        host=host,
        repo=HOSTILE,
        label=HOSTILE,
        folder="/m",
        files=[],
        total_bytes=1,
        error=HOSTILE,
        state="failed",
    )
    words = {"step": HOSTILE, "error": HOSTILE, "fix": HOSTILE}
    BenchmarkRun.objects.create(
        pk=1,
        host=host,
        scenario=HOSTILE[:120],
        names=["small", HOSTILE],
        prompts=[{"messages": [{"role": "user", "content": HOSTILE}], "max_tokens": 9}],
        most_rounds=1,
        gateway=HOSTILE,
        state="failed",
        document=document("small", HOSTILE),
        requested_by=admin_user,
        **words,
    )
    conversation = chat_services.conversation_create(
        owner=admin_user, deployment=deployment
    )
    chat_services.question_send(conversation=conversation, text=HOSTILE)
    conversation.messages.filter(role="assistant").update(
        content=HOSTILE, state="failed", error=HOSTILE
    )
    return conversation.pk


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_a_hostile_text_as_text(
    admin: Client, hostile_rig: int, path: str
) -> None:
    address = path.replace("{chat}", str(hostile_rig))
    for headers in ({}, {"HX-Request": "true"}):
        answer = admin.get(address, headers=headers)
        assert answer.status_code in (200, 302, 404), answer.status_code
        text = answer.content.decode()
        assert answer["Content-Type"].startswith("text/plain") or not [
            raw for raw in RAW if raw in text
        ]


@pytest.mark.parametrize(
    "kind", site.site._registry, ids=lambda kind: kind._meta.label_lower
)
def test_the_administration_shows_a_hostile_text_as_text(
    admin: Client, hostile_rig: int, kind: type
) -> None:
    path = f"/admin/{kind._meta.app_label}/{kind._meta.model_name}/"  # type: ignore[attr-defined]
    first = kind._default_manager.first()  # type: ignore[attr-defined]
    for address in [
        path,
        *([f"{path}{first.pk}/change/", f"{path}{first.pk}/delete/"] if first else []),
    ]:
        text = admin.get(address).content.decode()
        assert not [raw for raw in RAW if raw in text], address
