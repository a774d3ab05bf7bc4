"""A second machine on this one: an agent with a host row, a run folder and, if it can be had, a
network of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from django.conf import settings
from django.db import connection
from django.utils import timezone

from deployments.models import Instance
from deployments.supervision import process
from gpus.models import Device, Host
from tests import postgres
from tests.helpers import free_ports, wait_until
from tests.panel import ROOT

# Another one for each process that runs tests.
HERE, THERE = (f"10.213.{os.getpid() % 250}.{end}" for end in (1, 2))


@dataclass(frozen=True)
class Network:
    """`address` is the other machine's; `enter` are the words before a command that runs there."""

    address: str
    enter: tuple[str, ...] = ()


@contextmanager
def network_of_its_own() -> Iterator[Network]:
    """A network namespace behind a cable with a private address at each end; without the right to
    make one, another loopback address of this machine."""
    name = f"omni-{os.getpid()}"
    link, peer = f"{name}a"[-15:], f"{name}b"[-15:]
    steps = (
        f"netns add {name}",
        f"link add {link} type veth peer name {peer} netns {name}",
        f"addr add {HERE}/30 dev {link}",
        f"link set {link} up",
        f"-n {name} addr add {THERE}/30 dev {peer}",
        f"-n {name} link set {peer} up",
        f"-n {name} link set lo up",
    )
    made = all(_ip(step) for step in steps)
    try:
        yield (
            Network(THERE, ("ip", "netns", "exec", name))
            if made
            else Network("127.0.0.2")
        )
    finally:
        _ip(f"netns del {name}")


def _ip(words: str) -> bool:
    try:
        return (
            subprocess.run(
                ["ip", *words.split()], capture_output=True, timeout=10, check=False
            ).returncode
            == 0
        )
    except OSError:
        return False


@dataclass
class OtherHost:
    """The host `beta`; use as `start()` … `end()`."""

    home: Path
    network: Network
    ports: tuple[int, int] = field(default_factory=free_ports)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> Path:
        return self.home / "run"

    def start(self, *, devices: str = "CPU", address: str = "") -> None:
        name = str(connection.settings_dict["NAME"])
        shared = (
            postgres.url_of(name)
            if postgres.URL
            else f"sqlite:///{name}?transaction_mode=IMMEDIATE&timeout=20"
        )
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OMNI_")
        } | {
            "DJANGO_SETTINGS_MODULE": "omni.settings",
            "OMNI_HOME": str(self.home),
            "OMNI_HOST_NAME": "beta",
            "OMNI_DATABASE_URL": shared,
            "OMNI_BROKER_URL": settings.CHANNEL_REDIS_URL,
            "OMNI_STAND_IN_DEVICES": "0",
            "OMNI_ENGINE_PORTS": "{}-{}".format(*self.ports),
            "OMNI_RPC_ADDRESS": address or self.network.address,
            "OMNI_RPC_DEVICES": devices,
        }
        argv = [
            *self.network.enter,
            sys.executable,
            "-m",
            "tests.supervision.second_host",
        ]
        # How fast its memory is does not matter here, and takes long to measure.
        reading = {
            "ram_bandwidth_gbps": 20.0,
            "ram_busy_percent": 0.0,
            "ram_measured_at": timezone.now(),
        }
        Host.objects.get_or_create(name="beta", defaults=reading)
        with (self.home.parent / "beta.log").open("ab") as log:
            self.agent = subprocess.Popen(
                argv, env=env, cwd=ROOT, stdout=log, stderr=log
            )

    def said(self) -> str:
        return (self.home.parent / "beta.log").read_text()[-3000:]

    def server(self) -> Instance | None:
        return (
            Instance.objects.filter(host__name="beta", device__name="CPU")
            .select_related("device")
            .first()
        )

    def ready(self, timeout_s: float = 40) -> Device:
        """The device once it is served."""

        def served() -> Device | None:
            found = self.server()
            return found.device if found and found.state == "ready" else None

        return wait_until(served, timeout_s, self.said, interval_s=0.1)

    def servers(self) -> list[psutil.Process]:
        """The processes that its agent keeps."""
        found = []
        for record in process.records(self.run):
            if record.is_alive and record.pid:
                found.append(psutil.Process(record.pid))
        return found

    def stop_agent(self) -> None:
        if self.agent and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            self.agent.wait(20)

    def end(self) -> None:
        """As if the power went."""
        if self.agent and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait(10)
        for record in process.records(self.run):
            process.kill_group(record)
            process.wait_ended(record, 5)
