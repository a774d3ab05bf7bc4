"""A real GPU, from end to end and without network: `python -m tests.gpu.check [MODEL.gguf]`.

1. Every field that the panel measures beside `nvidia-smi -q -x`.
2. A real panel with a real llama-server on the card (OMNI_LLAMA_SERVER, else the packaged one with
   Vulkan): that an engine's device is tied to the card, that the model answers, the plan's bytes
   beside the engine's log, and that the engine's process is found on the card.

Ends with 0 when all is the same, with 1 when something differs, and with 2, loudly, where there is
no card to look at. pytest does not collect it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from deployments.planning.memory.reported import Reported, reported_memory
from gpus.nvml import look
from tests.gpu.smi import Compared, compare
from tests.helpers import wait_until
from tests.panel import RunningPanel

# As benchmarks/memory_accuracy.py: the total of a device.
MOST_OFF = 0.03
KEPT = ("OMNI_LLAMA_SERVER", "OMNI_ENGINES")
RIG = """\
deployments:
  - name: real
    strategy: independent
    models: {{model: {model}}}
    devices: {{model: [{device}]}}
    settings: {{context: 4096, parallel: 1}}
"""


class Panel(RunningPanel):
    """With the engine of whoever runs this."""

    @property
    def env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**super().env, "OMNI_STAND_IN_DEVICES": "0", **kept}


# --- fields ---------------------------------------------------------------------------------------
def fields_differ() -> list[str]:
    """Prints every field of every card; returns those that differ."""
    report = look()
    said = subprocess.run(
        ["nvidia-smi", "-q", "-x"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    wrong = []
    for uuid, rows in compare(said.stdout, report.samples).items():
        print(f"\n{uuid}, driver {report.state.driver_version}")
        for row in rows:
            print(_line(row))
        wrong += [f"{uuid} {row.field}" for row in rows if not row.is_same]
    return wrong


def _line(row: Compared) -> str:
    mark = "  " if row.is_same else "!!"
    return f"{mark} {row.field:30} {row.ours!s:>34} {row.theirs!s:>34}  {row.note}"


# --- a model on the card --------------------------------------------------------------------------
def model_differs(folder: Path, model: str | None) -> list[str]:
    panel = Panel(folder / "home", stand_ins=0)
    panel.start()
    try:
        return _on_the_card(panel, folder, model)
    finally:
        panel.stop()


def _on_the_card(panel: Panel, folder: Path, model: str | None) -> list[str]:
    models = panel.document("scan", *([model] if model else []))["models"]
    usable = [row["name"] for row in models if not row.get("error")]
    wait_until(lambda: _device(panel), 120, "no engine lists a device of the card")
    device = _device(panel)
    rig = folder / "rig.yaml"
    rig.write_text(RIG.format(model=usable[0], device=device["name"]))
    (plan,) = panel.document("plan", str(rig))["deployments"]
    print(f"\n{usable[0]} on {device['name']}: {plan['verdict']}, {plan['predicted']}")
    for command in (("apply", str(rig)), ("start", "real", "--wait", "300")):
        done = panel.manage(*command)
        assert done.returncode == 0, done.stderr
    wrong = _answers(panel)
    log = next(panel.home.glob("logs/**/real-*.log"), None)
    if log is None:
        wrong.append("the engine's log was not found")
    else:
        measured = reported_memory(log.read_text(errors="replace").splitlines())
        wrong += _beside_the_log(plan["devices"], measured.devices)
    return wrong + _process_is_seen(panel)


def _device(panel: Panel) -> dict[str, Any]:
    """The first device that is a card's."""
    devices = panel.document("status")["devices"]
    names = ("CUDA", "Vulkan")
    found = (row for row in devices if row["name"].startswith(names))
    return next(found, {})


def _answers(panel: Panel) -> list[str]:
    made = panel.manage("apikey", "real-gpu")
    key = made.stdout.strip().splitlines()[-1]
    body = {
        "model": "real",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    began = time.monotonic()
    answer = httpx.post(
        f"{panel.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=120,
    )
    took_s = time.monotonic() - began
    print(
        f"answer {answer.status_code} in {took_s:.2f} s: {answer.json().get('timings')}"
    )
    return [] if answer.is_success else [f"the gateway answers {answer.status_code}"]


def _beside_the_log(
    planned: list[dict[str, Any]], measured: Mapping[str, Reported]
) -> list[str]:
    """Within 3 % of what the engine allocated on each device."""
    wrong = []
    for row in planned:
        real = measured.get(row["name"])
        if real is None or not real.total:
            continue
        parts = ("weights_bytes", "kv_bytes", "compute_bytes", "other_bytes")
        total = sum(row[part] or 0 for part in parts)
        off = abs(total - real.total) / real.total
        print(
            f"{row['name']}: planned {total:.0f}, log {real.total:.0f}, off {off:.1%}"
        )
        # The host's share holds what is taken only with use.
        if off > MOST_OFF and row["name"] != "CPU":
            wrong.append(f"plan of {row['name']} is off by {off:.1%}")
    return wrong


def _process_is_seen(panel: Panel) -> list[str]:
    (deployment,) = panel.document("status")["deployments"]
    pids = {instance["pid"] for instance in deployment["instances"]}
    seen = {
        process.pid: process.memory_bytes
        for sample in look().samples
        for process in sample.processes or ()
    }
    print(f"engine {pids}, on the card {seen}")
    return (
        [] if pids & set(seen) else ["the engine's process is not listed on the card"]
    )


def main(arguments: list[str]) -> int:
    state = look().state
    if not state.is_ok or not shutil.which("nvidia-smi"):
        print(
            f"SKIPPED, nothing was checked: {state.text or 'no nvidia-smi'}",
            file=sys.stderr,
        )
        return 2
    wrong = fields_differ()
    with tempfile.TemporaryDirectory(prefix="omni-gpu-") as folder:
        wrong += model_differs(Path(folder), arguments[0] if arguments else None)
    print("\nall the same" if not wrong else f"\ndifferent: {'; '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
