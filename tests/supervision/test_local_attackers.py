"""What another user of the machine tries, as that user: reach the servers of stand-ins, take an
engine's place."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from django.conf import settings as django_settings

from deployments.instances.address import (
    EngineAddress,
    Process,
    port_address,
    socket_address,
)
from deployments.instances.connecting import address_of, own_key_path
from deployments.instances.engine_client import ask, ask_within, engine_request
from deployments.models import Deployment, Engine, Instance, Model
from deployments.services.deployments import (
    deployment_create,
    deployment_start,
    deployment_stop,
)
from deployments.supervision import namespaces, process
from deployments.supervision.decision import Health
from deployments.supervision.observe import http_health
from deployments.supervision.runner import start_ticks
from gpus.models import Device, Host
from omni.listeners import own_listener
from tests.helpers import free_port, wait_until
from tests.supervision.conftest import FAKE, Ticker, fake_plan

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]
NOBODY = 65534
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act as another user"
)
apart = pytest.mark.skipif(
    not namespaces.are_available(), reason="this machine allows no network namespaces"
)
SECRET = "the-key-of-the-engine"
# Stands in for any program of another user: it takes the port and writes down all that it is sent.
SQUATS = """import socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
print("listens", flush=True)
while True:
    client, _ = server.accept()
    client.settimeout(2)
    try:
        print("got", client.recv(65536), flush=True)
        client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
    except OSError:
        pass
    client.close()
"""


def as_nobody(code: str, *arguments: str) -> str:
    """What a program of another user prints, its errors included."""
    done = subprocess.run(
        ["/usr/bin/env", "-i", PYTHON, "-I", "-S", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
    )
    return done.stdout + done.stderr


def _python_for_all() -> str:
    """One that every user may run; that of the tests may lie in a private folder."""
    candidates = (Path("/usr/bin/python3"), Path(sys.executable).resolve())
    return str(next(path for path in candidates if path.exists()))


PYTHON = _python_for_all()


@contextmanager
def squatter(port: int) -> Iterator[list[str]]:
    """Another user's program on the port; the list grows with what it is sent."""
    said: list[str] = []
    argv = ["/usr/bin/env", "-i", PYTHON, "-I", "-S", "-c", SQUATS, str(port)]
    thief = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
    )
    assert thief.stdout
    threading.Thread(
        target=lambda: said.extend(thief.stdout or ()), daemon=True
    ).start()
    wait_until(lambda: said, 10, "nobody listens")
    assert said.pop(0) == "listens\n", said
    yield said
    thief.kill()
    thief.wait(10)


# --- stand-ins ------------------------------------------------------------------------------------
@pytest.fixture
def stand_in(host: Host) -> Device:
    return Device.objects.create(
        host=host,
        name="RPC0",
        kind="rpc",
        is_stand_in=True,
        memory_bytes=8 << 30,
        endpoint=f"127.0.0.1:{free_port()}",
    )


@pytest.fixture
def on_stand_in(
    engine: Engine, model: Model, stand_in: Device, ticker: Ticker
) -> Deployment:
    """A real engine that computes on a real RPC server, both ready."""
    made = deployment_create(
        name="apart",
        strategy="independent",
        engine=engine,
        members={"model": (model, ["RPC0"])},
        settings={"context": 512, "threads": 1},
    )
    deployment_start(deployment=made)
    ticker.until(lambda: Deployment.objects.get(pk=made.pk).state == "ready", 90)
    return made


@apart
def test_a_stand_in_works_for_its_engine_and_nobody_else_reaches_it(
    on_stand_in: Deployment, ticker: Ticker
) -> None:
    server = Instance.objects.get(device__name="RPC0")
    assert server.pid and server.port
    assert own_listener(server.pid, None, server.port), (
        "it listens, in its own namespace"
    )
    with socket.socket() as attacker, pytest.raises(ConnectionRefusedError):
        attacker.connect(("127.0.0.1", server.port))
    row = Instance.objects.get(deployment=on_stand_in)
    assert row.judgement in ("alone", "equal") and not row.port
    here, there = (
        Path("/proc/self/ns/net").readlink(),
        Path(f"/proc/{server.pid}/ns/net").readlink(),
    )
    assert here != there == Path(f"/proc/{row.pid}/ns/net").readlink()


