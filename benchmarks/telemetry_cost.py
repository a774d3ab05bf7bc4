"""What the Rig page costs: processor time of the web server and the agent (with its sampler) while
viewers look.

    python benchmarks/telemetry_cost.py [--viewers 10] [--seconds 30]

Starts a real panel with an empty OMNI_HOME, logs every viewer in, opens a telemetry socket for
each, and reads the processes' own clocks from /proc before and after. Ends with 1 when the sum is
over the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx  # noqa: E402
import websockets  # noqa: E402

from tests.helpers import wait_until  # noqa: E402
from tests.panel import PASSWORD, RunningPanel  # noqa: E402

LIMIT_PERCENT = 15.0
SETTLE_S, FIRST_FRAME_S, LOG_IN_TIMEOUT_S = 15.0, 30.0, 60.0
# Word of the command line → what it is called here. The agent's figure includes its sampler's.
PROCESSES = {
    "serve": "web server (Daphne)",
    "agent": "agent",
    "sampler": "agent's sampler",
}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pid_of(panel: RunningPanel, word: str) -> int:
    """Of the one process that has this very word in its command line."""
    found = [process.pid for process in panel.processes() if word in process.cmdline()]
    assert len(found) == 1, f"{len(found)} processes with {word!r} in the command line"
    return found[0]


@dataclass
class Viewer:
    """One log-in and one telemetry socket."""

    url: str
    frames: int = 0
    devices: int = 0
    bytes: int = 0

    cookie: str = ""

    def log_in(self) -> None:
        with httpx.Client(
            base_url=self.url, follow_redirects=True, timeout=LOG_IN_TIMEOUT_S
        ) as client:
            form = client.get("/login/")
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)[
                1
            ]  # type: ignore[index]
            fields = {
                "username": "admin",
                "password": PASSWORD,
                "csrfmiddlewaretoken": token,
            }
            answer = client.post(
                "/login/", data=fields, headers={"Referer": f"{self.url}/login/"}
            )
            assert answer.url.path == "/", f"log-in failed: {answer.url}"
            self.cookie = "; ".join(
                f"{name}={value}" for name, value in client.cookies.items()
            )

    async def look(self) -> None:
        address = self.url.replace("http", "ws", 1) + "/ws/telemetry/"
        headers = {"Cookie": self.cookie, "Origin": self.url}
        async with httpx.AsyncClient(
            base_url=self.url, headers={"Cookie": self.cookie}
        ) as client:
            token = (await client.get("/socket-token/")).json()["token"]
        async with websockets.connect(
            address, additional_headers=headers, max_size=None
        ) as socket:
            await socket.send(json.dumps({"type": "hello", "token": token}))
            async for text in socket:
                self.frames += '"type":"frame"' in str(text[:40])
                self.bytes += len(text)
                self.devices = str(text).count('"is_stand_in"') or self.devices


async def measure(
    panel: RunningPanel, viewers: list[Viewer], seconds: float
) -> dict[str, float]:
    """Percent of one core per process over the time, all viewers connected."""
    looking = [asyncio.create_task(viewer.look()) for viewer in viewers]
    try:
        await everybody_sees(viewers, looking)
        # What happens once (discovery, the first look at the engine, log-ins) is over before the
        # clock starts.
        await asyncio.sleep(SETTLE_S)
        for viewer in viewers:
            viewer.frames = viewer.bytes = 0
        pids = {name: pid_of(panel, word) for word, name in PROCESSES.items()}
        before, began = (
            {name: cpu_seconds(pid) for name, pid in pids.items()},
            time.monotonic(),
        )
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


def report(used: dict[str, float], viewers: list[Viewer], seconds: float) -> float:
    frames = [viewer.frames for viewer in viewers]
    print(f"{len(viewers)} viewers, {viewers[0].devices} devices, {seconds:.0f} s")
    rates = [count / seconds for count in frames]
    print(
        f"frames per viewer and second: lowest {min(rates):.2f}, highest {max(rates):.2f}"
    )
    print(
        f"bytes per frame: {sum(viewer.bytes for viewer in viewers) / max(1, sum(frames)):.0f}"
    )
    for name, percent in used.items():
        print(f"  {name:22} {percent:5.1f} % of one core")
    total = sum(used.values())
    print(f"  {'together':22} {total:5.1f} % of one core (limit {LIMIT_PERCENT:.0f} %)")
    return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="omni-telemetry-") as folder:
        panel = RunningPanel(Path(folder) / "home")
        panel.start()
        try:
            wait_until(
                lambda: any("sampler" in p.cmdline() for p in panel.processes()),
                30,
                panel.said,
            )
            viewers = [Viewer(panel.url) for _ in range(arguments.viewers)]
            for viewer in viewers:
                viewer.log_in()
            used = asyncio.run(measure(panel, viewers, arguments.seconds))
        finally:
            panel.stop()
    return 0 if report(used, viewers, arguments.seconds) <= LIMIT_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
