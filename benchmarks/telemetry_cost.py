"""What telemetry costs while many look at it, beside what peers' own sampling costs.

    python benchmarks/telemetry_cost.py [--cards 8] [--hz 10] [--viewers 100] [--seconds 30]
        [--peers VENV/bin/python]

Starts a real panel with an empty OMNI_HOME on the stand-in NVML with so many cards, opens a
telemetry socket for each viewer, and reads the processes' own clocks from /proc before and after.
Every frame's age is taken when it arrives: its time of sampling is in it. With a Python that has
nvitop and gpustat (`python -m venv V && V/bin/pip install nvitop gpustat`) these take their own
snapshots of the same stand-in library afterwards, at the same rate. Ends with 1 when a limit is
passed: processor time of agent, sampler and web server, the age of frames, or a tick that is no
cheaper than a peer's. `--cards 0`: a machine without cards, with its two stand-in devices.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx  # noqa: E402
import websockets  # noqa: E402

from tests.fakes.nvml import MIB, FakeCard, build, rtx_5090, scenario  # noqa: E402
from tests.helpers import wait_until  # noqa: E402
from tests.panel import PASSWORD, ROOT, RunningPanel  # noqa: E402

LIMIT_PERCENT, LIMIT_AGE_MS = 25.0, 100.0
SETTLE_S, FIRST_FRAME_S, LOG_IN_TIMEOUT_S = 15.0, 30.0, 60.0
# The panel lets one user open 64 sockets.
VIEWERS_OF_A_USER = 50
# Word of the command line → what it is called here.
SAMPLER = "agent's sampler"
PROCESSES = {"serve": "web server (Daphne)", "agent": "agent", "sampler": SAMPLER}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# What a peer does in its own interpreter: snapshots at a rate, processor milliseconds of each.
PEER = """
import sys, time
name, hz, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
if name == "nvitop":
    from nvitop import Device, take_snapshots
    devices = Device.all()
    look = lambda: len(take_snapshots(devices).devices)
else:
    import gpustat
    look = lambda: len(gpustat.new_query())
found = look()
count, used, end = 0, time.process_time(), time.monotonic() + seconds
due = time.monotonic()
while time.monotonic() < end:
    look()
    count += 1
    due += 1 / hz
    time.sleep(max(0.0, due - time.monotonic()))
print(found, count, (time.process_time() - used) / count * 1000)
"""


class Panel(RunningPanel):
    """On the stand-in NVML."""

    def __init__(self, folder: Path, cards: int, hz: int) -> None:
        super().__init__(folder / "home", stand_ins=0 if cards else 2)
        self.hz = hz
        self.driver: dict[str, str] = {}
        if cards:
            build(folder)
            scenario(folder / "cards.txt", *(_card(place) for place in range(cards)))
            self.driver = {
                "LD_LIBRARY_PATH": str(folder),
                "FAKE_NVML_SCENARIO": str(folder / "cards.txt"),
            }

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **self.driver, "OMNI_TELEMETRY_HZ": str(self.hz)}


def _card(place: int) -> FakeCard:
    """At work, with a process on it."""
    return rtx_5090(
        uuid=f"GPU-{place}0000000-8888-7777-6666-555555555555",
        bus=f"00000000:{place + 1:02x}:00.0",
        lines=(f"process {os.getpid()} {1000 * MIB}",),
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pid_of(panel: RunningPanel, word: str) -> int:
    """Of the one process that has this very word in its command line."""
    found = [process.pid for process in panel.processes() if word in process.cmdline()]
    assert len(found) == 1, f"{len(found)} processes with {word!r} in the command line"
    return found[0]


def log_in(url: str, user: str) -> str:
    """The cookie of a session."""
    with httpx.Client(
        base_url=url, follow_redirects=True, timeout=LOG_IN_TIMEOUT_S
    ) as client:
        form = client.get("/login/")
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert found, "the log-in page has no token"
        fields = {
            "username": user,
            "password": PASSWORD,
            "csrfmiddlewaretoken": found[1],
        }
        headers = {"Referer": f"{url}/login/"}
        answer = client.post("/login/", data=fields, headers=headers)
        assert answer.url.path == "/", f"log-in failed: {answer.url}"
        return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


def make_user(panel: RunningPanel, name: str) -> None:
    argv = [sys.executable, str(ROOT / "manage.py"), "createsuperuser", "--noinput"]
    argv += ["--username", name, "--email", f"{name}@example.org"]
    env = {**panel.env, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)


@dataclass
class Viewer:
    """One telemetry socket."""

    url: str
    cookie: str
    frames: int = 0
    devices: int = 0
    bytes: int = 0
    ages_ms: list[float] = field(default_factory=list)

    def forget(self) -> None:
        self.frames = self.bytes = 0
        self.ages_ms = []

    async def look(self) -> None:
        address = self.url.replace("http", "ws", 1) + "/ws/telemetry/"
        headers = {"Cookie": self.cookie, "Origin": self.url}
        async with httpx.AsyncClient(
            base_url=self.url, headers={"Cookie": self.cookie}, timeout=LOG_IN_TIMEOUT_S
        ) as client:
            token = (await client.get("/socket-token/")).json()["token"]
        async with websockets.connect(
            address,
            additional_headers=headers,
            max_size=None,
            open_timeout=LOG_IN_TIMEOUT_S,
        ) as socket:
            await socket.send(json.dumps({"type": "hello", "token": token}))
            async for text in socket:
                self._take(str(text))

    def _take(self, text: str) -> None:
        """The body is not read as a whole: this program's own work must not hold frames up."""
        now_ms = time.time() * 1000
        self.bytes += len(text)
        if text.startswith('{"type":"frame","at":'):
            self.frames += 1
            self.ages_ms.append(now_ms - int(text[21 : text.index(",", 21)]))
            self.devices = self.devices or text.count('"is_stand_in"')


