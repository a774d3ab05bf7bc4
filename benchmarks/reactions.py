"""How quickly a real panel reacts: starts, parts that are killed, a key that is revoked.

    python benchmarks/reactions.py [--repeats 3]

Prints the minimum, median and maximum of each, in seconds. `make up`'s own start from an empty
OMNI_HOME is the first line; the tests assert that each of these happens, never how fast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx  # noqa: E402

from tests.helpers import wait_until  # noqa: E402
from tests.panel import RunningPanel  # noqa: E402

REVOKE = (
    "from deployments.models import ApiKey;"
    " ApiKey.objects.filter(name={!r}).update(revoked=True)"
)
DEPLOYMENT = """
deployments:
  - name: smol
    models: {{model: {model}}}
    devices: {{model: [CPU]}}
    settings: {{context: 2048}}
"""

Times = dict[str, list[float]]


def seconds_until(holds: Callable[[], object], message: str) -> float:
    began = time.monotonic()
    wait_until(holds, 120, message)
    return time.monotonic() - began


def first_and_second_start(folder: Path) -> tuple[float, float]:
    panel = RunningPanel(folder / "home")
    folder.mkdir()
    try:
        first = panel.start()
        panel.stop()
        return first, panel.start()
    finally:
        panel.stop()


def killed_part_is_back(panel: RunningPanel, marker: str) -> float:
    """From the kill until another process of that name runs and the panel answers."""
    killed = panel.child(marker)
    killed.kill()

    def is_back() -> bool:
        try:
            return panel.child(marker).pid != killed.pid and panel.healthy()
        except LookupError:
            return False

    return seconds_until(is_back, f"{marker} did not come back")


def revoked_key_is_refused(panel: RunningPanel, name: str) -> float:
    """From the end of the command that revokes it until the gateway answers 401."""
    key = panel.manage("apikey", name).stdout.split()[-1]
    headers = {"Authorization": f"Bearer {key}"}

    def status() -> int:
        url = f"{panel.url}/v1/models"
        return httpx.get(url, headers=headers, timeout=10, trust_env=False).status_code

    wait_until(lambda: status() == 200, 30, "the new key is not accepted")
    panel.manage("shell", "-v0", "-c", REVOKE.format(name))
    return seconds_until(lambda: status() == 401, "the revoked key is still accepted")


def start_and_stop(panel: RunningPanel) -> tuple[float, float]:
    """Of the demo model on the CPU, by command."""
    began = time.monotonic()
    panel.ready("smol")
    ready = time.monotonic()
    panel.manage("stop", "smol", "--wait", "60")
    return ready - began, time.monotonic() - ready


def measure(folder: Path, repeats: int) -> Times:
    times: Times = {}

    for n in range(repeats):
        first, second = first_and_second_start(folder / str(n))
        times.setdefault("first start, empty home", []).append(first)
        times.setdefault("second start", []).append(second)

    panel = RunningPanel(folder / "panel" / "home")
    panel.home.parent.mkdir()
    panel.start()
    try:
        file = folder / "rig.yaml"
        file.write_text(
            DEPLOYMENT.format(model=panel.document("scan")["models"][0]["name"])
        )
        panel.manage("apply", str(file))

        for n in range(repeats):
            ready, stopped = start_and_stop(panel)
            times.setdefault("deployment ready (start --wait)", []).append(ready)
            times.setdefault("deployment stopped (stop --wait)", []).append(stopped)
            times.setdefault("revoked key refused", []).append(
                revoked_key_is_refused(panel, f"key{n}")
            )
            for marker, words in (("agent", "agent"), ("serve", "web server")):
                times.setdefault(f"killed {words} back", []).append(
                    killed_part_is_back(panel, marker)
                )
    finally:
        panel.stop()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats

    with tempfile.TemporaryDirectory(prefix="omni-reactions-") as folder:
        times = measure(Path(folder), repeats)

    print(f"{'':34}{'min':>8}{'median':>8}{'max':>8}   s, {repeats} times")
    for what, seconds in times.items():
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        print(f"{what:34}{low:8.2f}{middle:8.2f}{high:8.2f}")


if __name__ == "__main__":
    main()
