"""What `plan` prints runs as it stands: a real socket or a free port is in it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from deployments.engines.llama_cpp import SOCKET_HOST
from deployments.engines.probe.portable_cpu import library_env
from deployments.instances.address import Process, port_address, socket_address
from deployments.models import Deployment, Engine, Model
from deployments.supervision.decision import Health
from deployments.supervision.observe import http_health
from deployments.supervision.runner import start_ticks
from tests.helpers import wait_until

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


def planned(name: str) -> list[str]:
    output = StringIO()
    call_command("plan", name, "--json", stdout=output)
    [deployment] = json.loads(output.getvalue())["deployments"]
    return list(deployment["instances"][0]["argv"])


@contextmanager
def run_by_hand(argv: list[str]) -> Iterator[Process]:
    env = {"PATH": os.environ["PATH"], **library_env(argv[0])}
    engine = subprocess.Popen(
        argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield Process(engine.pid, start_ticks(engine.pid))
    engine.kill()
    engine.wait(10)


def test_a_planned_command_listens_on_the_socket_that_it_names(
    deployment: Deployment,
) -> None:
    argv = planned(deployment.name)
    path = Path(argv[argv.index("--host") + 1])
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # An engine that another test killed left its socket behind; the agent takes such a one away
    # before it starts one.
    path.unlink(missing_ok=True)
    with run_by_hand(argv):
        wait_until(
            lambda: http_health(socket_address(str(path))) == Health.READY,
            45,
            "it is not ready",
        )
    path.unlink()


def test_a_planned_command_of_a_build_without_sockets_listens_on_a_free_port(
    deployment: Deployment, engine: Engine
) -> None:
    engine.flags = [flag for flag in engine.flags if flag != SOCKET_HOST]
    engine.save()
    argv = planned(deployment.name)
    port, key = (
        int(argv[argv.index("--port") + 1]),
        Path(argv[argv.index("--api-key-file") + 1]),
    )
    assert len(key.read_text()) > 30 and key.stat().st_mode & 0o077 == 0
    with run_by_hand(argv) as owner:
        wait_until(
            lambda: http_health(port_address(port, owner)) == Health.READY,
            45,
            "it is not ready",
        )


def test_a_placeholders_name_in_a_models_path_stays_as_it_is(
    deployment: Deployment, tmp_path: Path
) -> None:
    link = tmp_path / "{port}{socket}{key}.gguf"
    link.symlink_to(Model.objects.get().path)
    Model.objects.update(path=str(link))
    assert str(link) in planned(deployment.name)
    output = StringIO()
    call_command("plan", deployment.name, stdout=output)
    assert shlex.quote(str(link)) in output.getvalue()
