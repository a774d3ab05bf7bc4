"""What is in the database of this process's OMNI_HOME, and how the pages show it: for a process of
its own, which prints it as JSON."""

from __future__ import annotations

import json
from typing import Any

PAGES = (
    "/",
    "/answer/",
    "/rig/",
    "/models/",
    "/plan/",
    "/deployments/",
    "/deployments/smol/",
    "/deployments/pair/",
    "/deployments/tabby/",
    "/deployments/elsewhere/",
    "/admin/deployments/instance/",
    "/admin/deployments/engine/",
)


def look(key: str) -> dict[str, Any]:
    from django.contrib.auth.models import User

    from chat.models import Conversation, Message
    from deployments.gateway.directory import read_table
    from deployments.gateway.keys import is_usable
    from deployments.models import (
        Binding,
        Deployment,
        Download,
        Engine,
        Instance,
        LibraryFolder,
        Measurement,
        Model,
        ReferenceAnswer,
        Route,
        Transition,
    )

    deployments = Deployment.objects.order_by("pk")
    return {
        "users": {
            user.username: [
                user.check_password("correct horse battery"),
                user.is_superuser,
            ]
            for user in User.objects.all()
        },
        "may_operate": User.objects.get(username="oscar").has_perm(
            "deployments.operate_deployment"
        ),
        "key_opens": is_usable(key),
        "engines": list(
            Engine.objects.order_by("pk").values_list("name", "flavour", "path")
        ),
        "folders": list(LibraryFolder.objects.values_list("path", "is_packaged")),
        "models": list(
            Model.objects.order_by("pk").values_list("path", "format", "kind")
        ),
        "downloads": list(Download.objects.values_list("repo", "state", "done_bytes")),
        "deployments": list(
            deployments.values_list(
                "name", "strategy", "desired", "generation", "engine__name"
            )
        ),
        "settings": dict(deployments.values_list("name", "settings")),
        "extra_args": dict(deployments.values_list("name", "extra_args")),
        "bindings": list(
            Binding.objects.order_by("pk").values_list(
                "deployment__name", "role", "model__path", "devices"
            )
        ),
        "instances": [
            [str(row), row.state, row.pid, row.socket, row.file_stamp, row.judgement]
            for row in Instance.objects.order_by("pk")
        ],
        "launch": [
            row.launch_facts.document() for row in Instance.objects.order_by("pk")
        ],
        "argv_lengths": [len(row.argv) for row in Instance.objects.order_by("pk")],
        "transitions": Transition.objects.count(),
        "routes": list(
            Route.objects.values_list("name", "deployment__name", "description")
        ),
        "measurements": list(
            Measurement.objects.order_by("pk").values_list(
                "deployment_name",
                "strategy",
                "prefill_tps",
                "decode_tps",
                "computed_decode_tps",
            )
        ),
        "references": list(ReferenceAnswer.objects.values_list("tokens", "pieces")),
        "conversations": [
            [talk.title, talk.owner.username, talk.system_prompt, talk.settings]
            + [lane.name for lane in talk.lanes.all()]
            for talk in Conversation.objects.all()
        ],
        "messages": list(
            Message.objects.order_by("pk").values_list(
                "role",
                "deployment_name",
                "content",
                "thinking",
                "is_active",
                "ttft_ms",
                "timings",
            )
        ),
        "serving": {
            name: [
                one.alias,
                one.passage,
                one.slots,
                one.kv_transfer and one.kv_transfer.folder,
            ]
            for name, one in read_table().deployments.items()
        },
        "pages": pages(),
    }


def pages() -> dict[str, int]:
    """Path → status of what an administrator gets, and the conversation's own for its owner."""
    from django.contrib.auth.models import User
    from django.test import Client

    from chat.models import Conversation

    found = {}
    backend = "django.contrib.auth.backends.ModelBackend"
    ada, oscar = (
        Client(headers={"host": "localhost"}),
        Client(headers={"host": "localhost"}),
    )
    ada.force_login(User.objects.get(username="ada"), backend=backend)
    oscar.force_login(User.objects.get(username="oscar"), backend=backend)
    for path in PAGES:
        found[path] = ada.get(path).status_code
    talk = Conversation.objects.get()
    shown = oscar.get(f"/chat/{talk.pk}/")
    found["/chat/"] = shown.status_code
    assert "A beam — the lowest of a ship. ⚓" in shown.content.decode()
    return found


def say(key: str) -> None:
    print(json.dumps(look(key)))
