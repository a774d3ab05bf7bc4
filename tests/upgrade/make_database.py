"""Makes before_the_house.sql: a database as the version before "The house" left it (fe9e31d).

That version's own code fills it, so it is run with a checkout of that commit:

    git worktree add --detach /somewhere/before fe9e31d
    .venv/bin/python tests/upgrade/make_database.py /somewhere/before
    git worktree remove /somewhere/before

The test beside it needs no history: it migrates the text that is kept. What a machine alone knows
(where packages lie) is replaced by names before it is written.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from pathlib import Path

OUTPUT = Path(__file__).with_name("before_the_house.sql")
PROGRAM, MODEL, PASSWORD = (
    "/opt/llama.cpp/llama-server",
    "/models/SmolLM2.gguf",
    "correct horse battery",
)


def prepare(checkout: Path, home: str) -> None:
    """Django of that version, with an empty database of its own."""
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    for name in [name for name in os.environ if name.startswith("OMNI_")]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "omni.settings",
        "OMNI_HOME": home,
        "OMNI_HOST_NAME": "rig",
        "OMNI_STAND_IN_DEVICES": "2",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def fill() -> str:
    """The rows; returns the text of an API key that opens the gateway."""
    people()
    rig()
    deployments()
    conversations()
    what_was_measured()
    from deployments.gateway.keys import create_key

    return create_key("the owner's editor")


def people() -> None:
    from django.contrib.auth.models import Group, User

    User.objects.create_superuser("ada", password=PASSWORD)
    oscar = User.objects.create_user("oscar", password=PASSWORD)
    oscar.groups.add(Group.objects.get(name="operator"))


def rig() -> None:
    """Engines, devices and the library as a first look found them."""
    from deployments.discovery import (
        discover_engines,
        local_host,
        packaged_model_folders,
    )
    from deployments.library import scan
    from deployments.models import Download, Engine, LibraryFolder, Model
    from gpus.discovery import discover_devices
    from gpus.models import Device

    host = local_host()
    discover_devices(host)
    discover_engines(host)
    (folder,) = packaged_model_folders()
    LibraryFolder.objects.create(path=str(folder), is_packaged=True)
    scan()
    for name, endpoint in (("RPC0", "127.0.0.1:18001"), ("RPC1", "127.0.0.1:18002")):
        Device.objects.filter(host=host, name=name).update(endpoint=endpoint)
    Device.objects.update(description="a device", memory_bytes=16 << 30)
    host.cpu_name, host.cpu_count, host.ram_bytes = "a processor", 8, 16 << 30
    host.save()
    Engine.objects.update(name="llama-server", build="0.1.0")
    for flavour, path in (
        ("tabbyapi", "/opt/tabbyAPI/main.py"),
        ("vllm", "/opt/vllm/bin/vllm"),
        ("external", "http://127.0.0.1:9000"),
    ):
        Engine.objects.create(host=host, name=flavour, flavour=flavour, path=path)
    Model.objects.create(
        name="folder",
        path="/models/folder",
        format="folder",
        arch="qwen3",
        facts={"arch": "qwen3"},
    )
    Model.objects.create(
        name="embedder", path="/models/e.gguf", kind="embedding", facts={"arch": "bert"}
    )
    Download.objects.create(
        host=host,
        repo="someone/small",
        revision="abc",
        label="Q4_0",
        folder="/models/small",
        files=[{"path": "a.gguf", "size": 5}],
        state="done",
        total_bytes=5,
        done_bytes=5,
    )


def deployments() -> None:
    """Four that Omni runs, whose commands that version planned, and one of somebody else's."""
    from deployments.models import Binding, Deployment, Engine, Model, Route

    small = Model.objects.get(name__startswith="smollm2")
    folder = Model.objects.get(name="folder")
    mine = Engine.objects.get(name="llama-server")
    made = (
        ("smol", "independent", mine, {"model": (small, ["CPU"])}, {"context": 2048}),
        (
            "split",
            "layer_split",
            mine,
            {"model": (small, ["RPC0", "RPC1"])},
            {"parallel": 2},
        ),
        (
            "pair",
            "prefill_decode",
            mine,
            {"prefill": (small, ["CPU"]), "decode": (small, ["CPU"])},
            {"context": 2048, "parallel": 2, "handover_min": 64},
        ),
    )
    for name, strategy, engine, members, settings in made:
        deployment = Deployment.objects.create(
            host=engine.host,
            name=name,
            strategy=strategy,
            engine=engine,
            settings=settings,
            extra_args=["--top-k 20"] if name == "smol" else [],
            desired="running",
            generation=3,
        )
        for role, (model, devices) in members.items():
            Binding.objects.create(
                deployment=deployment, role=role, model=model, devices=devices
            )
        planned_instances(deployment)
    configured_by_files("tabby", Engine.objects.get(name="tabbyapi"), folder)
    elsewhere = Engine.objects.get(name="external")
    Deployment.objects.create(
        host=elsewhere.host,
        name="elsewhere",
        engine=elsewhere,
        remote_model="org/Big-1",
    )
    Route.objects.create(
        name="fast",
        deployment=Deployment.objects.get(name="smol"),
        description="the quick one",
    )