async def measure(
    panel: RunningPanel, viewers: list[Viewer], seconds: float
) -> dict[str, float]:
    """Percent of one core per process over the time, all viewers connected."""
    looking: list[asyncio.Task[None]] = []
    try:
        for viewer in viewers:
            looking.append(asyncio.create_task(viewer.look()))
            # One after another, as people come.
            await asyncio.sleep(0.02)
        await everybody_sees(viewers, looking)
        # What happens once (discovery, the first look at the engine, log-ins) is over before the
        # clock starts.
        await asyncio.sleep(SETTLE_S)
        for viewer in viewers:
            viewer.forget()
        pids = {name: pid_of(panel, word) for word, name in PROCESSES.items()}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - began
        return {
            name: (cpu_seconds(pid) - before[name]) / elapsed * 100
            for name, pid in pids.items()
        }
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


async def everybody_sees(
    viewers: list[Viewer], looking: list[asyncio.Task[None]]
) -> None:
    deadline = time.monotonic() + FIRST_FRAME_S
    while not all(viewer.frames for viewer in viewers):
        for task in looking:
            if task.done():
                raise SystemExit(f"a viewer was cut off: {task.exception()!r}")
        if time.monotonic() > deadline:
            raise SystemExit(
                f"not every viewer had a frame within {FIRST_FRAME_S:.0f} s"
            )
        await asyncio.sleep(0.1)


def peer_tick_ms(panel: Panel, python: str, name: str, seconds: float) -> float:
    """Processor time of one snapshot that a peer takes."""
    argv = [python, "-c", PEER, name, str(panel.hz), str(seconds)]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **panel.driver}
    said = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    found, count, tick_ms = said.stdout.split()
    print(f"  {name:22} {float(tick_ms):6.2f} ms a tick ({found} cards, {count} ticks)")
    return float(tick_ms)


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(percent / 100 * len(ordered)) - 1)]


def report(
    used: dict[str, float], viewers: list[Viewer], seconds: float, hz: int
) -> list[str]:
    """Prints what was measured; returns which limits are passed."""
    frames = [viewer.frames for viewer in viewers]
    print(
        f"{len(viewers)} viewers, {viewers[0].devices} devices, {hz} Hz, {seconds:.0f} s,"
        f" load average {os.getloadavg()[0]:.2f}"
    )
    rates = [count / seconds for count in frames]
    print(
        f"frames per viewer and second: lowest {min(rates):.2f}, highest {max(rates):.2f}"
    )
    sent = sum(viewer.bytes for viewer in viewers)
    print(f"bytes per frame: {sent / max(1, sum(frames)):.0f}")
    for name, percent in used.items():
        print(f"  {name:22} {percent:5.1f} % of one core")
    total = sum(used.values())
    print(f"  {'together':22} {total:5.1f} % of one core (limit {LIMIT_PERCENT:.0f} %)")
    ages_ms = [age for viewer in viewers for age in viewer.ages_ms]
    p50, p99 = percentile(ages_ms, 50), percentile(ages_ms, 99)
    print(
        f"sample to frame: p50 {p50:.1f} ms, p99 {p99:.1f} ms (limit {LIMIT_AGE_MS:.0f} ms)"
    )
    passed = []
    if total > LIMIT_PERCENT:
        passed.append("processor time")
    if p99 > LIMIT_AGE_MS:
        passed.append("age of frames")
    return passed


def with_peers(
    panel: Panel, python: str, sampler_percent: float, seconds: float
) -> list[str]:
    """Names of the peers that are no dearer a tick than the sampler."""
    own_ms = sampler_percent / 100 / panel.hz * 1000
    print(f"  {'Omni':22} {own_ms:6.2f} ms a tick (with publishing and roll-ups)")
    return [
        name
        for name in ("nvitop", "gpustat")
        if peer_tick_ms(panel, python, name, min(seconds, 10.0)) <= own_ms
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", type=int, default=8)
    parser.add_argument("--hz", type=int, default=10)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--peers", help="a Python that has nvitop and gpustat")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="omni-telemetry-") as folder:
        panel = Panel(Path(folder), arguments.cards, arguments.hz)
        panel.start()
        try:
            wait_until(
                lambda: any("sampler" in p.cmdline() for p in panel.processes()),
                30,
                panel.said,
            )
            users = ["admin"]
            for number in range(1, math.ceil(arguments.viewers / VIEWERS_OF_A_USER)):
                users.append(f"viewer{number}")
                make_user(panel, users[-1])
            cookies = [log_in(panel.url, user) for user in users]
            viewers = [
                Viewer(panel.url, cookies[place // VIEWERS_OF_A_USER])
                for place in range(arguments.viewers)
            ]
            used = asyncio.run(measure(panel, viewers, arguments.seconds))
        finally:
            panel.stop()
        passed = report(used, viewers, arguments.seconds, arguments.hz)
        if arguments.peers:
            passed += with_peers(
                panel, arguments.peers, used[SAMPLER], arguments.seconds
            )
    if passed:
        print(f"over the limit: {', '.join(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