@apart
@as_root
def test_another_user_neither_connects_to_a_stand_in_nor_enters_its_namespace(
    on_stand_in: Deployment,
) -> None:
    server = Instance.objects.get(device__name="RPC0")
    connects = (
        "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5);"
        " print('inside')"
    )
    assert "ConnectionRefusedError" in as_nobody(connects, str(server.port))
    enters = "open(f'/proc/{__import__(\"sys\").argv[1]}/ns/net'); print('inside')"
    assert "PermissionError" in as_nobody(enters, str(server.pid))


@apart
def test_the_namespace_outlives_the_agent_and_its_servers_and_ends_with_the_last(
    on_stand_in: Deployment, ticker: Ticker
) -> None:
    run = django_settings.OMNI_HOME.run
    before = Instance.objects.get(device__name="RPC0")
    namespace = Path(f"/proc/{before.pid}/ns/net").readlink()
    ticker.new_agent()
    for _ in range(3):
        ticker.agent.tick()
    assert Instance.objects.get(device__name="RPC0").pid == before.pid
    # The server is killed: the new one finds the namespace by the engine, which is there still.
    record = process.read_record(run, before.pk)
    assert record
    process.kill_group(record)
    ticker.until(
        lambda: Instance.objects.get(device__name="RPC0").pid not in (None, before.pid),
        30,
    )
    ticker.until(lambda: Deployment.objects.get().state == "ready", 90)
    engine = Instance.objects.get(deployment=on_stand_in)
    server = Instance.objects.get(device__name="RPC0")
    assert (
        Path(f"/proc/{engine.pid}/ns/net").readlink()
        == Path(f"/proc/{server.pid}/ns/net").readlink()
    )
    assert namespace
    deployment_stop(deployment=on_stand_in)
    Device.objects.update(is_present=False)
    ticker.until(lambda: not Instance.objects.exclude(pid=None).exists(), 30)
    ticker.until(lambda: not list(process.records(run)), 10)


# --- sockets --------------------------------------------------------------------------------------
@as_root
def test_another_user_neither_reaches_nor_takes_an_engines_socket(
    deployment: Deployment, ticker: Ticker
) -> None:
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    row = Instance.objects.get()
    folder = Path(row.socket).parent
    assert (
        stat.S_IMODE(folder.stat().st_mode) == 0o700
        and folder.stat().st_uid == os.geteuid()
    )
    tries = {
        "connect": "s.connect(path)",
        "bind in its place": "import os; os.unlink(path); s.bind(path)",
        "bind beside it": "s.bind(path + '.mine')",
    }
    for what, line in tries.items():
        code = (
            f"import socket, sys; path = sys.argv[1]; s = socket.socket(socket.AF_UNIX); {line};"
            " print('inside')"
        )
        assert "PermissionError" in as_nobody(code, row.socket), what
    assert Instance.objects.get().state == "ready"


# --- ports ----------------------------------------------------------------------------------------
@pytest.fixture
def on_a_port(deployment: Deployment, ticker: Ticker) -> Instance:
    """An engine that knows no sockets, ready, with a key of its own."""
    ticker.new_agent(plan=fake_plan("serve"))
    deployment_start(deployment=deployment)
    ticker.until_state("ready")
    return Instance.objects.get()


async def prompt(address: EngineAddress) -> tuple[int, bytes]:
    return await ask(
        engine_request(address, "/completion", {"prompt": "the secret prompt"}, 5.0)
    )


def test_an_engine_on_a_port_is_reached_and_has_another_key_at_every_start(
    on_a_port: Instance, deployment: Deployment, ticker: Ticker
) -> None:
    address = address_of(on_a_port)
    assert address and http_health(address) == Health.READY
    first = own_key_path(on_a_port.pk).read_text()
    assert (
        len(first) > 30
        and stat.S_IMODE(own_key_path(on_a_port.pk).stat().st_mode) == 0o600
    )
    os.kill(on_a_port.pid or 0, signal.SIGKILL)
    ticker.until(
        lambda: (
            Instance.objects.get().restarts == 1
            and Instance.objects.get().state == "ready"
        ),
        20,
    )
    assert own_key_path(on_a_port.pk).read_text() != first
    deployment_stop(deployment=deployment)
    ticker.until_state("stopped")
    assert not own_key_path(on_a_port.pk).exists()