def planned_instances(deployment) -> None:  # type: ignore[no-untyped-def]
    """As its agent wrote them: with the commands of a plan of that version."""
    from deployments.connecting import socket_path
    from deployments.models import Instance, Transition
    from deployments.planning.plan import SOCKET, filled, filled_argv
    from deployments.plans import plan_deployment

    for number, planned in enumerate(plan_deployment(deployment).instances):
        socket = str(socket_path(deployment.name, planned.role, planned.ordinal))
        row = Instance.objects.create(
            host=deployment.host,
            deployment=deployment,
            role=planned.role,
            state="ready",
            generation=deployment.generation,
            socket=socket,
            pid=4_000_000 + deployment.pk * 10 + number,
            start_time=12345,
            argv=filled_argv(planned.argv, {SOCKET: socket}),
            env=filled(planned.env, {SOCKET: socket}),
            restarts=number,
            file_stamp="1000 1",
            checked_ticks=12345,
            judgement="alone",
        )
        for old, new in (
            ("stopped", "starting"),
            ("starting", "loading"),
            ("loading", "ready"),
        ):
            Transition.objects.create(
                instance=row, old=old, new=new, reason=f"it is {new}"
            )


def configured_by_files(name, engine, model) -> None:  # type: ignore[no-untyped-def]
    """Of a TabbyAPI: its command names a file and nothing else."""
    from deployments.models import Binding, Deployment, Instance

    deployment = Deployment.objects.create(host=engine.host, name=name, engine=engine)
    Binding.objects.create(
        deployment=deployment, role="model", model=model, devices=["CPU"]
    )
    Instance.objects.create(
        host=engine.host,
        deployment=deployment,
        role="model",
        argv=[
            "/opt/tabbyAPI/venv/bin/python",
            "/opt/tabbyAPI/main.py",
            "--config",
            "config.yml",
        ],
        state="failed",
        error_code="crashed",
        error="It ended.",
    )


def conversations() -> None:
    from django.contrib.auth.models import User

    from chat.models import Conversation, Lane, Message
    from deployments.models import Deployment

    both = [Deployment.objects.get(name=name) for name in ("smol", "split")]
    talk = Conversation.objects.create(
        owner=User.objects.get(username="oscar"),
        title="Ships",
        system_prompt="Be brief.",
        settings={"temperature": 0.2},
    )
    lanes = [
        Lane.objects.create(
            conversation=talk, position=place, deployment=one, deployment_name=one.name
        )
        for place, one in enumerate(both)
    ]
    question = Message.objects.create(
        conversation=talk, role="user", content="What is a keel?"
    )
    said = (
        (lanes[0], "A beam — the lowest of a ship. ⚓", True),
        (lanes[0], "Something of a ship.", False),
        (lanes[1], "Its backbone.", True),
    )
    for lane, content, is_active in said:
        Message.objects.create(
            conversation=talk,
            lane=lane,
            parent=question,
            role="assistant",
            content=content,
            thinking="keel, keel",
            is_active=is_active,
            finish_reason="stop",
            deployment_name=lane.deployment_name,
            ttft_ms=12.5,
            prompt_tokens=14,
            completion_tokens=9,
            decode_tps=41.5,
            timings={"predicted_n": 9},
        )


def what_was_measured() -> None:
    from deployments.models import Deployment, Measurement, Model, ReferenceAnswer

    small = Model.objects.get(name__startswith="smollm2")
    for number, deployment in enumerate(Deployment.objects.filter(remote_model="")):
        Measurement.objects.create(
            host=deployment.host,
            model=small,
            deployment_name=deployment.name,
            strategy=deployment.strategy,
            devices=["CPU"],
            prefill_tps=100.5 + number,
            decode_tps=20.25 + number,
            computed_decode_tps=22.0,
        )
    ReferenceAnswer.objects.create(
        model=small, tokens=[1, 2, 3], pieces=[" a", " b", " c"]
    )


def dump(database: Path, key: str) -> str:
    """As text, without what only this machine has."""
    from django.conf import settings

    from deployments.discovery import engine_paths, packaged_model_folders

    with sqlite3.connect(database) as connection:
        text = "\n".join(connection.iterdump())
    (folder,) = packaged_model_folders()
    (file,) = folder.glob("*.gguf")
    replaced = {
        str(file): MODEL,
        str(folder): str(Path(MODEL).parent),
        **{str(path): PROGRAM for path in engine_paths()},
        str(settings.OMNI_HOME.slots): "/home/of/omni/slots",
        str(database.parent): "/home/of/omni",
    }
    for here, anywhere in replaced.items():
        text = text.replace(here, anywhere)
    return f"-- made by make_database.py\n-- key: {key}\n{text}\n"


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as home:
        prepare(checkout, home)
        key = fill()
        OUTPUT.write_text(dump(Path(home) / "omni.sqlite3", key))
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
