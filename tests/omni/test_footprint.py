"""Each process of a panel loads what it needs: what an idle panel costs stands and falls with it.

How much that is in all says `benchmarks/footprint.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.apps import apps
from django.db import OperationalError, connection, connections

from deployments.supervision.sampler import SAMPLER
from gpus.models import Gpu, HistoryBucket, HistoryMark
from omni import up
from omni.database import KEEP_CONNECTION_S, keep_connections, let_go
from omni.launcher import (
    LONGEST_REST_S,
    Child,
    Panel,
    Signals,
    environment_of_parts,
    run_to_its_end,
    valkey_server,
)
from tests.helpers import wait_until
from tests.panel import start_that_ends

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("unfold.admin", "omni.administration", "daphne", "twisted", "deployments.web")
# Packages try to load these and do without.
OPTIONAL = ("cryptography", "opentelemetry", "rich", "psycopg")
# The command of each process, and what it has no use for.
WITHOUT = {
    "sampler": (
        *PAGES,
        "django.contrib.admin",
        "celery",
        "deployments",
        "chat",
    ),
    "agent": (*PAGES, "prompt_toolkit", "click_repl", "huggingface_hub"),
    "stopall": (*PAGES, "prompt_toolkit", "huggingface_hub"),
    "prepare": (*PAGES, "prompt_toolkit", "huggingface_hub"),
    "serve": ("OpenSSL", "autobahn.wamp.auth", "prompt_toolkit"),
}
# What each of them has loaded when it works; what only its own modules load is left to them.
LOADS = {
    "sampler": "gpus.management.commands.sampler, omni.channel_layer",
    "agent": (
        "omni.management.commands.agent, celery.apps.worker, deployments.tasks,"
        " deployments.supervision.agent, deployments.supervision.host_agent,"
        " deployments.library.keeper, deployments.services.discovery"
    ),
    "stopall": "deployments.management.commands.stopall",
    "prepare": "omni.management.commands.prepare",
    "serve": "omni.management.commands.serve, omni.asgi, omni.server",
}


def settings_of(command: str) -> str:
    if command in SAMPLER:
        return SAMPLER[SAMPLER.index("--settings") + 1]
    return "omni.settings"


def loaded(code: str, tmp_path: Path) -> set[str]:
    """What a fresh Python has loaded after this."""
    database = ("OMNI_DATABASE_URL", "DJANGO_SETTINGS_MODULE")
    env = {name: value for name, value in os.environ.items() if name not in database}
    env["OMNI_HOME"] = str(tmp_path / "home")
    code += "\nimport sys; print('\\n'.join(filter(sys.modules.get, sys.modules)))"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_launcher_loads_neither_django_nor_a_client_of_anything(
    tmp_path: Path,
) -> None:
    modules = loaded("import omni.up", tmp_path)
    assert "omni.launcher" in modules
    heavy = {
        "django",
        "redis",
        "celery",
        "asyncio",
        "ssl",
        "http.client",
        "deployments",
    }
    assert not heavy & modules


@pytest.mark.parametrize("command", WITHOUT)
def test_a_process_does_not_load_what_it_has_no_use_for(
    command: str, tmp_path: Path
) -> None:
    setup = (
        f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = {settings_of(command)!r}\n"
        "import django; django.setup()\n"
        f"import {LOADS[command]}"
    )
    modules = loaded(setup, tmp_path)
    assert "django.db.models" in modules
    assert not {*WITHOUT[command], *OPTIONAL} & modules


def test_the_administration_is_there_where_pages_are(tmp_path: Path) -> None:
    setup = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'omni.settings'\n"
        "import django; django.setup()\n"
        "from django.contrib import admin\n"
        "assert not admin.site._registry, 'it is loaded before anybody wants it'\n"
        "import omni.urls\n"
        "assert len(admin.site._registry) > 10, admin.site._registry"
    )
    assert {"deployments.web.admin", "unfold.admin"} <= loaded(setup, tmp_path)


def test_the_checks_see_the_administration_too(tmp_path: Path) -> None:
    """Django's own check of it runs before or after the one that loads the pages."""
    setup = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'omni.settings'\n"
        "import django; django.setup()\n"
        "from omni.admin_app import check_administration\n"
        "from django.contrib import admin\n"
        "assert check_administration(None) == []\n"
        "from gpus.models import Host\n"
        "type(admin.site._registry[Host]).list_display = ('no_such_field',)\n"
        "assert [error.id for error in check_administration(None)] == ['admin.E108']"
    )
    loaded(setup, tmp_path)