@as_root
def test_whoever_takes_the_port_of_a_dead_engine_is_told_nothing(
    on_a_port: Instance,
) -> None:
    """The agent has not looked yet: the row says ready, and clients, chat and health checks ask."""
    address = address_of(on_a_port)
    assert address
    os.kill(on_a_port.pid or 0, signal.SIGKILL)
    wait_until(
        lambda: own_listener(on_a_port.pid or 0, None, on_a_port.port or 0) is None,
        10,
        "it lives",
    )
    with squatter(on_a_port.port or 0) as got:
        assert http_health(address) == Health.REFUSED
        with pytest.raises(httpx.ConnectError, match="not the engine"):
            ask_within(5, engine_request(address, "/slots", None, 5))
        with pytest.raises(httpx.ConnectError, match="not the engine"):
            asyncio.run(prompt(address))
    assert got == []


@as_root
def test_whoever_is_on_the_port_before_the_engine_gets_neither_key_nor_prompt(
    deployment: Deployment, ticker: Ticker, settings: object
) -> None:
    """The engine is started on a port that another user takes in the same moment."""
    port = free_port()
    settings.OMNI_ENGINE_PORTS = (port, port)  # type: ignore[attr-defined]
    ticker.new_agent(plan=fake_plan("late"))
    deployment_start(deployment=deployment)
    ticker.until(lambda: Instance.objects.filter(pid__isnull=False).exists(), 20)
    with squatter(port) as got:
        for _ in range(40):
            ticker.agent.tick()
            assert Instance.objects.get().state != "ready"
    assert got == []


def test_a_listener_is_an_engines_only_if_a_process_of_its_tree_holds_it() -> None:
    port, me = free_port(), os.getpid()
    engine = subprocess.Popen([sys.executable, str(FAKE), "--port", str(port)])
    wait_until(lambda: own_listener(engine.pid, None, port), 20, "it does not listen")
    ticks = start_ticks(engine.pid)
    assert own_listener(me, None, port), "of a child as well"
    assert (
        own_listener(engine.pid, ticks, port)
        and own_listener(engine.pid, ticks + 1, port) is None
    )
    stranger = subprocess.Popen(["sleep", "60"])
    assert own_listener(stranger.pid, None, port) is None
    at_engine = port_address(port, Process(engine.pid, ticks))
    assert ask_within(5, engine_request(at_engine, "/health", None, 5))[0] in (200, 503)
    at_stranger = port_address(port, Process(stranger.pid, start_ticks(stranger.pid)))
    with pytest.raises(httpx.ConnectError, match="not the engine"):
        ask_within(5, engine_request(at_stranger, "/health", None, 5))
    for one in (engine, stranger):
        one.kill()
        one.wait(10)


def test_the_key_goes_to_the_engine_and_to_nobody_over_a_socket(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    heard: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.headers["authorization"])
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({}).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    me = Process(os.getpid(), start_ticks(os.getpid()))
    address = port_address(server.server_address[1], me, str(tmp_path / "key"))
    assert asyncio.run(prompt(address))[0] == 200
    assert ask_within(5, engine_request(address, "/x", {}, 5))[0] == 200
    assert heard == [f"Bearer {SECRET}"] * 2
    server.shutdown()
    server.server_close()
    with pytest.raises(httpx.ConnectError):
        asyncio.run(prompt(socket_address(str(tmp_path / "gone.sock"))))


# --- what a version from before started -----------------------------------------------------------
def test_an_engine_from_before_sockets_and_keys_is_started_again(
    on_a_port: Instance, ticker: Ticker
) -> None:
    run = django_settings.OMNI_HOME.run
    record = run / "instances" / f"{on_a_port.pk}.json"
    old = json.loads(record.read_text())
    # Halted, it does not mend its record.
    os.kill(old["runner_pid"], signal.SIGSTOP)
    for name in ("socket", "is_apart", "is_outdated"):
        old.pop(name)
    record.write_text(json.dumps(old))
    ticker.until(lambda: Instance.objects.get().state == "stopping", 10)
    os.kill(old["runner_pid"], signal.SIGCONT)
    ticker.until(lambda: Instance.objects.get().pid not in (None, old["pid"]), 20)
    ticker.until_state("ready")
    found = process.read_record(run, on_a_port.pk)
    assert found and not found.is_outdated