def test_nothing_that_the_sampler_does_not_know_hangs_on_what_it_deletes() -> None:
    """It has the tables of one app: a row of another that points to a deleted one would stay."""
    pointing = [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        if model._meta.app_label != "gpus"
        for field in model._meta.get_fields()
        if getattr(field, "remote_field", None)
        and field.related_model in (Gpu, HistoryBucket, HistoryMark)
    ]
    assert pointing == []


# --- the launcher's waiting -----------------------------------------------------------------------
@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {
        number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGCHLD)
    }
    wakeup = signal.set_wakeup_fd(-1)
    yield Signals([signal.SIGUSR1])
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_wait_ends_when_a_child_ends(signals: Signals) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    began = time.monotonic()
    signals.wait(60)
    assert child.wait(10) == 0 and signals.stops == 0
    assert time.monotonic() - began < 50


def test_a_signal_from_before_the_wait_is_not_missed(signals: Signals) -> None:
    signal.raise_signal(signal.SIGUSR1)
    began = time.monotonic()
    signals.wait(60)
    assert signals.stops == 1 and time.monotonic() - began < 50


def test_a_wait_without_a_signal_ends_in_time_and_counts_nothing(
    signals: Signals,
) -> None:
    signals.wait(0.01)
    assert signals.stops == 0


def test_the_launcher_rests_until_a_child_is_to_be_started_again(
    tmp_path: Path,
) -> None:
    child = Child("x", [sys.executable, "-S", "-c", "pass"], tmp_path / "x.log", {})
    panel = Panel([child])
    panel.tend(print)
    assert child.process
    assert child.rest_s == LONGEST_REST_S
    child.process.wait(10)
    rest_s = panel.tend(print)
    assert child.process is None
    assert 0 < rest_s < 1
    wait_until(
        lambda: panel.tend(print) == LONGEST_REST_S, 5, "it is not started again"
    )


def test_only_the_preparation_has_the_first_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMNI_ADMIN_PASSWORD", "a-password-for-tests")
    ends_well = "import os, sys; sys.exit('OMNI_ADMIN_PASSWORD' not in os.environ)"
    assert run_to_its_end(["-S", "-c", ends_well], os.environ) == 0
    assert run_to_its_end(["-S", "-c", ends_well], environment_of_parts()) == 1


def test_the_end_by_a_signal_is_told_from_an_exit_code() -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    assert run_to_its_end(["-S", "-c", killed], os.environ) == -9


def test_a_wrong_environment_variable_ends_the_start_with_one_line(
    tmp_path: Path,
) -> None:
    home = str(tmp_path / "home")
    done = start_that_ends({"OMNI_HOME": home, "OMNI_TELEMETRY_HZ": "often"})
    assert done.returncode == 1
    assert done.stderr == "OMNI_TELEMETRY_HZ is 'often'; use a whole number.\n"
    assert done.stdout.endswith("Stopping …\nStopped.\n")


def test_the_broker_is_found_without_its_client() -> None:
    assert os.access(valkey_server(), os.X_OK)


# --- the launcher's own question ------------------------------------------------------------------
@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says this to one client; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n200", False),
        (b"what?", False),
        (b"", False),
    ],
)
def test_a_web_server_is_ready_when_it_answers_200(
    answer: bytes, expected: bool
) -> None:
    with answering(answer) as port:
        assert up.is_healthy("127.0.0.1", port) is expected


def test_a_port_at_which_nobody_listens_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not up.is_healthy("0.0.0.0", port)


# --- connections ----------------------------------------------------------------------------------
@pytest.fixture
def kept_connection(transactional_db: None) -> Iterator[None]:
    before = {alias: dict(options) for alias, options in connections.settings.items()}
    connection.close()
    keep_connections()
    yield
    connection.close()
    for alias, options in before.items():
        connections.settings[alias].update(options)


def opened() -> object:
    connection.ensure_connection()
    return connection.connection


def test_a_connection_is_used_again_by_the_next_unit_of_work(
    kept_connection: None,
) -> None:
    first = opened()
    let_go()
    assert connection.connection is first and opened() is first
    # A minute later.
    connection.close_at = time.monotonic() - 1
    let_go()
    assert connection.connection is None
    assert KEEP_CONNECTION_S <= 60


def test_a_connection_that_had_an_error_is_not_used_again(
    kept_connection: None,
) -> None:
    first = opened()
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")
    let_go()
    assert connection.connection is None
    assert opened() is not first
